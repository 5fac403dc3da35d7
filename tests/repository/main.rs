//! The repository itself: its manifests, Makefile, documents and workflows are valid and agree with each other.

mod documents;
mod makefile;
mod manifests;
mod programs;
mod versions;
mod workflows;

use serde_json::Value;
use std::{fs, path::Path};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const APP: &str = "config/samples/keda-app.yaml";
const SCALED_OBJECT: &str = "config/samples/keda-scaledobject.yaml";
const HPA: &str = "config/hpa/hpa.yaml";
const INGRESS: &str = "config/samples/ingress.yaml";
const NETWORK_POLICY: &str = "config/networkpolicy/networkpolicy.yaml";

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The name and text of each file of a folder whose name ends with this, sorted by name.
fn read_all(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(Path::new(ROOT).join(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.expect("an entry").file_name().into_string())
        .map(|name| name.expect("UTF-8"))
        .filter(|name| name.ends_with(ending))
        .map(|name| {
            let text = read(&format!("{folder}/{name}"));
            (name, text)
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no {ending}");
    files
}

fn parse(yaml: &str, name: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn manifest(file: &str) -> Value {
    parse(&read(file), file)
}

/// The value at a JSON pointer, which must exist.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value
        .pointer(pointer)
        .unwrap_or_else(|| panic!("there is no {pointer} in {value:#}"))
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer)
        .as_str()
        .unwrap_or_else(|| panic!("{pointer} is not a string"))
}

/// The words that follow `marker` in `text`: names of targets after `make `, say.
fn words_after<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
    text.split(marker)
        .skip(1)
        .map(|rest| {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
                .unwrap_or(rest.len());
            &rest[..end]
        })
        .filter(|word| !word.is_empty())
        .collect()
}

//! The Makefile with its scripts, and the manifests.

mod makefile;
mod manifests;
mod programs;

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

fn manifest(file: &str) -> Value {
    serde_saphyr::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
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

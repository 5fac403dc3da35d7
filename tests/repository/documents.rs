//! The documents name things that exist, with their real numbers.

use super::makefile::has_target;
use super::manifests::millicores;
use super::{APP, HPA, ROOT, at, manifest, parse, read, read_all, text_at, words_after};
use serde_json::json;
use std::{fs, path::Path};

/// The path and text of each document.
pub fn documents() -> Vec<(String, String)> {
    let docs = read_all("docs", ".md").into_iter();
    read_all(".", ".md")
        .into_iter()
        .chain(docs.map(|(name, text)| (format!("docs/{name}"), text)))
        .collect()
}

pub fn all_documents() -> String {
    documents().into_iter().map(|(_, text)| text).collect()
}

/// The bodies of the documents' fenced blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    all_documents()
        .split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| {
            let (block, _) = rest.split_once("\n```").expect("every fence is closed");
            block.to_owned()
        })
        .collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(document: &str) -> Vec<String> {
    document
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    for (name, text) in documents() {
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = match path {
                "" => Path::new(ROOT).join(&name),
                path => Path::new(ROOT).join(&name).with_file_name(path),
            };
            assert!(file.exists(), "{name} links to {link}");
            if !anchor.is_empty() {
                let target = fs::read_to_string(&file).expect("a text");
                assert!(
                    anchors(&target).iter().any(|known| known == anchor),
                    "{name} links to {link}, which has no such heading"
                );
            }
        }
    }
}

#[test]
fn the_documents_name_files_targets_and_objects_that_exist() {
    let documents = all_documents();
    let mut files = 0;
    for name in words_after(&documents, "config/samples/") {
        let file = format!("config/samples/{name}.yaml");
        assert!(
            Path::new(ROOT).join(&file).exists(),
            "the documents name {file}"
        );
        files += 1;
    }
    assert!(files > 0);

    let mut targets = words_after(&documents, "`make ");
    let consoles = blocks("console").join("\n");
    let lines = format!("\n{consoles}");
    targets.extend(words_after(&lines, "\nmake "));
    for target in &targets {
        assert!(
            has_target(target),
            "the documents say `make {target}`, which the Makefile does not have"
        );
    }
    for target in [
        "cluster",
        "push",
        "deploy",
        "watch",
        "load",
        "undeploy",
        "cluster-delete",
    ] {
        assert!(
            targets.contains(&target),
            "the documents do not walk through `make {target}`"
        );
    }

    let app = manifest(APP);
    for name in [
        text_at(&app, "/metadata/name"),
        text_at(&app, "/spec/image"),
        text_at(&app, "/spec/executor"),
    ] {
        assert!(
            documents.contains(name),
            "the documents do not mention {name}"
        );
    }
}

#[test]
fn the_documents_calculate_with_the_numbers_of_the_manifests() {
    let app = manifest(APP);
    let hpa = manifest(HPA);
    let limit = millicores(&app, "/spec/resources/limits/cpu");
    let request = millicores(&app, "/spec/resources/requests/cpu");
    let target = at(&hpa, "/spec/metrics/0/resource/target/averageUtilization");
    let utilisation = 100 * limit / request;
    let desired = utilisation
        .div_ceil(u32::try_from(target.as_u64().expect("a number")).expect("it is small"));
    let maximum = at(&hpa, "/spec/maxReplicas");
    let documents = all_documents();
    for expected in [
        format!(
            "uses all of its limit, {limit}m, and requested {request}m of it: {utilisation} % where {target} % is wanted"
        ),
        format!("ceil(1 × {utilisation} ÷ {target}) = {desired}"),
        format!("the maximum of {maximum}"),
    ] {
        assert!(
            documents.contains(&expected),
            "the documents lack: {expected}"
        );
    }
}

#[test]
fn the_documents_double_with_both_autoscalers() {
    let blocks: Vec<_> = blocks("yaml")
        .iter()
        .map(|block| parse(block, "a block of the documents"))
        .collect();
    let doubling =
        json!({"scaleUp": {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}});
    for pointer in [
        "/spec/behavior",
        "/spec/advanced/horizontalPodAutoscalerConfig/behavior",
    ] {
        assert!(
            blocks
                .iter()
                .any(|block| block.pointer(pointer) == Some(&doubling)),
            "no block of the documents has {doubling} at {pointer}"
        );
    }
}

/// A long README is not read to its end. Words as `wc -w` counts them: tables and commands included.
#[test]
fn the_readme_is_short() {
    const MOST_WORDS: usize = 1500;
    let words = read("README.md").split_whitespace().count();
    assert!(
        words <= MOST_WORDS,
        "README.md has {words} words, more than {MOST_WORDS}: details belong in docs/"
    );
}

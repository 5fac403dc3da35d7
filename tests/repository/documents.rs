//! The documents name things that exist, with their real numbers.

use super::makefile::has_target;
use super::manifests::millicores;
use super::{APP, HPA, ROOT, at, manifest, read, read_all, text_at, words_after};
use std::path::Path;

/// The texts of all documents.
pub fn all_documents() -> String {
    let files = [read_all(".", ".md"), read_all("docs", ".md")];
    files.into_iter().flatten().map(|(_, text)| text).collect()
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
    targets.extend(words_after(&documents, "\nmake "));
    assert!(!targets.is_empty());
    for target in &targets {
        assert!(
            has_target(target),
            "the documents say `make {target}`, which the Makefile does not have"
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
    let formula = format!("ceil(1 × {utilisation} ÷ {target}) = {desired}");
    assert!(
        all_documents().contains(&formula),
        "the documents lack: {formula}"
    );
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

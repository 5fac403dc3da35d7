//! The workflows are pinned, may do little, and run targets that there are.

use super::{at, makefile::has_target, parse, read, read_all, text_at, words_after};
use serde_json::json;

/// The name and text of each workflow.
pub fn workflows() -> Vec<(String, String)> {
    let found = read_all(".github/workflows", "");
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ci.yaml", "e2e.yaml", "release.yaml"]);
    found
}

#[test]
fn the_workflows_are_pinned_and_may_do_little() {
    let cargo: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml parses");
    let rust = cargo["workspace"]["package"]["rust-version"]
        .as_str()
        .expect("a string");
    for (name, text) in workflows() {
        let workflow = parse(&text, &name);
        assert_eq!(
            at(&workflow, "/permissions"),
            &json!({"contents": "read"}),
            "{name}"
        );
        assert!(
            text_at(&workflow, "/env/RUSTUP_TOOLCHAIN").starts_with(rust),
            "{name} builds with the rust-version of Cargo.toml"
        );
        for line in text.lines().filter(|line| line.contains("uses:")) {
            let pinned = line
                .split_once('@')
                .and_then(|(_, pin)| pin.split_once(" # v"))
                .is_some_and(|(commit, _)| {
                    commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit())
                });
            assert!(
                pinned,
                "{name}: not pinned to a commit, with its version behind: {line}"
            );
        }
        for marker in ["run: make ", "          make "] {
            for target in words_after(&text, marker) {
                assert!(
                    has_target(target),
                    "{name} runs `make {target}`, which the Makefile does not have"
                );
            }
        }
        for (job_name, job) in at(&workflow, "/jobs").as_object().expect("a map") {
            assert!(
                job.get("timeout-minutes").is_some(),
                "{name}: {job_name} has no time limit"
            );
        }
    }
}

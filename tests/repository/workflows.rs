//! The workflows are pinned, have few permissions, and run targets that exist.

use super::{
    at,
    makefile::{self, has_target},
    parse, read, read_all, words_after,
};
use serde_json::json;

/// The name and text of each workflow.
pub fn workflows() -> Vec<(String, String)> {
    let found = read_all(".github/workflows", "");
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ci.yaml", "e2e.yaml", "release.yaml"]);
    found
}

#[test]
fn the_workflows_are_pinned_and_have_few_permissions() {
    for (name, text) in workflows() {
        let workflow = parse(&text, &name);
        assert_eq!(
            at(&workflow, "/permissions"),
            &json!({"contents": "read"}),
            "{name}"
        );
        assert!(
            !text.contains("RUSTUP_TOOLCHAIN"),
            "{name}: rust-toolchain.toml names the toolchain"
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

#[test]
fn the_toolchain_is_the_rust_version_of_the_crates() {
    let table = |file: &str| -> toml::Table { read(file).parse().expect("TOML") };
    let toolchain = &table("rust-toolchain.toml")["toolchain"];
    let crates = &table("Cargo.toml")["workspace"]["package"]["rust-version"];
    assert_eq!(
        toolchain["channel"].as_str(),
        crates.as_str().map(|rust| format!("{rust}.0")).as_deref()
    );
}

#[test]
fn cargo_builds_from_the_lock_file_everywhere() {
    let mut texts = workflows();
    texts.push(("Makefile".to_owned(), makefile::text()));
    texts.push(("spin.toml".to_owned(), read("spin.toml")));
    texts.extend(read_all("scripts", ".sh"));
    let mut commands = 0;
    for (name, text) in texts {
        for command in ["build", "test", "run", "clippy", "metadata", "install"] {
            for rest in text.split(&format!("cargo {command} ")).skip(1) {
                assert!(
                    rest.starts_with("--locked"),
                    "{name}: cargo {command} {rest:.40}"
                );
                commands += 1;
            }
        }
    }
    assert!(commands > 0);
}

//! One toolchain and one lock file build everything.

use std::fs;

fn read(file: &str) -> String {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
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
    let workflows = ["ci", "e2e", "release"].map(|name| format!(".github/workflows/{name}.yaml"));
    let texts = workflows
        .into_iter()
        .chain(["Makefile".to_owned(), "spin.toml".to_owned()]);
    let mut commands = 0;
    for name in texts {
        let text = read(&name);
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

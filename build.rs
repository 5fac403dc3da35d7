//! Hands the defaults of `spin.toml` to the component, and sets the size of its stack.

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=spin.toml");
    let manifest: toml::Table = fs::read_to_string("spin.toml")?.parse()?;
    let variables = manifest["variables"].as_table().ok_or("no [variables]")?;
    let defaults: Vec<_> = variables
        .iter()
        .map(|(name, variable)| (name, variable["default"].as_str().expect("a string")))
        .collect();
    let file = Path::new(&env::var("OUT_DIR")?).join("defaults.rs");
    fs::write(file, format!("&{defaults:?}"))?;

    // A host keeps the memory of an instance for the next request. With Rust's default of 1 MiB,
    // 400 requests at once fill a pod of 500Mi.
    if env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size={}", 64 << 10);
    }
    Ok(())
}

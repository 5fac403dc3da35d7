//! The built component imports exactly what is listed here with a reason.

use std::collections::BTreeSet;

use wasmparser::{Parser, Payload};

const WASM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/wasm32-wasip1/release/cpu_load_gen.wasm"
);

/// Interfaces or single functions of them. A host provides the functions of
/// `wasi_snapshot_preview1` by an adapter that imports more, files among them: it has none to give,
/// and no environment, since `spin.toml` names none.
const IMPORTS: [&str; 10] = [
    "wasi:http/types",                          // its own exchange
    "wasi:io/streams",                          // the body, and whether its client has disconnected
    "wasi:io/error",                            // the errors of streams
    "wasi:io/poll",                             // to wait
    "wasi:clocks/monotonic-clock",              // to measure the burn, and to wait
    "fermyon:spin/variables get",               // the settings
    "wasi_snapshot_preview1 fd_write",          // a line on stderr if a response fails
    "wasi_snapshot_preview1 proc_exit",         // a panic ends the instance
    "wasi_snapshot_preview1 environ_get",       // std looks for RUST_BACKTRACE; there is none
    "wasi_snapshot_preview1 environ_sizes_get", // the same
];

fn component() -> Vec<u8> {
    std::fs::read(WASM).unwrap_or_else(|error| panic!("{WASM}: {error}; run `make build`"))
}

/// Its bytes are the same for everyone.
#[test]
fn the_component_names_no_folder_of_its_builder() {
    let wasm = component();
    let text = String::from_utf8_lossy(&wasm);
    let home = std::env::home_dir().expect("a home");
    let folders = [
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/"),
        &format!("{}/.cargo", home.display()),
        "registry/src",
    ];
    for folder in folders {
        assert!(!text.contains(folder), "it contains {folder}");
    }
    assert!(text.contains("/crates/"), "panics name source files");
}

#[test]
fn the_component_imports_only_listed_functions() {
    let wasm = component();
    let mut used = BTreeSet::new();
    for payload in Parser::new(0).parse_all(&wasm) {
        let Payload::ImportSection(imports) = payload.expect("a module") else {
            continue;
        };
        for import in imports.into_imports() {
            let import = import.expect("an import");
            let interface = import.module.split('@').next().expect("a name");
            let function = format!("{interface} {}", import.name);
            let is_listed = |allowed: &&&str| [interface, &function].contains(allowed);
            let listed = IMPORTS.iter().find(is_listed);
            used.insert(*listed.unwrap_or_else(|| panic!("it imports {function}")));
            // The only function that sends requests, in an interface that it needs.
            assert!(!import.name.contains("outgoing-request"), "{import:?}");
        }
    }
    assert_eq!(used, BTreeSet::from(IMPORTS), "it no longer imports some");
}

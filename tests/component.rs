//! What the built component imports: the clock, the variables and its own HTTP exchange, no network.

use wasmparser::{Parser, Payload};

const WASM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/wasm32-wasip1/release/cpu_load_gen.wasm"
);

#[test]
fn the_component_imports_nothing_of_sockets_or_outgoing_http() {
    let wasm =
        std::fs::read(WASM).unwrap_or_else(|error| panic!("{WASM}: {error}; run `make build`"));
    let mut imported = Vec::new();
    for payload in Parser::new(0).parse_all(&wasm) {
        if let Payload::ImportSection(imports) = payload.expect("a module") {
            for import in imports.into_imports() {
                let import = import.expect("an import");
                imported.push((import.module.to_owned(), import.name.to_owned()));
            }
        }
    }
    assert!(!imported.is_empty());
    for (module, name) in imported {
        let interface = module.split('@').next().expect("a name");
        let allowed = match interface {
            "wasi:clocks/monotonic-clock"
            | "wasi:io/poll"
            | "wasi:io/streams"
            | "wasi:io/error"
            | "fermyon:spin/variables" => true,
            // Types of the exchange; of them only the outgoing request would be the way out.
            "wasi:http/types" => !name.contains("outgoing-request"),
            // What Rust's standard library needs to start and to panic.
            "wasi_snapshot_preview1" => matches!(
                name.as_str(),
                "environ_get" | "environ_sizes_get" | "fd_write" | "proc_exit" | "random_get"
            ),
            _ => false,
        };
        assert!(allowed, "it imports {name} of {module}");
    }
}

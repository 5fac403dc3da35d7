//! The embedded host from the outside: errors at the start, its own paths, and guests that
//! misbehave.
//!
//! The guests are written here, so nothing needs to be built first.

use std::{fs, net::TcpListener, path::Path};

use tempfile::TempDir;
use testkit::{Launch, Runner, Server};

const MANIFEST: &str = r#"spin_manifest_version = 2
application = { name = "app" }
variables = { size = { default = "3" } }
[[trigger.http]]
route = "/..."
component = "app"
[component.app]
source = "app.wasm"
variables = { length = "{{ size }} m" }
"#;

/// A component that serves every request by running `body`, in the text format.
fn component(body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $outparam))
            (core module $module (func (export "handle") (param i32 i32) {body}))
            (core instance $instance (instantiate $module))
            (func $handle
                (param "request" (own $request)) (param "response-out" (own $outparam))
                (canon lift (core func $instance "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    ))
    .expect("the text format of a component")
}

/// A folder with a manifest, and with an `app.wasm` if one is given.
fn application(manifest: &str, wasm: Option<&[u8]>) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("spin.toml"), manifest).expect("a manifest");
    if let Some(wasm) = wasm {
        fs::write(folder.path().join("app.wasm"), wasm).expect("a component");
    }
    folder
}

fn start(folder: &Path, listen: &str) -> anyhow::Result<Server> {
    // Beside this test, whatever SPIN names.
    let host = env!("CARGO_BIN_EXE_with-server");
    let host = Path::new(host).with_file_name("embedded-host");
    let manifest = folder.join("spin.toml");
    let mut launch = Launch::new(&Runner::EmbeddedHost(host), &manifest)?;
    launch.listen = listen.to_owned();
    launch.start()
}

/// A host that serves an application whose guest is `body`.
fn serving(manifest: &str, body: &str) -> Server {
    let folder = application(manifest, Some(&component(body)));
    start(folder.path(), "localhost:0").expect("a host that serves")
}

/// The error with which the host ends: one line, and an exit status other than 0.
fn failure(folder: &Path, listen: &str) -> String {
    let error = start(folder, listen).err().expect("a failure");
    let error = format!("{error:#}");
    let line = error.split_once("ended with exit status: 1: error: ");
    let (_, line) = line.expect(&error);
    assert!(!line.contains('\n'), "{error}");
    line.to_owned()
}

/// Asserts that the host ends, and names this file of the application and the reason.
fn assert_rejects(manifest: &str, wasm: Option<&[u8]>, file: &str, reason: &str) {
    let folder = application(manifest, wasm);
    let error = failure(folder.path(), "127.0.0.1:0");
    let file = folder.path().join(file);
    assert!(error.starts_with(file.to_str().expect("UTF-8")), "{error}");
    assert!(error.contains(reason), "no {reason} in {error}");
}

#[test]
fn a_manifest_that_it_cannot_serve_is_named_with_the_reason() {
    let missing = failure(Path::new("nowhere"), "127.0.0.1:0");
    assert!(missing.starts_with("nowhere/spin.toml: "), "{missing}");
    let two = "[[trigger.http]]\nroute = \"/b\"\ncomponent = \"b\"\n[component.app]";
    for (from, to, reason) in [
        ("= 2", "= ", "line 1: "),
        ("spin_manifest_version = 2", "", "`spin_manifest_version`"),
        ("version = 2", "version = 1", "reads version 2"),
        ("trigger.http", "trigger.redis", "line 4: unknown field"),
        ("[component.app]", two, "2 [[trigger.http]]"),
        ("/...", "/api", "\"/api\""),
        ("component = \"app\"", "component = \"b\"", "\"b\""),
        ("\"app.wasm\"", "{ url = \"app\" }", "line 8: "),
        ("{{ size }}", "{{ width }}", "`width`"),
        ("{{ size }}", "{{ size", "without `}}`"),
        ("{ default = \"3\" }", "{}", "line 3: missing"),
    ] {
        let manifest = MANIFEST.replacen(from, to, 1);
        assert_ne!(manifest, MANIFEST, "{from}");
        assert_rejects(&manifest, None, "spin.toml", reason);
    }
}

#[test]
fn a_wasm_file_that_it_cannot_serve_is_named_with_the_reason() {
    assert_rejects(MANIFEST, None, "app.wasm", "run `make build`");
    let whole = component("unreachable");
    let cut_short = &whole[..whole.len() / 2];
    // A core module with a section that does not end, and one without a handler.
    let modules = [&b"\0asm\x01\0\0\0\xff"[..], b"\0asm\x01\0\0\0"];
    for wasm in [b"", &b"hello"[..], cut_short].into_iter().chain(modules) {
        assert_rejects(MANIFEST, Some(wasm), "app.wasm", "not a component");
    }
}

#[test]
fn an_address_that_it_cannot_listen_on_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let folder = application(MANIFEST, Some(&component("unreachable")));
    let error = failure(folder.path(), &addr);
    for part in [&*addr, "in use", "--listen", "LISTEN="] {
        assert!(error.contains(part), "no {part} in {error}");
    }
    let error = start(folder.path(), "localhost").err().expect("a failure");
    assert!(format!("{error:#}").contains("HOST:PORT"), "{error:#}");
}

#[test]
fn a_route_serves_its_own_paths_alone_and_spins_are_served_without_the_guest() {
    let host = serving(&MANIFEST.replace("/...", "/burn/..."), "unreachable");
    // As Spin prefers it for `localhost`.
    assert!(host.address().starts_with("127.0.0.1:"));
    for (path, status) in [
        ("/burn", 500),
        ("/burn?a=b", 500),
        ("/burn/a/b", 500),
        ("/burned", 404),
        ("/", 404),
        ("/.well-known/spin/health", 200),
        ("/.well-known/spin/other", 404),
    ] {
        assert_eq!(host.get(path).status, status, "{path}");
    }
}

#[test]
fn a_guest_without_a_response_is_a_500_and_a_line() {
    for (guest, reason) in [
        ("unreachable", "`unreachable` instruction executed"),
        ("", "the guest returned without a response"),
    ] {
        let host = serving(MANIFEST, guest);
        for path in ["/", "/.well-known/other"] {
            let response = host.get(path);
            assert_eq!((response.status, &*response.body), (500, ""), "{path}");
        }
        let log = host.log().expect("a log");
        let line = log.lines().last().unwrap_or_default();
        assert!(line.starts_with("A request failed: "), "{log}");
        assert!(line.ends_with(reason), "{log}");
    }
}

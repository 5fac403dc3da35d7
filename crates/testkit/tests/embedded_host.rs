//! The embedded host from the outside: errors at the start, its own paths, and guests that
//! misbehave.
//!
//! The guests are written here, so nothing needs to be built first.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

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

/// A manifest in a folder of its own, with an `app.wasm` if one is given.
fn application(name: &str, manifest: &str, wasm: Option<&[u8]>) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    if let Some(wasm) = wasm {
        fs::write(folder.join("app.wasm"), wasm).expect("a component");
    }
    let path = folder.join("spin.toml");
    fs::write(&path, manifest).expect("a manifest");
    path
}

fn start(manifest: &Path, listen: &str) -> anyhow::Result<Server> {
    // Beside this test, whatever SPIN names.
    let host = env!("CARGO_BIN_EXE_with-server");
    let host = Path::new(host).with_file_name("embedded-host");
    Launch::at(listen, &Runner::EmbeddedHost(host), manifest)?.start()
}

/// The error with which the host ends: one line, and an exit status other than 0.
fn failure(manifest: &Path, listen: &str) -> String {
    let error = start(manifest, listen).err().expect("a failure");
    let error = format!("{error:#}");
    let line = error.split_once("ended with exit status: 1: error: ");
    let (_, line) = line.expect(&error);
    assert!(!line.contains('\n'), "{error}");
    line.to_owned()
}

#[test]
fn a_manifest_that_it_cannot_serve_is_named_with_the_reason() {
    let missing = failure(Path::new("nowhere/spin.toml"), "127.0.0.1:0");
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
        let text = MANIFEST.replacen(from, to, 1);
        assert_ne!(text, MANIFEST, "{from}");
        let path = application("rejected-manifest", &text, None);
        let error = failure(&path, "127.0.0.1:0");
        assert!(error.starts_with(path.to_str().expect("UTF-8")), "{error}");
        assert!(error.contains(reason), "{to}: no {reason} in {error}");
    }
}

#[test]
fn a_wasm_file_that_it_cannot_serve_is_named_with_the_reason() {
    let whole = component("unreachable");
    for (name, wasm, reason) in [
        ("missing", None, "run `make build`"),
        ("empty", Some(&b""[..]), "not a component"),
        ("text", Some(b"hello"), "not a component"),
        (
            "cut-short",
            Some(&whole[..whole.len() / 2]),
            "not a component",
        ),
        ("broken", Some(b"\0asm\x01\0\0\0\xff"), "not a component"),
        ("no-handler", Some(b"\0asm\x01\0\0\0"), "not a component"),
    ] {
        let path = application(name, MANIFEST, wasm);
        let error = failure(&path, "127.0.0.1:0");
        let wasm = path.with_file_name("app.wasm");
        assert!(error.starts_with(wasm.to_str().expect("UTF-8")), "{error}");
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let path = application("port-in-use", MANIFEST, Some(&component("unreachable")));
    let error = failure(&path, &addr);
    for part in [&*addr, "in use", "--listen", "LISTEN="] {
        assert!(error.contains(part), "no {part} in {error}");
    }
}

#[test]
fn an_address_may_have_a_name_and_must_have_a_port() {
    let path = application("address", MANIFEST, Some(&component("unreachable")));
    let host = start(&path, "localhost:0").expect("a host that serves");
    assert!(host.is_healthy());
    // As Spin prefers it.
    assert!(host.address().starts_with("127.0.0.1:"));
    let error = start(&path, "localhost").err().expect("a failure");
    assert!(format!("{error:#}").contains("HOST:PORT"), "{error:#}");
}

fn serving(name: &str, guest: &str) -> Server {
    let path = application(name, MANIFEST, Some(&component(guest)));
    start(&path, "127.0.0.1:0").expect("a host that serves")
}

#[test]
fn spins_own_paths_are_served_without_the_guest() {
    let host = serving("own-paths", "unreachable");
    for (path, expected) in [
        ("/.well-known/spin/health", (200, "OK")),
        ("/.well-known/spin/other", (404, "")),
        ("/.well-known/other", (500, "")),
    ] {
        let response = host.get(path);
        assert_eq!((response.status, &*response.body), expected, "{path}");
    }
}

#[test]
fn a_route_serves_its_own_paths_alone() {
    let manifest = MANIFEST.replace("/...", "/burn/...");
    let path = application("route", &manifest, Some(&component("unreachable")));
    let host = start(&path, "127.0.0.1:0").expect("a host that serves");
    for (path, status) in [
        ("/burn", 500),
        ("/burn?a=b", 500),
        ("/burn/a/b", 500),
        ("/burned", 404),
        ("/", 404),
        ("/.well-known/spin/health", 200),
    ] {
        assert_eq!(host.get(path).status, status, "{path}");
    }
}

#[test]
fn a_guest_without_a_response_is_a_500_and_a_line() {
    for (name, guest, reason) in [
        ("trap", "unreachable", "`unreachable` instruction executed"),
        ("silence", "", "the guest returned without a response"),
    ] {
        let host = serving(name, guest);
        let response = host.get("/");
        assert_eq!((response.status, &*response.body), (500, ""), "{name}");
        let log = host.log().expect("a log");
        let line = log.lines().last().unwrap_or_default();
        assert!(line.starts_with("A request failed: "), "{name}: {log}");
        assert!(line.ends_with(reason), "{name}: {log}");
    }
}

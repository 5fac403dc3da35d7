//! The embedded host as its user meets it: what keeps it from serving, its own paths, and guests that misbehave.
//!
//! The guests are written here, so nothing needs to be built first.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// How long anything may take that is to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// A component that answers every request by running `body`, in the text format.
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

/// A new directory with a manifest, and with an `app.wasm` where one is given.
fn application(name: &str, manifest: &str, wasm: Option<&[u8]>) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    if let Some(wasm) = wasm {
        fs::write(directory.join("app.wasm"), wasm).unwrap();
    }
    let path = directory.join("spin.toml");
    fs::write(&path, manifest).unwrap();
    path
}

fn command(manifest: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedded-host"));
    command
        .arg("--manifest")
        .arg(manifest)
        .args(["--listen", listen])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What the host says when it refuses to serve: one line, and an exit status other than 0.
fn refusal(manifest: &Path, listen: &str) -> String {
    let mut host = Process::start(&mut command(manifest, listen));
    let stdout = host.0.stdout.take().unwrap();
    let (status, stderr) = host.end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(io::read_to_string(stdout).unwrap(), "");
    let (line, "") = stderr.split_once('\n').expect("a line") else {
        panic!("more than a line: {stderr}");
    };
    line.strip_prefix("error: ").expect("an error").to_owned()
}

/// The host in a process of its own, killed when dropped.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// A host that serves, and the address that it says it serves on.
    fn serving(manifest: &Path) -> (Self, SocketAddr) {
        let mut host = Self::start(&mut command(manifest, "127.0.0.1:0"));
        let mut stdout = BufReader::new(host.0.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            sender.send(line)
        });
        let line = receiver.recv_timeout(PATIENCE).unwrap();
        let addr = line.trim_end().strip_prefix("Serving http://").unwrap();
        (host, addr.parse().unwrap())
    }

    /// What it printed to standard error until now, when it is killed.
    fn killed(&mut self) -> String {
        self.0.kill().unwrap();
        io::read_to_string(self.0.stderr.take().unwrap()).unwrap()
    }

    /// Its exit status and what it printed to standard error. It must end by itself.
    fn end(mut self) -> (ExitStatus, String) {
        let limit = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < limit, "still running after {PATIENCE:?}");
            sleep(Duration::from_millis(10));
        };
        let stderr = io::read_to_string(self.0.stderr.take().unwrap()).unwrap();
        (status, stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn send(addr: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream
}

/// The status and the body of the answer.
fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut text = String::new();
    send(addr, path).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

#[test]
fn a_missing_manifest_is_named() {
    let error = refusal(Path::new("nowhere/spin.toml"), "127.0.0.1:0");
    assert!(
        error.starts_with("nowhere/spin.toml: cannot read the manifest: "),
        "{error}"
    );
}

#[test]
fn a_manifest_that_it_cannot_serve_says_why() {
    for (from, to, reason) in [
        ("= 2", "= ", "line 1: "),
        (
            "spin_manifest_version = 2",
            "",
            "line 1: missing field `spin_manifest_version`",
        ),
        (
            "version = 2",
            "version = 1",
            "spin_manifest_version is 1; this host reads version 2",
        ),
        (
            "trigger.http",
            "trigger.redis",
            "line 4: unknown field `redis`, expected `http`",
        ),
        (
            "[component.app]",
            "[[trigger.http]]\nroute = \"/b\"\ncomponent = \"b\"\n[component.app]",
            "2 [[trigger.http]]; this host serves one",
        ),
        (
            "/...",
            "/api",
            "route is \"/api\"; this host serves only \"/...\"",
        ),
        (
            r#"component = "app""#,
            r#"component = "b""#,
            "[[trigger.http]]: there is no component \"b\"",
        ),
        (
            r#""app.wasm""#,
            r#"{ url = "https://example.com" }"#,
            "line 8: invalid type: map, expected path string",
        ),
        (
            "{{ size }}",
            "{{ width }}",
            "[component.*.variables] length: `{{ width }} m` uses `width`, which [variables] does not declare",
        ),
        (
            "{{ size }}",
            "{{ size",
            "[component.*.variables] length: `{{` without `}}` in `{{ size m`",
        ),
        (
            r#"{ default = "3" }"#,
            "{ required = true }",
            "line 3: missing field `default`",
        ),
    ] {
        let text = MANIFEST.replacen(from, to, 1);
        assert_ne!(text, MANIFEST, "{from}");
        let path = application("refused-manifest", &text, None);
        let error = refusal(&path, "127.0.0.1:0");
        let expected = format!("{}: {reason}", path.display());
        assert!(
            error.starts_with(&expected),
            "{to}: {error} is not {expected}"
        );
    }
}

#[test]
fn a_missing_wasm_file_can_be_built() {
    let path = application("missing-wasm", MANIFEST, None);
    let wasm = path.with_file_name("app.wasm");
    let expected = format!("{} does not exist: run `make build`", wasm.display());
    assert_eq!(refusal(&path, "127.0.0.1:0"), expected);
}

#[test]
fn broken_wasm_files_are_refused() {
    let whole = component("unreachable");
    for (name, wasm) in [
        ("empty", &b""[..]),
        ("text", b"hello"),
        ("truncated-component", &whole[..whole.len() / 2]),
        ("broken-module", b"\0asm\x01\0\0\0\xff"),
        ("module-without-handler", b"\0asm\x01\0\0\0"),
    ] {
        let path = application(name, MANIFEST, Some(wasm));
        let error = refusal(&path, "127.0.0.1:0");
        let wasm = path.with_file_name("app.wasm");
        let expected = format!(
            "{}: not a component that this host can serve: ",
            wasm.display()
        );
        assert!(error.starts_with(&expected), "{name}: {error}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let path = application("port-in-use", MANIFEST, Some(&component("unreachable")));
    let error = refusal(&path, &addr);
    assert!(
        error.starts_with(&format!("cannot listen on {addr}: Address already in use")),
        "{error}"
    );
}

#[test]
fn spins_own_paths_are_answered_without_the_guest() {
    let path = application("own-paths", MANIFEST, Some(&component("unreachable")));
    let (_host, addr) = Process::serving(&path);
    for (path, answer) in [
        ("/.well-known/spin/health", (200, "OK")),
        ("/.well-known/spin/other", (404, "")),
        ("/.well-known/other", (500, "")),
    ] {
        let (status, body) = get(addr, path);
        assert_eq!((status, body.as_str()), answer, "{path}");
    }
}

#[test]
fn a_guest_without_an_answer_is_a_500_and_a_line() {
    for (name, body, line) in [
        (
            "trap",
            "unreachable",
            "A request failed: wasm trap: wasm `unreachable` instruction executed\n",
        ),
        (
            "silence",
            "",
            "A request failed: the guest returned without a response\n",
        ),
    ] {
        let path = application(name, MANIFEST, Some(&component(body)));
        let (mut host, addr) = Process::serving(&path);
        assert_eq!(get(addr, "/"), (500, String::new()), "{name}");
        assert_eq!(host.killed(), line, "{name}");
    }
}

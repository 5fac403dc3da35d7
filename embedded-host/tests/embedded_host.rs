//! The host itself: what keeps it from serving, its own paths, guests that misbehave, and stopping.
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

use embedded_host::{Error, Options, Server};

/// How long anything may take that is to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

const MANIFEST: &str = r#"
    spin_manifest_version = 2
    application = { name = "app" }
    [[trigger.http]]
    route = "/..."
    component = "app"
    [component.app]
    source = "app.wasm"
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

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.0.id());
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.unwrap().success());
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

fn options(manifest: PathBuf) -> Options {
    Options {
        manifest,
        listen: ([127, 0, 0, 1], 0).into(),
        variables: Default::default(),
    }
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
fn a_broken_manifest_is_located() {
    let path = application("broken-manifest", "spin_manifest_version = \n", None);
    let error = refusal(&path, "127.0.0.1:0");
    assert!(
        error.starts_with(&format!("{}: line 1: ", path.display())),
        "{error}"
    );
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
        error.starts_with(&format!("{addr} is already in use: ")),
        "{error}"
    );
}

#[test]
fn a_required_variable_is_taken_from_the_environment() {
    let manifest = format!("variables = {{ some_name = {{ required = true }} }}\n{MANIFEST}");
    let path = application("required-variable", &manifest, None);
    let error = refusal(&path, "127.0.0.1:0");
    assert_eq!(
        error,
        "the variable `some_name` is required: set SPIN_VARIABLE_SOME_NAME"
    );

    let mut command = command(&path, "127.0.0.1:0");
    let (_, error) = Process::start(command.env("SPIN_VARIABLE_SOME_NAME", "value")).end();
    assert!(error.contains("app.wasm does not exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spins_own_paths_are_answered_without_the_guest() {
    let path = application("own-paths", MANIFEST, Some(&component("unreachable")));
    let server = Server::start(options(path)).await.unwrap();
    assert_eq!(
        get(server.addr(), "/.well-known/spin/health"),
        (200, "OK".to_owned())
    );
    assert_eq!(
        get(server.addr(), "/.well-known/spin/other"),
        (404, String::new())
    );
    assert_eq!(
        get(server.addr(), "/.well-known/other"),
        (500, String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_frees_its_port() {
    let path = application("stop", MANIFEST, Some(&component("unreachable")));
    let first = Server::start(options(path.clone())).await.unwrap();
    let addr = first.addr();
    let again = Options {
        listen: addr,
        ..options(path)
    };
    assert!(matches!(
        Server::start(again.clone()).await,
        Err(Error::InUse { .. })
    ));
    first.stop().await;
    let second = Server::start(again).await.unwrap();
    assert_eq!(get(second.addr(), "/.well-known/spin/health").0, 200);
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
        let (host, addr) = Process::serving(&path);
        assert_eq!(get(addr, "/"), (500, String::new()), "{name}");
        host.signal("INT");
        let (status, stderr) = host.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), line), "{name}");
    }
}

#[test]
fn signals_stop_it_while_guests_burn() {
    let path = application("burn", MANIFEST, Some(&component("(loop (br 0))")));
    for signal in ["INT", "TERM"] {
        let (host, addr) = Process::serving(&path);
        let requests: Vec<_> = (0..8).map(|_| send(addr, "/")).collect();
        sleep(Duration::from_millis(200));
        host.signal(signal);
        let (status, stderr) = host.end();
        assert_eq!(
            (status.code(), stderr.as_str()),
            (Some(0), ""),
            "SIG{signal}"
        );
        drop(requests);
    }
}

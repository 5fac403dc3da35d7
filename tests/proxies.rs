//! The component behind nginx and HAProxy, and with ab as its client: `cargo test --test proxies --
//! --ignored` on a machine that has them.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use testkit::{Process, Server, send};

/// The time after which the proxies close an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(7);

/// The path of an installed program.
fn program(name: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").expect("a PATH");
    // Debian has servers in /usr/sbin, which is not on the PATH of every user.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    let installed = folders.map(|it| it.join(name)).find(|it| it.is_file());
    installed.unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}

/// A proxy, ended when dropped.
struct Proxy {
    address: String,
    _process: Process,
}

impl Proxy {
    fn nginx(upstream: &str) -> Self {
        Self::start("nginx", |address, folder| {
            let temporary_paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|name| format!("{name}_temp_path {folder}/{name};"))
                .concat();
            let config = format!(
                "daemon off; pid {folder}/pid; error_log stderr;
                events {{}}
                http {{
                    access_log off; {temporary_paths}
                    server {{ listen {address}; location / {{ proxy_pass http://{upstream}; }} }}
                }}"
            );
            (program("nginx", "nginx"), ["-e", "stderr", "-c"], config)
        })
    }

    fn haproxy(upstream: &str) -> Self {
        Self::start("haproxy", |address, _| {
            let timeout = IDLE_TIMEOUT.as_secs();
            let config = format!(
                "defaults
                    mode http
                    timeout connect 5s
                    timeout client {timeout}s
                    timeout server {timeout}s
                listen app
                    bind {address}
                    server app {upstream}\n"
            );
            (program("haproxy", "haproxy"), ["-q", "-db", "-f"], config)
        })
    }

    /// Starts a proxy on a free port. `prepare` returns its program, arguments and configuration.
    fn start(
        name: &str,
        prepare: impl Fn(&str, &str) -> (PathBuf, [&'static str; 3], String),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let folder = format!("{}/{name}-{address}", env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(&folder).expect("a folder");
        let (program, args, config) = prepare(&address, &folder);
        let file = format!("{folder}/config");
        fs::write(&file, config).expect("a file");
        let mut command = Command::new(program);
        command.args(args).arg(file).stdin(Stdio::null());
        let mut process = Process::spawn(command).expect("a proxy");
        let started = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(started.elapsed() < IDLE_TIMEOUT, "{name} does not listen");
            let status = process.status().expect("a status");
            assert!(status.is_none(), "{name} ended: {status:?}");
            sleep(Duration::from_millis(50));
        }
        Self {
            address,
            _process: process,
        }
    }
}

#[test]
#[ignore = "needs ab: apt-get install apache2-utils"]
fn ab_keeps_its_connections() {
    let server = Server::start(&[]);
    for target in ["/?iterations=0", "/?nonsense", "/robots.txt"] {
        let output = Command::new(program("ab", "apache2-utils"))
            .args(["-l", "-k", "-n", "100", "-c", "4"])
            .arg(server.url(target))
            .output()
            .expect("ab runs");
        let report = String::from_utf8_lossy(&output.stdout);
        let number = |label: &str| {
            let line = report.lines().find_map(|line| line.strip_prefix(label));
            line.unwrap_or_else(|| panic!("no {label} in {report}"))
                .trim()
        };
        assert_eq!(number("Failed requests:"), "0", "{target}: {report}");
        assert_eq!(number("Keep-Alive requests:"), "100", "{target}: {report}");
    }
}

#[test]
#[ignore = "needs nginx and HAProxy: apt-get install nginx haproxy"]
fn a_long_response_passes_through_proxies_that_close_idle_connections() {
    let server = Server::start(&[]);
    let nginx = Proxy::nginx(server.address());
    let haproxy = Proxy::haproxy(&nginx.address);
    let mut response = String::new();
    let client = send(&haproxy.address, "/?cpu=10m&duration=12s");
    let read = client.and_then(|mut client| client.read_to_string(&mut response));
    read.expect("a whole response");
    let load = r#""load":"cpu=10m&duration=12s""#;
    assert!(response.contains(load), "{response}");
}

#[test]
#[ignore = "needs HAProxy: apt-get install haproxy"]
fn a_burn_ends_soon_after_its_client_disconnects_behind_a_proxy() {
    let server = Server::start(&[]);
    let haproxy = Proxy::haproxy(server.address());
    let client = send(&haproxy.address, "/?cpu_time=9s").expect("a request is sent");
    sleep(Duration::from_millis(2500));
    drop(client);
    // It burns for two seconds at most.
    sleep(Duration::from_secs(2));
    let cpu_time = || server.cpu_time().expect("a CPU time");
    let before = cpu_time();
    sleep(Duration::from_secs(1));
    let used = cpu_time() - before;
    assert!(used < Duration::from_millis(200), "{used:?} in a second");
}

//! The component behind nginx and HAProxy: `cargo test --test proxies -- --ignored` on a machine
//! that has them.

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs};

use testkit::{Launch, Server};

/// The time after which the proxies close an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(7);

fn nginx(upstream: &str) -> Server {
    start("nginx", ["-e", "stderr", "-c"], |address, folder| {
        let temporary_paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {folder}/{name};"))
            .concat();
        format!(
            "daemon off; pid {folder}/pid; error_log stderr;
            events {{}}
            http {{
                access_log off; {temporary_paths}
                server {{ listen {address}; location / {{ proxy_pass http://{upstream}; }} }}
            }}"
        )
    })
}

fn haproxy(upstream: &str) -> Server {
    start("haproxy", ["-q", "-db", "-f"], |address, _| {
        let timeout = IDLE_TIMEOUT.as_secs();
        format!(
            "defaults
                mode http
                timeout connect 5s
                timeout client {timeout}s
                timeout server {timeout}s
            listen app
                bind {address}
                server app {upstream}\n"
        )
    })
}

/// Starts a proxy on a free port, with the configuration for that address and this folder.
fn start(name: &str, args: [&str; 3], config: impl Fn(&str, &str) -> String) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let folder = format!("{}/{name}-{address}", env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&folder).expect("a folder");
    let file = format!("{folder}/config");
    fs::write(&file, config(&address, &folder)).expect("a file");
    // Debian has servers in /usr/sbin, which is not on the PATH of every user.
    let path = env::var("PATH").expect("a PATH");
    let mut command = Command::new(name);
    command.args(args).arg(file);
    command.env("PATH", format!("{path}:/usr/sbin"));
    let launch = Launch::program(command, &format!("http://{address}"));
    let proxy = launch.and_then(Launch::start);
    proxy.unwrap_or_else(|error| panic!("{error:#} (apt-get install {name})"))
}

#[test]
#[ignore = "needs nginx and HAProxy: apt-get install nginx haproxy"]
fn a_long_response_passes_through_proxies_that_close_idle_connections() {
    let server = Server::start(&[]);
    let nginx = nginx(server.address());
    let haproxy = haproxy(nginx.address());
    let mut response = String::new();
    let client = haproxy.send("/?cpu=10m&duration=12s");
    let read = client.and_then(|mut client| client.read_to_string(&mut response));
    read.expect("a whole response");
    let load = r#""load":"cpu=10m&duration=12s""#;
    assert!(response.contains(load), "{response}");
}

#[test]
#[ignore = "needs HAProxy: apt-get install haproxy"]
fn a_burn_ends_soon_after_its_client_disconnects_behind_a_proxy() {
    let server = Server::start(&[]);
    let haproxy = haproxy(server.address());
    let client = haproxy.send("/?cpu_time=9s").expect("a request is sent");
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

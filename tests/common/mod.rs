//! What the integration tests share: a server of the built component, and a client that asks it.

// Each test uses a part of it.
#![allow(dead_code)]

mod digest;
mod serving;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
pub use digest::digest;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest, handshake};
use serde_json::Value;
use tokio::net::TcpStream;
use ureq::Agent;
use ureq::http::{Method, Request};

/// How long a server may take to start, or an answer to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of the component, stopped when dropped: the embedded host, or, where the environment
/// variable `SPIN` names one, a real Spin.
pub struct Server {
    process: Process,
    address: String,
    agent: Agent,
}

/// A process with its children: Spin starts the trigger as one.
struct Process(Child);

/// A connection with HTTP/2.
pub struct Http2(SendRequest<Bytes>);

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Server {
    /// Serves the built component, with these variables in place of the defaults of `spin.toml`.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let mut command = match env::var_os("SPIN") {
            Some(spin) => {
                let mut command = Command::new(spin);
                command.args(["up", "--quiet", "--from", manifest()]);
                command
            }
            None => {
                let mut command = Command::new(embedded_host());
                command.args(["--manifest", manifest()]);
                command
            }
        };
        for (name, value) in variables {
            command.env(format!("SPIN_VARIABLE_{}", name.to_uppercase()), value);
        }
        let (process, address) = Process::serving(command.args(["--listen", "127.0.0.1:0"]));
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let mut server = Self {
            process,
            address,
            agent,
        };
        server.wait_until_healthy();
        server
    }

    /// The address as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Another connection, which speaks HTTP/2 from its first byte.
    pub async fn http2(&self) -> Http2 {
        let connection = TcpStream::connect(&self.address).await;
        let connection = handshake(connection.expect("a connection")).await;
        let (client, connection) = connection.expect("HTTP/2");
        tokio::spawn(connection);
        Http2(client)
    }

    /// The answer to a GET of `path`, which may have a query.
    pub fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path)
    }

    /// The answer to any request without a body.
    pub fn ask(&self, method: Method, path: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .body(())
            .expect("a request");
        let mut response = self.agent.run(request).expect("an answer");
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response
                .body_mut()
                .read_to_string()
                .expect("a body in UTF-8"),
        }
    }

    fn wait_until_healthy(&mut self) {
        let end = Instant::now() + PATIENCE;
        let health = format!("http://{}/.well-known/spin/health", self.address);
        while let Err(error) = self.agent.get(&health).call() {
            assert!(Instant::now() < end, "not healthy within a minute: {error}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Http2 {
    /// Asks for `query` on so many streams at once.
    pub async fn ask(
        &self,
        query: &str,
        streams: usize,
    ) -> Vec<(ResponseFuture, SendStream<Bytes>)> {
        let mut asked = Vec::new();
        for _ in 0..streams {
            let request = Request::get(format!("http://localhost/?{query}")).body(());
            let client = self.0.clone().ready().await;
            let stream = client
                .expect("room for a stream")
                .send_request(request.expect("a request"), true);
            asked.push(stream.expect("a stream"));
        }
        asked
    }
}

impl Answer {
    /// A header of the answer, empty where it has none of that name.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("a header in ASCII"))
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Process {
    /// Starts a server on a port of its own choice, and waits until it says which.
    fn serving(command: &mut Command) -> (Self, String) {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut process = Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let stdout = process.0.stdout.take().expect("its standard output");
        let address = serving::address(stdout, PATIENCE);
        let address = address.unwrap_or_else(|error| panic!("{command:?} does not serve: {error}"));
        (process, address)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        // Where there is no such command, at least the process itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The embedded host, which lies beside the folder of the tests.
fn embedded_host() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let host = test
        .ancestors()
        .nth(2)
        .expect("a folder")
        .join("embedded-host");
    assert!(
        host.exists(),
        "{} does not exist: run `make test`",
        host.display()
    );
    host
}

/// The manifest of the component.
pub fn manifest() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/spin.toml")
}

//! What the integration tests share: a server of the built component, and a client that asks it.

// Each test uses a part of it.
#![allow(dead_code)]

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};

/// A server of the component, stopped when dropped: the embedded host, or, where the environment
/// variable `SPIN` names one, a real Spin.
pub struct Server {
    url: String,
    agent: Agent,
    running: Running,
}

/// What must live as long as the server.
enum Running {
    Embedded {
        _server: embedded_host::Server,
        /// Taken when dropped.
        runtime: Option<tokio::runtime::Runtime>,
    },
    Spin(Child),
}

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
        let (running, url) = match std::env::var_os("SPIN") {
            Some(spin) => spin_up(Path::new(&spin), variables),
            None => embedded(variables),
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let mut server = Self {
            url,
            agent,
            running,
        };
        server.wait_until_healthy();
        server
    }

    /// The address as `host:port`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The answer to a GET of `path`, which may have a query.
    pub fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path)
    }

    /// The answer to any request without a body.
    pub fn ask(&self, method: Method, path: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
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
        let end = Instant::now() + Duration::from_secs(60);
        let health = format!("{}/.well-known/spin/health", self.url);
        while let Err(error) = self.agent.get(&health).call() {
            assert!(Instant::now() < end, "not healthy within a minute: {error}");
            if let Running::Spin(spin) = &mut self.running {
                let ended = spin.try_wait().expect("its status");
                assert_eq!(ended, None, "Spin ended instead of serving");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
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

impl Drop for Running {
    fn drop(&mut self) {
        match self {
            // Not waiting for guests, which may be what a test found to burn for ever.
            Self::Embedded { runtime, .. } => {
                if let Some(runtime) = runtime.take() {
                    runtime.shutdown_background();
                }
            }
            Self::Spin(spin) => {
                // Its group: Spin starts the trigger as a child.
                let group = format!("-{}", spin.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                // Where there is no such command, at least Spin itself.
                let _ = spin.kill();
                let _ = spin.wait();
            }
        }
    }
}

fn embedded(variables: &[(&str, &str)]) -> (Running, String) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
    let server = runtime
        .block_on(embedded_host::Server::start(embedded_host::Options {
            manifest: manifest().into(),
            listen: ([127, 0, 0, 1], 0).into(),
            variables: variables.iter().map(owned).collect(),
        }))
        .unwrap_or_else(|error| panic!("{error}"));
    let url = format!("http://{}", server.addr());
    let running = Running::Embedded {
        _server: server,
        runtime: Some(runtime),
    };
    (running, url)
}

fn spin_up(spin: &Path, variables: &[(&str, &str)]) -> (Running, String) {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port").to_string();
    let mut command = Command::new(spin);
    for (name, value) in variables {
        command.env(format!("SPIN_VARIABLE_{}", name.to_uppercase()), value);
    }
    let child = command
        .args(["up", "--quiet", "--listen", &address, "--from", manifest()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", spin.display()));
    (Running::Spin(child), format!("http://{address}"))
}

/// The manifest of the component.
pub fn manifest() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/spin.toml")
}

//! The clients: each sends one request after the other.

use std::{
    collections::BTreeSet,
    fmt,
    io::Write,
    net::TcpStream,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use testkit::{Latencies, Method, Server, digest};

/// Of this many responses to a load in CPU time, one has its digest recomputed, which costs as much
/// as the load.
const SAMPLE: usize = 20;

/// A method, a query, and the status of the response.
const REQUESTS: [(Method, &str, u16); 9] = [
    (Method::GET, "iterations=5000", 200),
    (Method::GET, "cpu_time=2ms", 200),
    (Method::GET, "", 200),
    (Method::GET, "cpu=100m&duration=100ms", 200),
    (Method::HEAD, "cpu_time=10s", 200),
    (Method::GET, "iterations=-1", 400),
    (Method::GET, "cpu_time=1h", 400),
    (Method::GET, "cpu=1&duration=1h", 400),
    (Method::POST, "iterations=1", 405),
];
/// Once in this many rounds of these requests, a client disconnects in mid-burn.
const DISCONNECT: usize = 7;

/// Clients, which send requests until they are stopped.
pub struct Clients<'a> {
    server: &'a Server,
    stopped: AtomicBool,
    results: Mutex<Results>,
}

#[derive(Clone, Default)]
pub struct Results {
    answered: usize,
    disconnected: usize,
    /// The digests that were recomputed.
    pub digests: usize,
    /// Errors and unexpected responses, each once.
    pub unexpected: BTreeSet<String>,
    pub health: Latencies,
}

impl<'a> Clients<'a> {
    pub fn new(server: &'a Server) -> Self {
        Self {
            server,
            stopped: AtomicBool::default(),
            results: Mutex::default(),
        }
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The results so far.
    pub fn results(&self) -> Results {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Results> {
        self.results.lock().expect("no client panics")
    }

    /// One client; each begins with another request.
    pub fn send_requests(&self, number: usize) {
        self.repeat(number, |step| self.send_request(step));
    }

    pub fn probe_health(&self) {
        self.repeat(0, |_| {
            let start = Instant::now();
            ensure!(
                self.server.is_healthy(),
                "health did not answer in a second"
            );
            self.locked().health.record(start.elapsed());
            sleep(Duration::from_millis(100));
            Ok(())
        });
    }

    fn repeat(&self, first: usize, step: impl Fn(usize) -> Result<()>) {
        for number in first.. {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = step(number) {
                self.locked().unexpected.insert(format!("{error:#}"));
            }
        }
    }

    fn send_request(&self, step: usize) -> Result<()> {
        let round = step / REQUESTS.len();
        if step.is_multiple_of(DISCONNECT * REQUESTS.len()) {
            let client = send(self.server, "cpu_time=5s")?;
            sleep(Duration::from_millis(20));
            drop(client);
            self.locked().disconnected += 1;
            return Ok(());
        }
        let (method, query, expected) = &REQUESTS[step % REQUESTS.len()];
        let what = format!("{method} /?{query}");
        let response = self.server.request(method.clone(), &format!("/?{query}"))?;
        ensure!(response.status == *expected, "{what}: {response:?}");
        let has_digest = method == Method::GET && response.status == 200;
        let recompute = query.starts_with("iterations") || round.is_multiple_of(SAMPLE);
        if has_digest && recompute {
            let report = response.json();
            let iterations = report["iterations"].as_u64().context("no iterations")?;
            let right = report["digest"] == digest(iterations);
            ensure!(right, "{what}: a wrong digest: {report}");
            self.locked().digests += 1;
        }
        self.locked().answered += 1;
        Ok(())
    }
}

/// Sends a request for a client that will not read the response.
pub fn send(server: &Server, query: &str) -> Result<TcpStream> {
    let mut client = TcpStream::connect(server.address())?;
    write!(client, "GET /?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    Ok(client)
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            disconnected,
            digests,
            unexpected,
            health,
        } = self;
        let (unexpected, probes) = (unexpected.len(), health.count());
        let p99 = health.quantile(0.99).unwrap_or_default();
        write!(
            f,
            "{answered} answered, {disconnected} disconnected, {digests} digests right, \
             {unexpected} unexpected, health p99 {p99:.0?} of {probes}"
        )
    }
}

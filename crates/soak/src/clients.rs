//! The clients: each on a connection of its own, asking for one thing after the other.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ureq::Agent;
use ureq::http::Request;

use crate::digest::digest;

/// One in so many answers of a load in CPU time has its digest recomputed: as expensive as itself.
const SAMPLE: usize = 20;

/// What a client does: a method, a query and the status that it must get.
const REQUESTS: [(&str, &str, u16); 9] = [
    ("GET", "iterations=5000", 200),
    ("GET", "cpu_time=2ms", 200),
    ("GET", "", 200),
    ("GET", "cpu=100m&duration=100ms", 200),
    ("HEAD", "cpu_time=10s", 200),
    ("GET", "iterations=-1", 400),
    ("GET", "cpu_time=11s", 400),
    ("GET", "cpu=1&duration=10m", 400),
    ("POST", "iterations=1", 405),
];
/// What it does once in so many times of all these: leave in mid-burn.
const LEAVE: usize = 7;

/// Clients at work until they are stopped.
pub struct Clients {
    stopped: Arc<AtomicBool>,
    figures: Arc<Mutex<Figures>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the clients saw.
#[derive(Clone, Default)]
pub struct Figures {
    pub answered: usize,
    pub left: usize,
    /// Digests that were recomputed.
    pub digests: usize,
    /// What went wrong, each once.
    pub unexpected: BTreeSet<String>,
    health: Vec<Duration>,
}

impl Clients {
    /// So many clients, and one more that asks for the server's health.
    pub fn start(address: &str, connections: usize) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let figures = Arc::new(Mutex::new(Figures::default()));
        let thread = |number: Option<usize>| {
            let (address, stopped, figures) =
                (address.to_owned(), stopped.clone(), figures.clone());
            spawn(move || {
                let agent = agent();
                let mut step = number.unwrap_or(0);
                while !stopped.load(Ordering::Relaxed) {
                    let done = match number {
                        Some(_) => work(&agent, &address, step, &figures),
                        None => probe(&address, &figures),
                    };
                    if let Err(error) = done {
                        locked(&figures).unexpected.insert(format!("{error:#}"));
                    }
                    step += 1;
                }
            })
        };
        let threads = (0..connections)
            .map(Some)
            .chain([None])
            .map(thread)
            .collect();
        Self {
            stopped,
            figures,
            threads,
        }
    }

    /// What they have seen so far.
    pub fn figures(&self) -> Figures {
        locked(&self.figures).clone()
    }

    /// Stops them and says what they saw.
    pub fn stop(self) -> Figures {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no client panics");
        }
        locked(&self.figures).clone()
    }
}

fn locked(figures: &Mutex<Figures>) -> MutexGuard<'_, Figures> {
    figures
        .lock()
        .expect("nobody panics with the figures in hand")
}

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false);
    let limited = config.timeout_global(Some(Duration::from_secs(60)));
    limited.build().into()
}

fn work(agent: &Agent, address: &str, step: usize, figures: &Mutex<Figures>) -> Result<()> {
    let round = step / REQUESTS.len();
    if step.is_multiple_of(LEAVE * REQUESTS.len()) {
        let leaving = ask_and_keep(address, "cpu_time=5s")?;
        sleep(Duration::from_millis(20));
        drop(leaving);
        locked(figures).left += 1;
        return Ok(());
    }
    let (method, query, expected) = REQUESTS[step % REQUESTS.len()];
    let what = format!("{method} /?{query}");
    let url = format!("http://{address}/?{query}");
    let request = Request::builder().method(method).uri(url).body(())?;
    let mut response = agent.run(request).with_context(|| what.clone())?;
    let body = response
        .body_mut()
        .read_to_string()
        .with_context(|| what.clone())?;
    let status = response.status();
    ensure!(status == expected, "{what}: {status} {body}");
    let mut digests = 0;
    if method == "GET"
        && status == 200
        && (query.starts_with("iterations") || round.is_multiple_of(SAMPLE))
    {
        let report: serde_json::Value = serde_json::from_str(&body)?;
        let iterations = report["iterations"].as_u64().context("no iterations")?;
        ensure!(
            report["digest"] == digest(iterations),
            "{what}: a wrong digest: {body}"
        );
        digests = 1;
    }
    let mut figures = locked(figures);
    figures.answered += 1;
    figures.digests += digests;
    Ok(())
}

/// Sends a request, for a client that will not read the answer.
pub fn ask_and_keep(address: &str, query: &str) -> Result<TcpStream> {
    let mut connection = TcpStream::connect(address)?;
    write!(
        connection,
        "GET /?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )?;
    Ok(connection)
}

fn probe(address: &str, figures: &Mutex<Figures>) -> Result<()> {
    let start = Instant::now();
    // On a new connection, as a kubelet does.
    let url = format!("http://{address}/.well-known/spin/health");
    agent().get(&url).call().context("health")?;
    locked(figures).health.push(start.elapsed());
    sleep(Duration::from_millis(100));
    Ok(())
}

impl Figures {
    /// The time within which 99 of 100 probes were answered.
    pub fn health_p99(&self) -> Duration {
        let mut health = self.health.clone();
        health.sort();
        let p99 = (health.len() * 99).div_ceil(100).saturating_sub(1);
        health.get(p99).copied().unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            left,
            digests,
            unexpected,
            health,
        } = self;
        let (unexpected, probes) = (unexpected.len(), health.len());
        let p99 = self.health_p99().as_secs_f64() * 1e3;
        write!(
            f,
            "{answered} answered, {left} left, {digests} digests right, {unexpected} unexpected, "
        )?;
        write!(f, "health p99 {p99:.0} ms of {probes}")
    }
}

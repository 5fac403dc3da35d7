//! `make soak`: mixed requests, bad ones and clients that disconnect, for minutes; then faults.

mod faults;

use std::{
    collections::BTreeSet,
    iter::zip,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use go_duration::GoDuration;
use reqwest::{Client, Method};
use serde_json::Value;
use testkit::{Launch, Runner, Server, Usage, digest, manifest};
use tokio::{
    task::{JoinSet, spawn_blocking, yield_now},
    time::{Instant, sleep, timeout},
};

use crate::{
    crowds::health_figures,
    report::{Figure, Report},
    testbed::{self, COMPONENT},
    traffic::{client, probe_health, response},
    value::{count, deviation, mebibytes, percent},
};

const CONNECTIONS: usize = 64;
/// The time after which memory, threads and descriptors are compared with those at the end.
const WARM: Duration = Duration::from_secs(60);
/// The time without clients before that: burns end, and after ten seconds Spin's idle threads.
const REST: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(15);

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
/// Of this many responses to a load in CPU time, one has its digest recomputed, which costs as much
/// as the load.
const SAMPLE: usize = 20;

#[derive(clap::Args)]
pub struct Args {
    /// How long to send requests, such as 10m; at least 90s
    #[arg(long = "for", value_parser = period, value_name = "DURATION", default_value = "10m")]
    period: Duration,
}

fn period(text: &str) -> Result<Duration, &'static str> {
    let nanos = text.parse().map_or(0, |GoDuration(nanos)| nanos);
    let period = Duration::from_nanos(nanos.try_into().unwrap_or_default());
    let is_allowed = period >= WARM + 2 * INTERVAL;
    let allowed = "it must be numbers with units (s, m, h), such as 10m or 1m30s, at least 90s";
    is_allowed.then_some(period).ok_or(allowed)
}

impl Args {
    pub async fn run(self) -> Result<u8> {
        let runner = testbed::runner()?;
        let mut report = Report::begin(&runner)?;
        report.begin_case("soak", Path::new(COMPONENT));
        let server = start(&runner)?;
        let measured = soak(&server, self.period, &mut report).await;
        report.check(measured);
        drop(server);
        faults::measure(&runner, &mut report).await;
        report.end(None)
    }
}

fn start(runner: &Runner) -> Result<Server> {
    Launch::new(runner, manifest())?.start()
}

/// Sends requests for this period, and compares the server at rest with what it was when warm.
async fn soak(server: &Server, period: Duration, report: &mut Report) -> Result<()> {
    let counts = Arc::new(Mutex::new(Counts::default()));
    let (mut health, mut rests) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for part in [WARM, period - WARM] {
        let client = |first| requests(server.url("/"), first, counts.clone());
        let clients: JoinSet<_> = (0..CONNECTIONS).map(client).collect();
        let end = Instant::now() + part;
        while Instant::now() < end {
            let interval_end = end.min(Instant::now() + INTERVAL);
            let probes = probe_health(server.health_url(), interval_end);
            health.extend(probes.await?);
            let mut seen = counts.lock().expect("no client panics").figures().to_vec();
            seen.extend(figures(server.usage()?));
            let seconds = start.elapsed().as_secs();
            report.add(format!("c={CONNECTIONS}, after {seconds} s"), &seen);
        }
        drop(clients);
        sleep(REST).await;
        rests.push(figures(server.usage()?));
    }
    let growth = |((what, last), (_, warm)): (Figure, Figure)| {
        let growth = deviation(last.number, warm.number);
        (what, percent(growth).at_most(15.0))
    };
    let mut seen: Vec<_> = zip(rests[1], rests[0]).map(growth).collect();
    let [p99, (late, probes)] = health_figures(&health, 100.0);
    let counts = counts.lock().expect("no client panics");
    seen.extend([
        p99,
        (late, probes.at_most(0.0)),
        ("digests right", count(counts.digests).at_least(1.0)),
        ("unexpected", count(counts.unexpected.len()).at_most(0.0)),
    ]);
    report.add("at rest, since it was warm", &seen);
    Ok(())
}

fn figures(usage: Usage) -> [Figure; 3] {
    [
        ("memory", mebibytes(usage.resident)),
        ("threads", count(usage.threads as usize)),
        ("descriptors", count(usage.descriptors as usize)),
    ]
}

#[derive(Default)]
struct Counts {
    answered: usize,
    disconnected: usize,
    /// The digests that were recomputed.
    digests: usize,
    /// Errors and unexpected responses, each once.
    unexpected: BTreeSet<String>,
}

impl Counts {
    fn figures(&self) -> [Figure; 4] {
        [
            ("answered", count(self.answered)),
            ("disconnected", count(self.disconnected)),
            ("digests right", count(self.digests)),
            ("unexpected", count(self.unexpected.len())),
        ]
    }
}

/// Sends one request after the other. The clients begin with different ones.
async fn requests(url: String, first: usize, counts: Arc<Mutex<Counts>>) -> Result<()> {
    let client = client()?;
    for step in first.. {
        if let Err(error) = request(&client, &url, step, &counts).await {
            let mut counts = counts.lock().expect("no client panics");
            if counts.unexpected.insert(format!("{error:#}")) {
                eprintln!("unexpected: {error:#}");
            }
        }
        // The end of a response also wakes the task that makes its connection available again: that
        // runs first.
        yield_now().await;
    }
    Ok(())
}

async fn request(client: &Client, url: &str, step: usize, counts: &Mutex<Counts>) -> Result<()> {
    let counts = || counts.lock().expect("no client panics");
    let round = step / REQUESTS.len();
    if step.is_multiple_of(DISCONNECT * REQUESTS.len()) {
        let request = client.get(format!("{url}?cpu_time=5s")).send();
        if let Ok(early) = timeout(Duration::from_millis(20), request).await {
            bail!("a response before its burn: {early:?}");
        }
        counts().disconnected += 1;
        return Ok(());
    }
    let (method, query, status) = REQUESTS[step % REQUESTS.len()].clone();
    let is_get = method == Method::GET;
    let what = format!("{method} ?{query}");
    let request = client.request(method, format!("{url}?{query}"));
    let body = response(request, status).await.context(what)?;
    let recompute = query.starts_with("iterations") || round.is_multiple_of(SAMPLE);
    if is_get && status == 200 && recompute {
        let report: Value = serde_json::from_str(&body)?;
        let iterations = report["iterations"].as_u64().context("no iterations")?;
        let right = spawn_blocking(move || digest(iterations)).await?;
        ensure!(report["digest"] == right, "a wrong digest: {report}");
        counts().digests += 1;
    }
    counts().answered += 1;
    Ok(())
}

//! `make soak`: mixed requests, bad ones and clients that disconnect, for minutes; then faults. It
//! prints its results meanwhile, and fails if one is out of bounds.

mod faults;

use std::{
    collections::BTreeSet,
    fmt,
    process::ExitCode,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use go_duration::GoDuration;
use testkit::{Latencies, Launch, Method, Runner, Server, Usage, digest, manifest, send};

const CONNECTIONS: usize = 64;
/// The time after which memory, threads and descriptors are compared with those at the end.
const WARM: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(15);
/// The allowed growth of memory, threads and descriptors from the warm server to the end.
const MAX_GROWTH: f64 = 0.05;
/// The bound of `make bench` for a crowd without a CPU limit.
const MAX_HEALTH_P99: Duration = Duration::from_millis(50);

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

fn period(text: &str) -> Result<Duration, String> {
    let GoDuration(nanos) = text
        .parse()
        .map_err(|_| "it must be numbers with units (s, m, h), such as 10m or 1m30s")?;
    let period = Duration::from_nanos(nanos.try_into().unwrap_or_default());
    if period < WARM + 2 * INTERVAL {
        return Err("it must be at least 90s".into());
    }
    Ok(period)
}

pub fn run(args: Args, runner: &Runner) -> Result<ExitCode> {
    let server = Launch::new(runner, manifest())?.start()?;
    let mut failures = work(&server, args.period)?;
    drop(server);
    for (name, fault) in faults::ALL {
        match fault(runner) {
            Ok(seen) => println!("{name}: {seen}"),
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    ensure!(failures.is_empty(), "{} out of bounds", failures.len());
    Ok(ExitCode::SUCCESS)
}

/// Sends requests for this period, and returns the results that are out of bounds.
fn work(server: &Server, period: Duration) -> Result<Vec<String>> {
    println!("{CONNECTIONS} connections for {period:?}");
    let clients = Clients {
        server,
        are_stopped: AtomicBool::default(),
        results: Mutex::default(),
    };
    let [warm, end] = scope(|scope| {
        // Each begins with another request.
        for number in 0..CONNECTIONS {
            let clients = &clients;
            scope.spawn(move || clients.repeat(number, |step| clients.send_request(step)));
        }
        scope.spawn(|| clients.repeat(0, |_| clients.probe_health()));
        let usage = clients.watch(period);
        clients.are_stopped.store(true, Relaxed);
        usage
    })?;
    Ok(clients.results().evaluate(warm, end))
}

/// Clients that each send one request after the other until they are stopped.
struct Clients<'a> {
    server: &'a Server,
    are_stopped: AtomicBool,
    results: Mutex<Results>,
}

impl Clients<'_> {
    /// The results so far.
    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().expect("no client panics")
    }

    fn repeat(&self, first: usize, step: impl Fn(usize) -> Result<()>) {
        for number in first.. {
            if self.are_stopped.load(Relaxed) {
                return;
            }
            if let Err(error) = step(number) {
                self.results().unexpected.insert(format!("{error:#}"));
            }
        }
    }

    fn probe_health(&self) -> Result<()> {
        let start = Instant::now();
        ensure!(self.server.is_healthy(), "no health within a second");
        self.results().health.record(start.elapsed());
        sleep(Duration::from_millis(100));
        Ok(())
    }

    fn send_request(&self, step: usize) -> Result<()> {
        let round = step / REQUESTS.len();
        if step.is_multiple_of(DISCONNECT * REQUESTS.len()) {
            let client = send(self.server.address(), "/?cpu_time=5s")?;
            sleep(Duration::from_millis(20));
            drop(client);
            self.results().disconnected += 1;
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
            self.results().digests += 1;
        }
        self.results().answered += 1;
        Ok(())
    }

    /// Prints the results until the period is over, and returns the resources of the server when
    /// warm and at the end.
    fn watch(&self, period: Duration) -> Result<[Usage; 2]> {
        let start = Instant::now();
        let mut warm = None;
        loop {
            sleep(INTERVAL.min(period.saturating_sub(start.elapsed())));
            let usage = self.server.usage()?;
            let elapsed = start.elapsed();
            println!("{:>5} s  {}  {usage}", elapsed.as_secs(), self.results());
            if elapsed >= WARM {
                let warm = *warm.get_or_insert(usage);
                if elapsed >= period {
                    return Ok([warm, usage]);
                }
            }
        }
    }
}

#[derive(Default)]
struct Results {
    answered: usize,
    disconnected: usize,
    /// The digests that were recomputed.
    digests: usize,
    /// Errors and unexpected responses, each once.
    unexpected: BTreeSet<String>,
    health: Latencies,
}

impl Results {
    /// The results that are out of bounds.
    fn evaluate(&self, warm: Usage, end: Usage) -> Vec<String> {
        let mut failures: Vec<_> = self.unexpected.iter().cloned().collect();
        for (what, warm, end) in [
            ("resident memory", warm.resident, end.resident),
            ("threads", warm.threads, end.threads),
            ("descriptors", warm.descriptors, end.descriptors),
        ] {
            let growth = end as f64 / warm as f64 - 1.0;
            println!("{what}: {:+.1} % since it was warm", 100.0 * growth);
            if growth > MAX_GROWTH {
                failures.push(format!("{what} grew from {warm} to {end}"));
            }
        }
        let p99 = self.health.quantile(0.99).unwrap_or(Duration::MAX);
        if p99 > MAX_HEALTH_P99 {
            failures.push(format!("health p99 is {p99:?}"));
        }
        if self.digests == 0 {
            failures.push("no digest was recomputed".into());
        }
        failures
    }
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

//! Requests in a closed loop, as a load generator makes them, and probes of the host's health in an
//! open one, as a kubelet does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout_at},
};

const PROBE_EVERY: Duration = Duration::from_millis(200);
const PROBE_CAP: Duration = Duration::from_secs(30);
/// How long the probes that are under way when the load ends are waited for.
const PROBE_GRACE: Duration = Duration::from_secs(2);

/// One connection, which is kept as long as every answer is in time and opened anew after that.
pub struct Client {
    client: reqwest::Client,
    url: String,
}

impl Client {
    pub fn new(url: String) -> Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, url })
    }

    /// The whole body of an answer with status 200.
    pub async fn get(&self, timeout: Duration) -> Result<Vec<u8>> {
        let answer = self.client.get(&self.url).timeout(timeout).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?.to_vec();
        ensure!(
            status == 200,
            "{} answers {status}: {}",
            self.url,
            String::from_utf8_lossy(&body).trim()
        );
        Ok(body)
    }
}

/// A span of time: a load runs from now to its end, and is counted from its start.
#[derive(Clone, Copy)]
pub struct Window {
    pub start: Instant,
    pub end: Instant,
}

impl Window {
    /// A window of `length` that begins once the load has run for `ramp`.
    pub fn new(ramp: Duration, length: Duration) -> Self {
        let start = Instant::now() + ramp;
        Self {
            start,
            end: start + length,
        }
    }
}

/// When a closed loop ends.
#[derive(Clone)]
pub enum Stop {
    /// After so many requests, counted over all connections.
    After(usize),
    /// At the end of the window; requests under way are answered first.
    Answered(Window),
    /// At the end of the window; requests under way are dropped.
    Dropped(Window),
}

/// A load: each connection asks again as soon as it is answered.
#[derive(Clone)]
pub struct Load {
    pub url: String,
    pub connections: usize,
    /// After this long a connection is closed, and the next request goes out on a new one.
    pub timeout: Duration,
    /// Whether a whole answer is a report of the component in JSON; otherwise any 200 will do.
    pub reports: bool,
}

/// What became of the requests of a load.
pub struct Tally {
    /// Whole answers in time, and what they took in microseconds.
    answers: Histogram<u64>,
    /// Those of them that came within the window.
    in_window: u64,
    pub late: u64,
    /// The CPU time that the answers report, in all.
    pub reported_cpu_ms: f64,
}

impl Tally {
    fn new() -> Self {
        Self {
            answers: histogram(),
            in_window: 0,
            late: 0,
            reported_cpu_ms: 0.0,
        }
    }

    /// Adds what became of the requests of another load.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.answers.add(other.answers)?;
        self.in_window += other.in_window;
        self.late += other.late;
        self.reported_cpu_ms += other.reported_cpu_ms;
        Ok(())
    }

    /// The requests that were answered or timed out.
    pub fn requests(&self) -> u64 {
        self.answers.len() + self.late
    }

    /// Answers per second within the window.
    pub fn rate(&self, window: Window) -> f64 {
        self.in_window as f64 / (window.end - window.start).as_secs_f64()
    }

    /// The time in milliseconds within which this share of the answers came.
    pub fn millis(&self, quantile: f64) -> f64 {
        millis(&self.answers, quantile)
    }
}

impl Load {
    /// Runs the load. A request that is refused, or answered with anything but a whole 200, makes the
    /// measurement worthless and is an error.
    pub async fn run(&self, stop: Stop) -> Result<Tally> {
        let sent = Arc::new(AtomicUsize::new(0));
        let mut loops = JoinSet::new();
        for _ in 0..self.connections {
            let client = Client::new(self.url.clone())?;
            loops.spawn(self.clone().closed_loop(client, stop.clone(), sent.clone()));
        }
        let mut total = Tally::new();
        while let Some(tally) = loops.join_next().await {
            total.add(tally??)?;
        }
        Ok(total)
    }

    async fn closed_loop(
        self,
        client: Client,
        stop: Stop,
        sent: Arc<AtomicUsize>,
    ) -> Result<Tally> {
        let mut tally = Tally::new();
        loop {
            let begun = Instant::now();
            let (ended, cut) = match stop {
                Stop::After(count) => (sent.fetch_add(1, Ordering::Relaxed) >= count, None),
                Stop::Answered(window) => (begun >= window.end, None),
                Stop::Dropped(window) => (begun >= window.end, Some(window.end)),
            };
            if ended {
                return Ok(tally);
            }
            let request = client.get(self.timeout);
            let body = match cut {
                None => request.await,
                Some(end) => match timeout_at(end, request).await {
                    Ok(body) => body,
                    Err(_) => return Ok(tally),
                },
            };
            let reported_cpu_ms = body.and_then(|body| self.reported_cpu_ms(&body));
            match reported_cpu_ms {
                Ok(reported_cpu_ms) => {
                    let now = Instant::now();
                    tally
                        .answers
                        .saturating_record((now - begun).as_micros() as u64);
                    if let Stop::Answered(window) | Stop::Dropped(window) = stop {
                        tally.in_window += u64::from(window.start <= now && now < window.end);
                    }
                    tally.reported_cpu_ms += reported_cpu_ms;
                }
                Err(error) if is_timeout(&error) => tally.late += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn reported_cpu_ms(&self, body: &[u8]) -> Result<f64> {
        if !self.reports {
            return Ok(0.0);
        }
        let Report { cpu_time_ms } =
            serde_json::from_slice(body).context("an answer is no whole report")?;
        Ok(cpu_time_ms)
    }
}

/// What is read of the component's report.
#[derive(Deserialize)]
struct Report {
    cpu_time_ms: f64,
}

fn is_timeout(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<reqwest::Error>()
        .is_some_and(reqwest::Error::is_timeout)
}

/// How the host answered the probes of its health.
pub struct Health {
    latencies: Histogram<u64>,
    pub probes: u64,
    pub unanswered: u64,
}

impl Health {
    /// Adds how other probes were answered.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.latencies.add(other.latencies)?;
        self.probes += other.probes;
        self.unanswered += other.unanswered;
        Ok(())
    }

    /// The 99th percentile in milliseconds; an unanswered probe counts as 30 s.
    pub fn p99(&self) -> f64 {
        millis(&self.latencies, 0.99)
    }
}

/// Probes a health endpoint until `end`, each time on a new connection and without waiting for the
/// probes before.
pub async fn probe(url: String, end: Instant) -> Result<Health> {
    let mut probes = JoinSet::new();
    let mut schedule = interval(PROBE_EVERY);
    loop {
        let due = schedule.tick().await;
        if due >= end {
            break;
        }
        let client = Client::new(url.clone())?;
        probes.spawn(async move {
            let given_up = (due + PROBE_CAP).min(end + PROBE_GRACE);
            let answer = timeout_at(given_up, client.get(PROBE_CAP)).await;
            matches!(answer, Ok(Ok(_))).then(|| due.elapsed())
        });
    }
    let mut health = Health {
        latencies: histogram(),
        probes: 0,
        unanswered: 0,
    };
    while let Some(probe) = probes.join_next().await {
        let latency = probe?;
        health
            .latencies
            .saturating_record(latency.unwrap_or(PROBE_CAP).as_micros() as u64);
        health.probes += 1;
        health.unanswered += u64::from(latency.is_none());
    }
    Ok(health)
}

/// Of microseconds up to ten minutes, exact to four digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 4).expect("the bounds are valid")
}

fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

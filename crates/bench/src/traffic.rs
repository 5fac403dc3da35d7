//! Requests in a closed loop, as a load generator makes them, and probes of the host's health in an
//! open one, as a kubelet does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout_at},
};

use crate::figure::quantile;

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
        Ok(Self {
            client: reqwest::Client::builder().no_proxy().build()?,
            url,
        })
    }

    /// The whole body of an answer with status 200.
    pub async fn get(&self) -> Result<String> {
        let answer = self.client.get(&self.url).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        let (url, text) = (&self.url, body.trim());
        ensure!(status == 200, "{url} answers {status}: {text}");
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
        let end = start + length;
        Self { start, end }
    }
}

/// When a closed loop ends.
#[derive(Clone, Copy)]
pub enum Stop {
    /// After so many requests, counted over all connections.
    After(usize),
    /// At the end of the window; requests under way are answered first.
    Answered(Window),
    /// At the end of the window; requests under way are dropped.
    Dropped(Window),
}

/// A load: each connection asks again as soon as it is answered.
pub struct Load {
    pub url: String,
    pub connections: usize,
    /// After this long a connection is closed, and the next request goes out on a new one.
    pub patience: Duration,
}

/// What became of the requests of a load.
#[derive(Default)]
pub struct Tally {
    /// What the whole answers in time took, in seconds.
    latencies: Vec<f64>,
    /// How many of them came within the window.
    in_window: usize,
    pub late: usize,
    /// The CPU time that the answers report, in all.
    pub reported_cpu_ms: f64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.in_window += other.in_window;
        self.late += other.late;
        self.reported_cpu_ms += other.reported_cpu_ms;
    }

    /// The requests that were answered in time or were late.
    pub fn requests(&self) -> usize {
        self.latencies.len() + self.late
    }

    /// Answers per second within the window.
    pub fn rate(&self, window: Window) -> f64 {
        self.in_window as f64 / (window.end - window.start).as_secs_f64()
    }

    /// The time in seconds within which this share of the answers came.
    pub fn seconds(&self, share: f64) -> f64 {
        quantile(&self.latencies, share)
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
            loops.spawn(closed_loop(client, self.patience, stop, sent.clone()));
        }
        let mut total = Tally::default();
        while let Some(tally) = loops.join_next().await {
            total.add(tally??);
        }
        Ok(total)
    }
}

async fn closed_loop(
    client: Client,
    patience: Duration,
    stop: Stop,
    sent: Arc<AtomicUsize>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let begun = Instant::now();
        let late = begun + patience;
        let (ended, given_up) = match stop {
            Stop::After(count) => (sent.fetch_add(1, Ordering::Relaxed) >= count, late),
            Stop::Answered(window) => (begun >= window.end, late),
            Stop::Dropped(window) => (begun >= window.end, late.min(window.end)),
        };
        if ended {
            return Ok(tally);
        }
        match timeout_at(given_up, client.get()).await {
            Ok(body) => {
                let now = Instant::now();
                tally.reported_cpu_ms += reported_cpu_ms(&body?);
                tally.latencies.push((now - begun).as_secs_f64());
                if let Stop::Answered(window) | Stop::Dropped(window) = stop {
                    tally.in_window += usize::from(window.start <= now && now < window.end);
                }
            }
            Err(_) if given_up == late => tally.late += 1,
            Err(_) => return Ok(tally),
        }
    }
}

/// What an answer of the component says that it used; those of others say nothing.
fn reported_cpu_ms(body: &str) -> f64 {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    answer["cpu_time_ms"].as_f64().unwrap_or_default()
}

/// Probes a health endpoint until `end`, each time on a new connection and without waiting for the
/// probes before. Tells what the answers took, in milliseconds; none counts as 30 s.
pub async fn probe(url: String, end: Instant) -> Result<Vec<f64>> {
    let mut probes = JoinSet::new();
    let mut schedule = interval(PROBE_EVERY);
    loop {
        let due = schedule.tick().await;
        if due >= end {
            return Ok(probes.join_all().await);
        }
        let client = Client::new(url.clone())?;
        probes.spawn(async move {
            let given_up = (due + PROBE_CAP).min(end + PROBE_GRACE);
            let answer = timeout_at(given_up, client.get()).await;
            let answered = matches!(answer, Ok(Ok(_)));
            let took = if answered { due.elapsed() } else { PROBE_CAP };
            1000.0 * took.as_secs_f64()
        });
    }
}

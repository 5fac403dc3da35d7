//! The traffic of clients: requests in a closed loop, as bombardier sends them, and probes of the health endpoint in an
//! open loop, as a kubelet sends them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::Latencies;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout_at},
};

const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// The latency of a probe without a response.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
/// The time after the traffic within which a probe must have its response.
const PROBE_GRACE: Duration = Duration::from_secs(2);
/// The time without a byte after which a client that waits gives up, as nginx does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// One connection, which is kept as long as each response is in time, and opened again after that.
pub struct Client {
    client: reqwest::Client,
    url: String,
}

impl Client {
    pub fn new(url: String) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy();
        let client = client.read_timeout(IDLE_TIMEOUT).build()?;
        Ok(Self { client, url })
    }

    /// The body of a whole response with status 200.
    pub async fn get(&self) -> Result<String> {
        let response = self.client.get(&self.url).send().await?;
        let status = response.status();
        let body = response.text().await?;
        let (url, text) = (&self.url, body.trim());
        ensure!(status == 200, "{url} answers {status}: {text}");
        Ok(body)
    }
}

/// The span of time in which responses are counted.
#[derive(Clone, Copy)]
pub struct Window {
    pub start: Instant,
    pub end: Instant,
}

impl Window {
    /// A window of `length` that begins after the traffic has lasted for `ramp`.
    pub fn new(ramp: Duration, length: Duration) -> Self {
        let start = Instant::now() + ramp;
        let end = start + length;
        Self { start, end }
    }

    fn contains(self, time: Instant) -> bool {
        self.start <= time && time < self.end
    }
}

/// When traffic ends.
#[derive(Clone, Copy)]
pub enum Stop {
    /// After this many requests over all connections.
    After(usize),
    /// At the end of the window; requests under way are answered first.
    Answered(Window),
    /// At the end of the window; requests under way are dropped.
    Dropped(Window),
}

/// The reaction of clients to a response that takes longer than their timeout. It is late either way.
#[derive(Clone, Copy, Debug)]
pub enum Clients {
    /// They disconnect, and send the request again on a new connection, as bombardier does.
    Disconnect,
    /// They wait as long as bytes arrive, as curl, nginx and Python's requests do.
    Wait,
}

/// Clients that each send the next request as soon as they have a response.
pub struct Traffic {
    pub url: String,
    pub connections: usize,
    pub clients: Clients,
    pub timeout: Duration,
}

/// The results of the requests.
#[derive(Default)]
pub struct Tally {
    /// Of the whole responses within the timeout.
    pub latencies: Latencies,
    /// The number of these that came within the window.
    in_window: usize,
    /// The number of requests without a whole response within the timeout.
    pub late: usize,
    /// The CPU time that the responses report, in all.
    pub reported_cpu_ms: f64,
}

impl Tally {
    /// The requests that were answered in time or were late.
    pub fn requests(&self) -> usize {
        self.latencies.count() as usize + self.late
    }

    /// Responses in time per second, within the window.
    pub fn rate(&self, window: Window) -> f64 {
        self.in_window as f64 / (window.end - window.start).as_secs_f64()
    }

    /// The latency in seconds that this share of the responses in time does not exceed; NaN without any.
    pub fn seconds(&self, quantile: f64) -> f64 {
        let latency = self.latencies.quantile(quantile);
        latency.map_or(f64::NAN, |it| it.as_secs_f64())
    }
}

impl Traffic {
    /// Sends the requests.
    ///
    /// # Errors
    /// Where a request is refused, or answered with anything but a whole 200: that makes a measurement worthless.
    pub async fn run(&self, stop: Stop) -> Result<Tally> {
        let sent = Arc::new(AtomicUsize::new(0));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut loops = JoinSet::new();
        for _ in 0..self.connections {
            let client = Client::new(self.url.clone())?;
            let (sent, tally) = (sent.clone(), tally.clone());
            let (clients, timeout) = (self.clients, self.timeout);
            loops.spawn(closed_loop(client, clients, timeout, stop, sent, tally));
        }
        while let Some(ended) = loops.join_next().await {
            ended??;
        }
        let tally = Arc::into_inner(tally).and_then(|tally| tally.into_inner().ok());
        tally.context("a client still runs")
    }
}

async fn closed_loop(
    client: Client,
    clients: Clients,
    timeout: Duration,
    stop: Stop,
    sent: Arc<AtomicUsize>,
    tally: Arc<Mutex<Tally>>,
) -> Result<()> {
    let far = Instant::now() + Duration::from_secs(24 * 3600);
    loop {
        let begun = Instant::now();
        let (ended, end, window) = match stop {
            Stop::After(count) => (sent.fetch_add(1, Ordering::Relaxed) >= count, far, None),
            Stop::Answered(window) => (begun >= window.end, far, Some(window)),
            Stop::Dropped(window) => (begun >= window.end, window.end, Some(window)),
        };
        if ended {
            return Ok(());
        }
        let late = begun + timeout;
        let give_up = match clients {
            Clients::Disconnect => late.min(end),
            Clients::Wait => end,
        };
        let response = timeout_at(give_up, client.get()).await;
        let now = Instant::now();
        let mut tally = tally.lock().expect("no client panics");
        if now >= late {
            tally.late += 1;
        }
        if let Ok(body) = response {
            tally.reported_cpu_ms += reported_cpu_ms(&body?);
            if now < late {
                tally.latencies.record(now - begun);
                tally.in_window += usize::from(window.is_some_and(|it| it.contains(now)));
            }
        }
    }
}

/// The CPU time that a response of the component reports; 0 for those of others.
fn reported_cpu_ms(body: &str) -> f64 {
    let report: Value = serde_json::from_str(body).unwrap_or_default();
    report["cpu_time_ms"].as_f64().unwrap_or_default()
}

/// Probes `url` until `end`, each time on a new connection and without waiting for the probes before.
pub async fn probe(url: String, end: Instant) -> Result<Latencies> {
    let mut probes = JoinSet::new();
    let mut schedule = interval(PROBE_INTERVAL);
    loop {
        let due = schedule.tick().await;
        if due >= end {
            break;
        }
        let client = Client::new(url.clone())?;
        probes.spawn(async move {
            let give_up = (due + PROBE_TIMEOUT).min(end + PROBE_GRACE);
            let response = timeout_at(give_up, client.get()).await;
            let answered = matches!(response, Ok(Ok(_)));
            if answered {
                due.elapsed()
            } else {
                PROBE_TIMEOUT
            }
        });
    }
    let mut latencies = Latencies::default();
    for latency in probes.join_all().await {
        latencies.record(latency);
    }
    Ok(latencies)
}

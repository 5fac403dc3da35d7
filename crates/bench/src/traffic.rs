//! The traffic of clients: requests in a closed loop, as bombardier sends them, and probes of the
//! health endpoint in an open loop, as a kubelet sends them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::Latencies;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout, timeout_at},
};

const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// The latency of a probe without a response.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
/// The time after the traffic within which a probe must have its response.
const PROBE_GRACE: Duration = Duration::from_secs(2);
/// The time without a byte after which a client that waits gives up, as nginx does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The time in which responses are counted.
#[derive(Clone, Copy)]
pub struct Period {
    pub start: Instant,
    pub end: Instant,
}

impl Period {
    /// A period of `length` that begins after the traffic has lasted for `ramp`.
    pub fn new(ramp: Duration, length: Duration) -> Self {
        let start = Instant::now() + ramp;
        let end = start + length;
        Self { start, end }
    }

    fn contains(self, time: Instant) -> bool {
        self.start <= time && time < self.end
    }
}

/// When traffic ends. Requests under way still get their responses.
#[derive(Clone, Copy)]
pub enum Stop {
    /// After this many requests over all connections.
    After(usize),
    /// At the end of the period.
    AtEnd(Period),
}

/// What a client does if a response takes longer than the timeout. The request is late either way.
#[derive(Clone, Copy, Debug)]
pub enum OnTimeout {
    /// It disconnects, and sends the request again on a new connection, as bombardier does.
    Disconnect,
    /// It waits as long as bytes arrive, as curl, nginx and Python's requests do.
    Wait,
}

/// Clients that each send the next request as soon as they have a response.
#[derive(Clone)]
pub struct Traffic {
    pub url: String,
    pub connections: usize,
    pub timeout: Duration,
    pub on_timeout: OnTimeout,
}

/// The results of the requests.
#[derive(Default)]
pub struct Tally {
    sent: usize,
    /// Of all requests; that of a client that disconnects is the timeout.
    pub latencies: Latencies,
    /// The number of responses in time within the period.
    in_period: usize,
    /// The number of requests without a whole response within the timeout.
    pub late: usize,
    /// The CPU time that the responses report, in all.
    pub reported_cpu_ms: f64,
}

impl Tally {
    pub fn requests(&self) -> usize {
        self.latencies.count() as usize
    }

    /// Responses in time per second, within the period.
    pub fn rate(&self, period: Period) -> f64 {
        self.in_period as f64 / (period.end - period.start).as_secs_f64()
    }

    /// The latency in seconds that this share of the requests does not exceed; NaN without any.
    pub fn seconds(&self, quantile: f64) -> f64 {
        let latency = self.latencies.quantile(quantile);
        latency.map_or(f64::NAN, |it| it.as_secs_f64())
    }

    /// Counts another request, unless the traffic is over.
    fn may_send(&mut self, stop: Stop) -> bool {
        self.sent += 1;
        match stop {
            Stop::After(count) => self.sent <= count,
            Stop::AtEnd(period) => Instant::now() < period.end,
        }
    }
}

impl Traffic {
    /// Sends the requests.
    ///
    /// # Errors
    /// If a request fails, or its response is not a whole 200: that makes a measurement worthless.
    pub async fn run(&self, stop: Stop) -> Result<Tally> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut loops = JoinSet::new();
        for _ in 0..self.connections {
            loops.spawn(closed_loop(self.clone(), stop, tally.clone()));
        }
        while let Some(ended) = loops.join_next().await {
            ended??;
        }
        let tally = Arc::into_inner(tally).and_then(|tally| tally.into_inner().ok());
        tally.context("a client still runs")
    }
}

/// A connection, which is kept as long as each response is in time, and opened again after that.
async fn closed_loop(traffic: Traffic, stop: Stop, tally: Arc<Mutex<Tally>>) -> Result<()> {
    let locked = || tally.lock().expect("no client panics");
    let client = reqwest::Client::builder().no_proxy();
    let client = client.read_timeout(IDLE_TIMEOUT).build()?;
    let response = || whole_response(&client, &traffic.url);
    while locked().may_send(stop) {
        let start = Instant::now();
        let response = match traffic.on_timeout {
            OnTimeout::Disconnect => timeout(traffic.timeout, response()).await.ok(),
            OnTimeout::Wait => Some(response().await),
        };
        let (now, body) = (Instant::now(), response.transpose()?);
        let mut tally = locked();
        tally.latencies.record(now - start);
        tally.reported_cpu_ms += body.as_deref().map_or(0.0, reported_cpu_ms);
        if body.is_none() || now - start >= traffic.timeout {
            tally.late += 1;
        } else if let Stop::AtEnd(period) = stop {
            tally.in_period += usize::from(period.contains(now));
        }
    }
    Ok(())
}

/// The body of a whole response with status 200.
async fn whole_response(client: &reqwest::Client, url: &str) -> Result<String> {
    let response = client.get(url).send().await?;
    let status = response.status();
    let body = response.text().await?;
    ensure!(
        status == 200,
        "{url} responds with {status}: {}",
        body.trim()
    );
    Ok(body)
}

/// The CPU time that a response of the component reports; 0 for those of others.
fn reported_cpu_ms(body: &str) -> f64 {
    let report: Value = serde_json::from_str(body).unwrap_or_default();
    report["cpu_time_ms"].as_f64().unwrap_or_default()
}

/// Probes the health endpoint at `url` until `end`, each time on a new connection and without
/// waiting for the probes before. Any response below 500 counts, since not every peer has a health
/// endpoint.
pub async fn probe_health(url: String, end: Instant) -> Result<Latencies> {
    let client = reqwest::Client::builder().no_proxy();
    let client = client.pool_max_idle_per_host(0).build()?;
    let mut probes = JoinSet::new();
    let mut schedule = interval(PROBE_INTERVAL);
    loop {
        let due = schedule.tick().await;
        if due >= end {
            break;
        }
        let request = client.get(&url);
        probes.spawn(async move {
            let give_up = (due + PROBE_TIMEOUT).min(end + PROBE_GRACE);
            let response = timeout_at(give_up, request.send()).await;
            match response {
                Ok(Ok(response)) if !response.status().is_server_error() => due.elapsed(),
                _ => PROBE_TIMEOUT,
            }
        });
    }
    let mut latencies = Latencies::default();
    for latency in probes.join_all().await {
        latencies.record(latency);
    }
    Ok(latencies)
}

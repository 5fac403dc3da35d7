//! The traffic of clients: requests in a closed loop, as bombardier sends them, and probes of the
//! health endpoint in an open loop, as a kubelet sends them.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::{
    runtime::Builder,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout, timeout_at},
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

/// What a client does. A request is late if its response takes longer than the timeout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// It disconnects after the timeout, and sends the request again on a new connection, as
    /// bombardier does.
    Disconnects,
    /// It waits as long as bytes arrive, as curl, nginx and Python's requests do.
    Waits,
    /// The same, with a POST a second after the response before.
    PostsEachSecond,
}

/// Clients that each send the next request as soon as they have a response.
#[derive(Clone)]
pub struct Traffic {
    pub url: String,
    pub connections: usize,
    pub timeout: Duration,
    pub behaviour: Behaviour,
}

/// The results of the requests.
#[derive(Default)]
pub struct Tally {
    sent: usize,
    /// In seconds, of all requests; that of a client that disconnects is the timeout.
    pub latencies: Vec<f64>,
    /// The number of responses in time within the period.
    in_period: usize,
    /// The number of requests without a whole response within the timeout.
    pub late: usize,
    /// What the responses of the component report, in all.
    pub reported_cpu_ms: f64,
    pub reported_iterations: f64,
}

impl Tally {
    /// Responses in time per second, within the period.
    pub fn rate(&self, period: Period) -> f64 {
        self.in_period as f64 / (period.end - period.start).as_secs_f64()
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
        let client = |_| closed_loop(self.clone(), stop, tally.clone());
        let mut loops: JoinSet<_> = (0..self.connections).map(client).collect();
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
    let client = client()?;
    let get = || response(client.get(&traffic.url), 200);
    while locked().may_send(stop) {
        let start = Instant::now();
        let response = match traffic.behaviour {
            Behaviour::Disconnects => timeout(traffic.timeout, get()).await.ok(),
            Behaviour::Waits => Some(get().await),
            Behaviour::PostsEachSecond => {
                sleep(Duration::from_secs(1)).await;
                Some(response(client.post(&traffic.url), 200).await)
            }
        };
        let (now, body) = (Instant::now(), response.transpose()?);
        let report = body.as_deref().map(serde_json::from_str);
        // Those of other servers are not JSON.
        let report: Value = report.and_then(Result::ok).unwrap_or_default();
        let reported = |name: &str| report[name].as_f64().unwrap_or_default();
        let mut tally = locked();
        tally.latencies.push((now - start).as_secs_f64());
        tally.reported_cpu_ms += reported("cpu_time_ms");
        tally.reported_iterations += reported("iterations");
        if body.is_none() || now - start >= traffic.timeout {
            tally.late += 1;
        } else if let Stop::AtEnd(period) = stop {
            tally.in_period += usize::from(period.contains(now));
        }
    }
    Ok(())
}

/// A client with connections of its own.
pub fn client() -> reqwest::Result<reqwest::Client> {
    let client = reqwest::Client::builder().no_proxy();
    client.read_timeout(IDLE_TIMEOUT).build()
}

/// The body of a whole response, which must have this status.
pub async fn response(request: RequestBuilder, expected: u16) -> Result<String> {
    let response = request.send().await?;
    let (url, status) = (response.url().clone(), response.status());
    let body = response.text().await?;
    ensure!(
        status == expected,
        "{url} responds with {status}: {}",
        body.trim()
    );
    Ok(body)
}

/// Probes the health endpoint at `url` until `end`, each time on a new connection and without
/// waiting for the probes before, and returns the latencies in seconds. Any response below 500
/// counts, since not every peer has a health endpoint. A thread of its own does that, since clients
/// keep this one busy.
pub async fn probe_health(url: String, end: Instant) -> Result<Vec<f64>> {
    let (sender, latencies) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || sender.send(runtime.block_on(probe_until(url, end))));
    latencies.await?
}

async fn probe_until(url: String, end: Instant) -> Result<Vec<f64>> {
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
            let latency = match response {
                Ok(Ok(response)) if !response.status().is_server_error() => due.elapsed(),
                _ => PROBE_TIMEOUT,
            };
            latency.as_secs_f64()
        });
    }
    Ok(probes.join_all().await)
}

//! What the rows are measured by. CPU is always what the kernel accounts to the server.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Result, ensure};
use tokio::{
    time::{Instant, interval, sleep_until},
    try_join,
};

use crate::{
    load::{self, Health, Load, Stop, Tally, Window},
    server::{LIMIT, Server, Share},
    testbed::Testbed,
};

/// What the clients of a crowd wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What clients wait whose requests are all to be answered.
pub const ENDLESS: Duration = Duration::from_secs(60);

/// Starts the component and lets its first requests go by.
pub async fn component(testbed: &Testbed, share: Share) -> Result<Server> {
    let server = testbed.component(share).await?;
    load(&server, "?iterations=0", 8)
        .run(Stop::After(100))
        .await?;
    load(&server, "?cpu_time=20ms", 2)
        .run(Stop::After(20))
        .await?;
    Ok(server)
}

/// A load whose every request is to be answered.
pub fn load(server: &Server, target: &str, connections: usize) -> Load {
    Load {
        url: server.url(target),
        connections,
        patience: ENDLESS,
    }
}

/// A load of clients that do not wait for long.
pub fn crowd(server: &Server, target: &str, connections: usize) -> Load {
    Load {
        patience: PATIENCE,
        ..load(server, target, connections)
    }
}

/// What a request costs, in milliseconds, and what it reports.
pub struct Cost {
    pub cpu_ms: f64,
    pub reported_ms: f64,
}

pub async fn cost(
    server: &Server,
    query: &str,
    connections: usize,
    requests: usize,
) -> Result<Cost> {
    let before = server.used()?;
    let load = load(server, query, connections);
    let tally = load.run(Stop::After(requests)).await?;
    let used = server.used()? - before;
    let late = tally.late;
    ensure!(
        late == 0,
        "{late} of {requests} requests of {query} were not answered"
    );
    let requests = requests as f64;
    Ok(Cost {
        cpu_ms: 1000.0 * used.as_secs_f64() / requests,
        reported_ms: tally.reported_cpu_ms / requests,
    })
}

/// What a load did: to its requests, to the CPU of the server, and to its health endpoint.
pub struct Effect {
    pub tally: Tally,
    pub health: Health,
    pub cores: f64,
    /// Whole answers in time, per second.
    pub rate: f64,
}

impl Effect {
    /// Whole answers in time that asked for so much CPU each, as a share of what the limit allows.
    pub fn answered(&self, cpu_time_ms: f64) -> f64 {
        self.rate * cpu_time_ms / 1000.0 / LIMIT
    }

    pub fn late(&self) -> f64 {
        self.tally.late as f64
    }

    /// The time in seconds within which this share of the answers came.
    pub fn seconds(&self, share: f64) -> f64 {
        self.tally.millis(share) / 1000.0
    }
}

/// Runs a load for `ramp` and then a window of `length` seconds, and probes the server meanwhile.
pub async fn effect(
    server: &Server,
    load: &Load,
    [ramp, length]: [u64; 2],
    stop: fn(Window) -> Stop,
) -> Result<Effect> {
    let window = Window::new(Duration::from_secs(ramp), Duration::from_secs(length));
    let probes = load::probe(server.health(), window.end);
    let (tally, cores, health) = try_join!(load.run(stop(window)), cores(server, window), probes)?;
    let rate = tally.rate(window);
    Ok(Effect {
        tally,
        health,
        cores,
        rate,
    })
}

/// The cores that a server uses within a window.
pub async fn cores(server: &Server, window: Window) -> Result<f64> {
    sleep_until(window.start).await;
    let (start, before) = (Instant::now(), server.used()?);
    sleep_until(window.end).await;
    let used = server.used()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// The cores that a server uses by itself.
pub async fn idle(server: &Server, seconds: u64) -> Result<f64> {
    cores(
        server,
        Window::new(Duration::ZERO, Duration::from_secs(seconds)),
    )
    .await
}

/// When a server ceased to use CPU: it used under 2 % of a core over the 200 ms from then.
pub async fn until_idle(server: &Server) -> Result<Instant> {
    const SAMPLE: Duration = Duration::from_millis(50);
    const SAMPLES: usize = 4;
    const IDLE: f64 = 0.02;
    const CAP: Duration = Duration::from_secs(20);
    let started = Instant::now();
    let mut schedule = interval(SAMPLE);
    let mut samples = VecDeque::new();
    while started.elapsed() < CAP {
        schedule.tick().await;
        let (now, used) = (Instant::now(), server.used()?);
        samples.push_back((now, used));
        if samples.len() > SAMPLES
            && let Some((from, before)) = samples.pop_front()
            && (used - before).as_secs_f64() < IDLE * (now - from).as_secs_f64()
        {
            return Ok(from);
        }
    }
    Ok(started + CAP)
}

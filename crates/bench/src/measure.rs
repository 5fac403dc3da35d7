//! What the rows are measured by. CPU is always what the kernel accounts to the server.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Result, ensure};
use testkit::Server;
use tokio::{
    time::{Instant, interval, sleep_until},
    try_join,
};

use crate::{
    figure::{Figure, quantile},
    load::{self, Load, Stop, Tally, Window},
    testbed::{LIMIT, Share, Testbed},
};

/// What the clients of a crowd wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What clients wait whose requests are all to be answered.
pub const ENDLESS: Duration = Duration::from_secs(60);

/// Starts the component and lets its first requests go by.
pub async fn component(testbed: &Testbed, share: Share) -> Result<Server> {
    let server = testbed.component(share)?;
    cost(&server, "?iterations=0", 8, 100).await?;
    cost(&server, "?cpu_time=20ms", 2, 20).await?;
    Ok(server)
}

/// A load whose every request is to be answered.
pub fn load(server: &Server, target: &str, connections: usize) -> Load {
    Load {
        url: server.url(&format!("/{target}")),
        connections,
        patience: ENDLESS,
    }
}

/// What a request costs, in milliseconds, and what it reports.
pub struct Cost {
    pub cpu_ms: f64,
    pub reported_ms: f64,
}

pub async fn cost(server: &Server, query: &str, connections: usize, count: usize) -> Result<Cost> {
    let before = server.cpu_time()?;
    let load = load(server, query, connections);
    let tally = load.run(Stop::After(count)).await?;
    let used = server.cpu_time()? - before;
    let late = tally.late;
    ensure!(
        late == 0,
        "{late} of {count} requests of {query} were not answered"
    );
    Ok(Cost {
        cpu_ms: 1000.0 * used.as_secs_f64() / count as f64,
        reported_ms: tally.reported_cpu_ms / count as f64,
    })
}

/// What a crowd did: to its requests, to the CPU of the server, and to its health endpoint.
pub struct Crowd {
    pub tally: Tally,
    /// What its answers took, in milliseconds.
    pub health: Vec<f64>,
    cores: f64,
    /// Whole answers in time, per second.
    rate: f64,
    /// The seconds from the end of the window until the server was idle.
    pub until_idle: f64,
}

impl Crowd {
    /// Whole answers in time that asked for so much CPU each, as a share of what the limit allows.
    pub fn answered(&self, cpu_time_ms: u32) -> Figure {
        Figure::Plain(self.rate * f64::from(cpu_time_ms) / 1000.0 / LIMIT)
    }

    /// The CPU that was used, as a share of the limit.
    pub fn used(&self) -> Figure {
        Figure::Plain(self.cores / LIMIT)
    }

    pub fn late(&self) -> Figure {
        Figure::Count(self.tally.late)
    }

    pub fn latency(&self, share: f64) -> Figure {
        Figure::Seconds(self.tally.seconds(share))
    }

    pub fn health(&self) -> Figure {
        Figure::Milliseconds(quantile(&self.health, 0.99))
    }
}

/// Clients that do not wait for long, for some seconds of ramp and then of a window; the server is
/// probed meanwhile.
pub async fn crowd(
    server: &Server,
    target: &str,
    connections: usize,
    [ramp, length]: [u64; 2],
    stop: fn(Window) -> Stop,
) -> Result<Crowd> {
    let mut load = load(server, target, connections);
    load.patience = PATIENCE;
    let window = Window::new(Duration::from_secs(ramp), Duration::from_secs(length));
    let (tally, health, cores, idle) = try_join!(
        load.run(stop(window)),
        load::probe(server.health_url(), window.end),
        cores(server, window),
        until_idle(server, window.end),
    )?;
    Ok(Crowd {
        rate: tally.rate(window),
        tally,
        health,
        cores,
        until_idle: (idle - window.end).as_secs_f64(),
    })
}

/// The cores that a server uses within a window.
pub async fn cores(server: &Server, window: Window) -> Result<f64> {
    sleep_until(window.start).await;
    let (start, before) = (Instant::now(), server.cpu_time()?);
    sleep_until(window.end).await;
    let used = server.cpu_time()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// The cores that a server uses by itself.
pub async fn idle(server: &Server, seconds: u64) -> Result<f64> {
    let window = Window::new(Duration::ZERO, Duration::from_secs(seconds));
    cores(server, window).await
}

/// When a server ceased to use CPU, from `start` on: it used under 2 % of a core over the 200 ms from
/// then.
pub async fn until_idle(server: &Server, start: Instant) -> Result<Instant> {
    const SAMPLE: Duration = Duration::from_millis(50);
    const SAMPLES: usize = 4;
    const IDLE: f64 = 0.02;
    const CAP: Duration = Duration::from_secs(20);
    sleep_until(start).await;
    let mut schedule = interval(SAMPLE);
    let mut samples = VecDeque::new();
    while start.elapsed() < CAP {
        schedule.tick().await;
        let (now, used) = (Instant::now(), server.cpu_time()?);
        samples.push_back((now, used));
        if samples.len() > SAMPLES
            && let Some((from, before)) = samples.pop_front()
            && (used - before).as_secs_f64() < IDLE * (now - from).as_secs_f64()
        {
            return Ok(from);
        }
    }
    Ok(start + CAP)
}

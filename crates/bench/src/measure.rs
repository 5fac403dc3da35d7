//! The measurements of the cases. CPU is always the time that the kernel accounts to the server.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Result, ensure};
use testkit::{Latencies, Server};
use tokio::{
    time::{Instant, interval, sleep_until},
    try_join,
};

use crate::{
    testbed::{Share, Testbed},
    traffic::{Clients, Stop, Tally, Traffic, Window, probe},
    value::Value,
};

/// The timeout of the clients of a crowd: bombardier's in the tutorial.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of clients that need every response.
pub const LONG_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts the component and sends its first requests, which cost more than others.
pub async fn component(testbed: &Testbed, share: Share) -> Result<Server> {
    let server = testbed.component(share)?;
    cost(&server, "/?iterations=0", 8, 100).await?;
    cost(&server, "/?cpu_time=20ms", 2, 20).await?;
    Ok(server)
}

/// Traffic whose every request needs a response.
pub fn traffic(server: &Server, target: &str, connections: usize) -> Traffic {
    Traffic {
        url: server.url(target),
        connections,
        clients: Clients::Disconnect,
        timeout: LONG_TIMEOUT,
    }
}

/// The CPU time of a request in milliseconds: used, and reported.
pub struct Cost {
    pub cpu_ms: f64,
    pub reported_ms: f64,
}

pub async fn cost(server: &Server, target: &str, connections: usize, count: usize) -> Result<Cost> {
    let before = server.cpu_time()?;
    let traffic = traffic(server, target, connections);
    let tally = traffic.run(Stop::After(count)).await?;
    let used = server.cpu_time()? - before;
    let late = tally.late;
    ensure!(
        late == 0,
        "{late} of {count} requests of {target} were not answered"
    );
    Ok(Cost {
        cpu_ms: 1000.0 * used.as_secs_f64() / count as f64,
        reported_ms: tally.reported_cpu_ms / count as f64,
    })
}

/// Clients that send the same request at once, while the server's health is probed.
#[derive(Clone, Copy)]
pub struct Crowd<'a> {
    /// The path with its query.
    pub target: &'a str,
    pub connections: usize,
    pub clients: Clients,
    /// The seconds before the window.
    pub ramp: u64,
    /// The seconds of the window.
    pub length: u64,
    pub stop: fn(Window) -> Stop,
}

/// The results of a crowd.
pub struct Outcome {
    pub tally: Tally,
    pub health: Latencies,
    /// Responses in time per second.
    pub rate: f64,
    /// The cores that the server used.
    pub cores: f64,
    /// The seconds from the end of the window until the server was idle.
    pub until_idle: f64,
}

impl Crowd<'_> {
    pub async fn run(&self, server: &Server) -> Result<Outcome> {
        let traffic = Traffic {
            url: server.url(self.target),
            connections: self.connections,
            clients: self.clients,
            timeout: TIMEOUT,
        };
        let [ramp, length] = [self.ramp, self.length].map(Duration::from_secs);
        let window = Window::new(ramp, length);
        let (tally, health, cores, idle) = try_join!(
            traffic.run((self.stop)(window)),
            probe(server.health_url(), window.end),
            cores(server, window),
            until_idle(server, window.end),
        )?;
        Ok(Outcome {
            rate: tally.rate(window),
            tally,
            health,
            cores,
            until_idle: (idle - window.end).as_secs_f64(),
        })
    }
}

impl Outcome {
    /// The CPU time of the responses in time, as a share of the CPU that the server may use.
    pub fn answered(&self, cpu_time_ms: u32, share: Share) -> Value {
        Value::Plain(self.rate * f64::from(cpu_time_ms) / 1000.0 / share.cpu())
    }

    /// The CPU that was used, as a share of the CPU that the server may use.
    pub fn used(&self, share: Share) -> Value {
        Value::Plain(self.cores / share.cpu())
    }

    pub fn late(&self) -> Value {
        Value::Count(self.tally.late)
    }

    pub fn latency(&self, quantile: f64) -> Value {
        Value::Seconds(self.tally.seconds(quantile))
    }

    pub fn health_p99(&self) -> Value {
        let p99 = self.health.quantile(0.99);
        Value::Milliseconds(p99.map_or(f64::NAN, |it| 1000.0 * it.as_secs_f64()))
    }

    /// The share of probes that a kubelet would count as failed: by default it waits for a second.
    pub fn failed_probes(&self) -> Value {
        Value::Plain(self.health.share_above(Duration::from_secs(1)))
    }
}

/// The cores that a server uses within a window.
pub async fn cores(server: &Server, window: Window) -> Result<f64> {
    sleep_until(window.start).await;
    let (start, before) = (Instant::now(), server.cpu_time()?);
    sleep_until(window.end).await;
    let used = server.cpu_time()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// The cores that a server uses without requests.
pub async fn idle_cores(server: &Server, seconds: u64) -> Result<f64> {
    let window = Window::new(Duration::ZERO, Duration::from_secs(seconds));
    cores(server, window).await
}

/// The time, from `start` on, at which a server became idle: it used under 2 % of a core in the 200 ms from then.
pub async fn until_idle(server: &Server, start: Instant) -> Result<Instant> {
    const SAMPLE: Duration = Duration::from_millis(50);
    const SAMPLES: usize = 4;
    const IDLE: f64 = 0.02;
    const TIMEOUT: Duration = Duration::from_secs(20);
    sleep_until(start).await;
    let mut schedule = interval(SAMPLE);
    let mut samples = VecDeque::new();
    while start.elapsed() < TIMEOUT {
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
    Ok(start + TIMEOUT)
}

//! The measurements of the cases. CPU is always the time that the kernel accounts to the server.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Result, bail, ensure};
use testkit::Server;
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::{
    testbed::{Share, Testbed},
    traffic::{OnTimeout, Period, Stop, Traffic},
};

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
        timeout: LONG_TIMEOUT,
        on_timeout: OnTimeout::Disconnect,
    }
}

/// The CPU time of a request in milliseconds: used, and reported.
pub struct Cost {
    pub cpu_ms: f64,
    pub reported_ms: f64,
}

/// The mean cost of `count` requests.
pub async fn cost(server: &Server, target: &str, connections: usize, count: usize) -> Result<Cost> {
    let before = server.cpu_time()?;
    let traffic = traffic(server, target, connections);
    let tally = traffic.run(Stop::After(count)).await?;
    let used = server.cpu_time()? - before;
    let late = tally.late;
    ensure!(
        late == 0,
        "{late} of {count} requests of {target} got no response"
    );
    Ok(Cost {
        cpu_ms: 1000.0 * used.as_secs_f64() / count as f64,
        reported_ms: tally.reported_cpu_ms / count as f64,
    })
}

/// The cores that a server uses within a period.
pub async fn cores(server: &Server, period: Period) -> Result<f64> {
    sleep_until(period.start).await;
    let (start, before) = (Instant::now(), server.cpu_time()?);
    sleep_until(period.end).await;
    let used = server.cpu_time()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// The cores that a server uses without requests.
pub async fn idle_cores(server: &Server, seconds: u64) -> Result<f64> {
    let period = Period::new(Duration::ZERO, Duration::from_secs(seconds));
    cores(server, period).await
}

/// What a server does after its clients disconnected.
pub struct Aftermath {
    /// The CPU time that it used, less that of an idle server.
    pub cpu_ms: f64,
    /// The time until it was idle.
    pub seconds: f64,
}

/// The aftermath of clients that disconnect two seconds after their requests, which take longer
/// than that.
pub async fn disconnect(server: &Server, target: &str, connections: usize) -> Result<Aftermath> {
    let idle = idle_cores(server, 2).await?;
    let traffic = traffic(server, target, connections);
    let requests = traffic.run(Stop::After(usize::MAX));
    if let Ok(ended) = timeout(Duration::from_secs(2), requests).await {
        bail!("{target} ended early: {:?}", ended.err());
    }
    let (start, before) = (Instant::now(), server.cpu_time()?);
    let end = until_idle(server, start).await?;
    let used = (server.cpu_time()? - before).as_secs_f64();
    Ok(Aftermath {
        cpu_ms: 1000.0 * (used - idle * start.elapsed().as_secs_f64()),
        seconds: (end - start).as_secs_f64(),
    })
}

/// The time, from `start` on, at which a server became idle: it used under 2 % of a core in the 200
/// ms from then.
async fn until_idle(server: &Server, start: Instant) -> Result<Instant> {
    const SAMPLE: Duration = Duration::from_millis(50);
    const SAMPLES: usize = 4;
    const IDLE: f64 = 0.02;
    const TIMEOUT: Duration = Duration::from_secs(20);
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

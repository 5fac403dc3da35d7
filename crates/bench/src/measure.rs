//! The measurements of the cases. CPU is always the time that the kernel accounts to the server.

use std::time::Duration;

use ::bombardier::{INSTALL, Report, command};
use anyhow::{Context, Result, bail, ensure};
use testkit::Server;
use tokio::{
    process::Command,
    time::{Instant, interval, sleep_until, timeout},
};

use crate::{
    crowds::TIMEOUT,
    testbed::{Share, Testbed},
    traffic::{Behaviour, Period, Stop, Traffic},
};

/// The timeout of clients that need every response.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts the component and sends its first requests, which cost more than others.
pub async fn component(testbed: &Testbed, share: Share) -> Result<Server> {
    let server = testbed.serve(&testbed.component, share)?;
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
        behaviour: Behaviour::Disconnects,
    }
}

/// What a request costs: its CPU time in milliseconds, used and reported, and the iterations that
/// it reports.
pub struct Cost {
    pub cpu_ms: f64,
    pub reported_ms: f64,
    pub iterations: f64,
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
    let count = count as f64;
    Ok(Cost {
        cpu_ms: 1000.0 * used.as_secs_f64() / count,
        reported_ms: tally.reported_cpu_ms / count,
        iterations: tally.reported_iterations / count,
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

/// Sends requests as the tutorial does, over this many connections for whole seconds.
pub async fn bombardier(url: &str, connections: u32, duration: Duration) -> Result<Report> {
    let command = command(connections, TIMEOUT, duration, url);
    let mut program = Command::new(&command[0]);
    let output = program.args(&command[1..]).kill_on_drop(true).output();
    let output = output.await;
    let output = output.with_context(|| format!("cannot run bombardier ({INSTALL})"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bombardier: {}", error.trim());
    let report = Report::parse(&String::from_utf8_lossy(&output.stdout));
    report.context("bombardier printed no result")
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
    const WINDOW: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(20);
    let mut schedule = interval(WINDOW / 4);
    let (mut idle, mut before) = (start, server.cpu_time()?);
    while start.elapsed() < LONGEST {
        schedule.tick().await;
        let (now, used) = (Instant::now(), server.cpu_time()?);
        if used - before >= WINDOW / 50 {
            (idle, before) = (now, used);
        } else if now - idle >= WINDOW {
            return Ok(idle);
        }
    }
    Ok(start + LONGEST)
}

//! Faults, each with a server of its own.

use std::{io::Read, net::TcpStream, time::Duration};

use anyhow::{Context, Result, ensure};
use testkit::{Launch, Runner, manifest};
use tokio::{
    time::{Instant, sleep},
    try_join,
};

use super::{figures, start};
use crate::{
    crowds::health_figures,
    measure::{disconnect, traffic},
    report::{Figure, Report},
    traffic::{Stop, probe_health},
    value::{Value, count, largest, milliseconds, seconds},
};

const SECOND: Duration = Duration::from_secs(1);

pub async fn measure(runner: &Runner, report: &mut Report) {
    let mut add = |fault: &'static str, measured: Result<Vec<Figure>>| {
        let added = measured.map(|figures| report.add(fault, &figures));
        report.check(added.context(fault));
    };
    add("2000 idle connections", idle_connections(runner).await);
    add("256 descriptors, all in use", no_descriptors(runner).await);
    add("200 of the largest requests", largest_at_once(runner).await);
    add("SIGTERM in mid-burn", terminated(runner).await);
}

/// The time until `is_done`. There is none if that takes longer than the 30 s that Kubernetes gives
/// a container to end.
async fn time_until(mut is_done: impl FnMut() -> bool) -> Value {
    let start = Instant::now();
    while start.elapsed() < 30 * SECOND {
        if is_done() {
            return seconds(start.elapsed().as_secs_f64());
        }
        sleep(SECOND / 200).await;
    }
    seconds(f64::NAN)
}

async fn idle_connections(runner: &Runner) -> Result<Vec<Figure>> {
    let server = start(runner)?;
    let traffic = traffic(&server, "/?iterations=1000", 1);
    let slowest = async || {
        let tally = traffic.run(Stop::After(50)).await?;
        anyhow::Ok(milliseconds(1000.0 * largest(tally.latencies)))
    };
    let alone = slowest().await?;
    let connect = |_| TcpStream::connect(server.address());
    let _idle: Vec<_> = (0..2000).map(connect).collect::<Result<_, _>>()?;
    let beside = slowest().await?.at_most(1000.0);
    let mut seen = vec![("slowest request", beside), ("without them", alone)];
    seen.extend(figures(server.usage()?));
    Ok(seen)
}

async fn no_descriptors(runner: &Runner) -> Result<Vec<Figure>> {
    let mut launch = Launch::new(runner, manifest())?;
    launch.descriptors = Some(256);
    let server = launch.start()?;
    let address = server.address().parse()?;
    // Until the server accepts no more.
    let connect = |_| TcpStream::connect_timeout(&address, SECOND).ok();
    let idle: Vec<_> = (0..512).map_while(connect).collect();
    sleep(SECOND).await;
    ensure!(!server.is_healthy(), "there were descriptors left");
    let connections = count(idle.len());
    drop(idle);
    let recovered = time_until(|| server.is_healthy()).await;
    let recovered = match runner {
        // It ends when it cannot accept a connection; a kubelet starts it again.
        Runner::Spin(_) => recovered,
        Runner::EmbeddedHost(_) => recovered.at_most(30.0),
    };
    Ok(vec![
        ("connections", connections),
        ("health answers after they close", recovered),
    ])
}

async fn largest_at_once(runner: &Runner) -> Result<Vec<Figure>> {
    let server = start(runner)?;
    // Its clients send their requests after two seconds, and disconnect after two more.
    let disconnected = disconnect(&server, "/?cpu_time=10s", 200);
    let burning = async {
        sleep(3 * SECOND).await;
        let usage = server.usage()?;
        let health = probe_health(server.health_url(), Instant::now() + SECOND);
        Ok((usage, health.await?))
    };
    let ((usage, health), after) = try_join!(burning, disconnected)?;
    let mut seen = health_figures(&health, 1000.0).to_vec();
    seen.extend(figures(usage));
    // The last burn notices in its next slice that its client has disconnected.
    let idle = seconds(after.seconds).at_most(10.0);
    seen.extend([
        ("time until idle", idle),
        ("CPU used afterwards", milliseconds(after.cpu_ms)),
    ]);
    Ok(seen)
}

async fn terminated(runner: &Runner) -> Result<Vec<Figure>> {
    let mut server = start(runner)?;
    let send = |_| server.send("/?cpu_time=10s");
    let clients: Vec<_> = (0..8).map(send).collect::<Result<_, _>>()?;
    sleep(2 * SECOND).await;
    server.process.terminate()?;
    let ended = time_until(|| matches!(server.process.status(), Ok(Some(_)))).await;
    // So that no client waits for a server that has not ended.
    drop(server);
    let has_report = |mut client: TcpStream| {
        let mut response = Vec::new();
        // Closed or reset: either way this is all.
        let _ = client.read_to_end(&mut response);
        String::from_utf8_lossy(&response).contains("digest")
    };
    let whole = clients.into_iter().map(has_report).filter(|&it| it).count();
    Ok(vec![
        ("until it ends", ended.at_most(30.0)),
        ("whole responses of 8", count(whole)),
    ])
}

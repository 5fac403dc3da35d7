//! Other tools, with requests for the same CPU time.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use testkit::{Launch, Server};
use tokio::{
    select,
    time::{Instant, sleep},
};

use crate::{
    measure::{Crowd, Outcome, component, cores, cost, idle_cores, until_idle},
    report::Report,
    testbed::{Share, Testbed},
    traffic::{Client, Clients, Stop, Window},
    value::{Goal, Value, deviation, median},
};

/// The port on which both listen by default.
const URL: &str = "http://127.0.0.1:8080";
/// The CPU time of each request; `prime` of autoscale-go is the number that uses it on the machine of the documents.
const MILLIS: u32 = 20;
const PRIME: &str = "/?prime=3859164";

pub async fn measure(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let folder = env::var_os("PEERS").map(PathBuf::from);
    let folder = folder.context(
        "PEERS must name a folder with `autoscale-go` (Knative's sample, `go build` in its folder) or \
         `resource-consumer` with `consume-cpu/consume-cpu` (Kubernetes' test/images/resource-consumer, the same)",
    )?;
    // The peers run in another folder than this program.
    let folder = folder
        .canonicalize()
        .with_context(|| folder.display().to_string())?;
    let [autoscale_go, resource_consumer] =
        ["autoscale-go", "resource-consumer"].map(|name| folder.join(name));
    ensure!(
        autoscale_go.exists() || resource_consumer.exists(),
        "{} has neither autoscale-go nor resource-consumer",
        folder.display()
    );
    if autoscale_go.exists() {
        let peer = |share: Share| {
            let launch = Launch::program(&autoscale_go, URL, "/")?;
            launch.limits(share.limits()?).start()
        };
        requests(report, "autoscale-go", PRIME, &peer(Share::TWO_CORES)?).await?;
        crowd(report, "autoscale-go", PRIME, &peer(Share::LIMITED)?).await?;
    }
    let target = format!("/?cpu_time={MILLIS}ms");
    let name = "cpu-load-gen";
    requests(
        report,
        name,
        &target,
        &component(testbed, Share::TWO_CORES).await?,
    )
    .await?;
    crowd(
        report,
        name,
        &target,
        &component(testbed, Share::LIMITED).await?,
    )
    .await?;
    if resource_consumer.exists() {
        let launch = Launch::program(&resource_consumer, URL, "/")?.working_folder(&folder);
        let server = launch.limits(Share::TWO_CORES.limits()?).start()?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        paced(report, "resource-consumer", &server, async |millicores| {
            let url = format!("{URL}/ConsumeCPU?millicores={millicores}&durationSec=10");
            client.post(url).send().await?.error_for_status()?;
            Ok(())
        })
        .await?;
    }
    let server = component(testbed, Share::TWO_CORES).await?;
    paced(report, name, &server, async |millicores| {
        let client = Client::new(server.url(&format!("/?cpu={millicores}m&duration=10s")))?;
        tokio::spawn(async move { client.get().await });
        Ok(())
    })
    .await
}

/// Single requests: their CPU, with and without a client that disconnects.
async fn requests(report: &mut Report, name: &str, target: &str, server: &Server) -> Result<()> {
    for connections in [1, 8] {
        let mut cpu = Vec::new();
        for _ in 0..3 {
            cpu.push(cost(server, target, connections, 100).await?.cpu_ms);
        }
        let measure = format!("{name}: CPU per request of {MILLIS} ms, c={connections}");
        report.add(measure, Value::Milliseconds(median(&cpu)), Goal::NONE);
    }
    let client = Client::new(server.url(target))?;
    let mut clients: Vec<_> = (0..40).map(|_| Box::pin(client.get())).collect();
    let all = async {
        for client in &mut clients {
            client.await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    // Part of them is under way.
    select! {
        ended = all => ended?,
        () = sleep(Duration::from_millis(100)) => {}
    }
    let disconnected = Instant::now();
    drop(clients);
    let idle = until_idle(server, disconnected).await?;
    let seconds = (idle - disconnected).as_secs_f64();
    let measure = format!("{name}: time until idle after 40 clients disconnected");
    report.add(measure, Value::Seconds(seconds), Goal::NONE);
    Ok(())
}

/// The tutorial's crowd.
async fn crowd(report: &mut Report, name: &str, target: &str, server: &Server) -> Result<()> {
    let crowd = Crowd {
        target,
        connections: 40,
        clients: Clients::Disconnect,
        ramp: 3,
        length: 30,
        stop: Stop::Answered,
    };
    let outcome: Outcome = crowd.run(server).await?;
    let mut add = |measure, value| {
        report.add(
            format!("{name}: {measure}, c=40, limited to 500m"),
            value,
            Goal::NONE,
        );
    };
    add("responses in time per second", Value::Plain(outcome.rate));
    add("late requests", outcome.late());
    add("latency p50", outcome.latency(0.5));
    add("latency p95", outcome.latency(0.95));
    add("health p99", outcome.health_p99());
    add(
        "share of probes without a response within 1 s",
        outcome.failed_probes(),
    );
    Ok(())
}

/// A share of a core for ten seconds.
async fn paced(
    report: &mut Report,
    name: &str,
    server: &Server,
    start: impl AsyncFn(u32) -> Result<()>,
) -> Result<()> {
    let idle = idle_cores(server, 2).await?;
    for millicores in [100, 250, 500, 900] {
        start(millicores).await?;
        // Its duration, and a margin for delays of its start and end.
        let window = Window::new(Duration::ZERO, Duration::from_secs(11));
        let used = 11.0 * (cores(server, window).await? - idle) / 10.0;
        let measure = format!("{name}: deviation of mean CPU from {millicores}m, 10 s");
        let used = deviation(1000.0 * used, millicores.into());
        report.add(measure, Value::Percent(used), Goal::NONE);
    }
    Ok(())
}

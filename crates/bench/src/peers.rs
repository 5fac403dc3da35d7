//! The case `peers`: other load generators, with the crowd of the tutorial on the tutorial's
//! replica.

use std::{
    convert::Infallible,
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use testkit::{Launch, Server};
use tokio::{select, task::JoinSet, time::sleep, try_join};

use crate::{
    crowds::{LENGTH, NO, RAMP, Tool, health_figures},
    measure::{cores, cost, disconnect},
    report::Report,
    testbed::{Share, Testbed},
    traffic::{Period, probe_health},
    value::{plain, seconds},
};

const CONNECTIONS: usize = 40;
/// The CPU time of a request.
const MILLIS: f64 = 20.0;

pub async fn measure(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let folder = env::var_os("PEERS").map(PathBuf::from);
    let folder = folder.context(
        "PEERS must name a folder with `autoscale-go` (Knative's sample) and `resource-consumer` \
         with `consume-cpu/consume-cpu` (Kubernetes' test/images/resource-consumer), each from \
         `go build`",
    )?;
    ensure!(folder.is_dir(), "{} is not a folder", folder.display());
    let own = Tool::component(testbed).await?;
    crowd(report, own).await?;
    if let Err(error) = autoscale_go(report, &folder).await {
        report.not_measured(&error.context("autoscale-go"));
    }
    if let Err(error) = resource_consumer(report, &folder).await {
        report.not_measured(&error.context("resource-consumer"));
    }
    Ok(())
}

/// Starts a program of the folder, which listens on port 8080 and may start others of the folder.
fn start(folder: &Path, program: &str) -> Result<Server> {
    let mut command = Command::new("env");
    command.arg("--chdir").arg(folder);
    command.arg("PORT=8080").arg(Path::new(".").join(program));
    let launch = Launch::program(command, "http://127.0.0.1:8080")?;
    launch.limits(Share::LIMITED.limits()?).start()
}

async fn autoscale_go(report: &mut Report, folder: &Path) -> Result<()> {
    let server = start(folder, "autoscale-go")?;
    // The time of its prime sieve is about proportional to the number. It ends with a panic at some
    // numbers, but not at multiples of 12.
    let target = |dozens: f64| format!("/?prime={}", 12 * dozens as u64);
    let mut dozens = 100_000.0;
    for _ in 0..3 {
        dozens *= MILLIS / cost(&server, &target(dozens), 1, 20).await?.cpu_ms;
    }
    let tool = Tool {
        name: "autoscale-go",
        server,
        target: target(dozens),
        cpu_time_ms: MILLIS,
    };
    crowd(report, tool).await
}

async fn crowd(report: &mut Report, tool: Tool) -> Result<()> {
    tool.measure(CONNECTIONS, report).await?;
    let after = disconnect(&tool.server, &tool.target, CONNECTIONS).await?;
    report.add(
        format!("{} × {CONNECTIONS}, which disconnect", tool.name),
        &[("time until idle", seconds(after.seconds))],
    );
    Ok(())
}

/// A request starts a process, and gets its response at once. So each client waits for the
/// duration, a second at least.
async fn resource_consumer(report: &mut Report, folder: &Path) -> Result<()> {
    let server = start(folder, "resource-consumer")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = server.url(&format!("/ConsumeCPU?millicores={MILLIS}&durationSec=1"));
    let period = Period::new(RAMP, LENGTH);
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        clients.spawn(consume(client.clone(), url.clone()));
    }
    let measured = async {
        try_join!(
            probe_health(server.health_url(), period.end),
            cores(&server, period)
        )
    };
    let (health, cores) = select! {
        measured = measured => measured?,
        ended = clients.join_next() => bail!("a client ended: {ended:?}"),
    };
    let used = plain(cores / Share::LIMITED.cpu());
    let [p99, failed] = health_figures(&health, NO);
    report.add(
        format!("resource-consumer × {CONNECTIONS}"),
        &[("CPU used", used), p99, failed],
    );
    Ok(())
}

/// Sends requests until one fails.
async fn consume(client: reqwest::Client, url: String) -> reqwest::Result<Infallible> {
    loop {
        client.post(&url).send().await?.error_for_status()?;
        sleep(Duration::from_secs(1)).await;
    }
}

//! The case `peers`: other load generators, with the crowd of the tutorial on the tutorial's
//! replica.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use testkit::{Launch, Server};

use crate::{
    crowds::{Subject, UNBOUNDED},
    measure::{cost, disconnect},
    report::{Report, figure},
    testbed::{Share, Testbed},
    traffic::Behaviour,
    value::seconds,
};

const CONNECTIONS: usize = 40;
/// The CPU time of a request.
const MILLIS: u32 = 20;

pub async fn measure(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let folder = env::var_os("PEERS").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.is_dir()).context(
        "PEERS must name a folder with `autoscale-go` (Knative's sample) and `resource-consumer` \
         with `consume-cpu/consume-cpu` (Kubernetes' test/images/resource-consumer), each from \
         `go build`",
    )?;
    let own = Subject::component(testbed, MILLIS, Share::LIMITED).await?;
    measure_and_disconnect(report, own).await?;
    let measured = autoscale_go(report, &folder).await;
    report.check(measured.context("autoscale-go"));
    let measured = resource_consumer(report, &folder).await;
    report.check(measured.context("resource-consumer"));
    Ok(())
}

/// Starts a program of the folder, which listens on port 8080 and may start others of the folder.
fn start(folder: &Path, program: &str) -> Result<Server> {
    let mut command = Command::new("env");
    command.arg("--chdir").arg(folder);
    command.arg("PORT=8080").arg(Path::new(".").join(program));
    let launch = Launch::program(command, "http://127.0.0.1:8080")?;
    Share::LIMITED.serve(launch)
}

async fn autoscale_go(report: &mut Report, folder: &Path) -> Result<()> {
    let server = start(folder, "autoscale-go")?;
    // The time of its prime sieve is about proportional to the number. It ends with a panic at some
    // numbers, but not at multiples of 12.
    let target = |dozens: f64| format!("/?prime={}", 12 * dozens as u64);
    let mut dozens = 100_000.0;
    for _ in 0..3 {
        dozens *= f64::from(MILLIS) / cost(&server, &target(dozens), 1, 20).await?.cpu_ms;
    }
    let subject = subject("autoscale-go", server, target(dozens));
    measure_and_disconnect(report, subject).await
}

/// A program with the tutorial's limit.
fn subject(name: &str, server: Server, target: String) -> Subject {
    Subject {
        name: name.to_owned(),
        server,
        share: Share::LIMITED,
        target,
        cpu_time_ms: MILLIS.into(),
    }
}

async fn measure_and_disconnect(report: &mut Report, subject: Subject) -> Result<()> {
    subject.measure(CONNECTIONS, report).await?;
    let after = disconnect(&subject.server, &subject.target, CONNECTIONS).await?;
    report.add(
        format!("{} × {CONNECTIONS}, which disconnect", subject.name),
        &[("time until idle", seconds(after.seconds))],
    );
    Ok(())
}

/// A request starts a process, and gets its response at once. So each client waits for the
/// duration, a second at least, and only the CPU and the probes say how it went.
async fn resource_consumer(report: &mut Report, folder: &Path) -> Result<()> {
    let name = "resource-consumer";
    let target = format!("/ConsumeCPU?millicores={MILLIS}&durationSec=1");
    let subject = subject(name, start(folder, name)?, target);
    let crowd = subject.crowd(CONNECTIONS, Behaviour::PostsEachSecond, UNBOUNDED);
    let figures = crowd.await?;
    let shown = ["CPU used", "health p99", "probes over 1 s"];
    let shown = shown.map(|measure| figure(&figures, measure));
    report.add(format!("{name} × {CONNECTIONS}"), &shown);
    Ok(())
}

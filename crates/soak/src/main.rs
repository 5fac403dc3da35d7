//! `make soak`: mixed loads, bad requests and clients that leave for minutes, then faults. It prints
//! its figures as it goes, and ends with an error where one is out of bounds.

mod clients;
#[path = "../../../tests/common/digest.rs"]
mod digest;
mod faults;
mod server;
#[path = "../../../tests/common/serving.rs"]
mod serving;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use go_duration::GoDuration;

use clients::Clients;
use server::{Server, Usage};

const CONNECTIONS: usize = 64;
/// When what the server holds is compared with the end.
const WARM: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(15);
/// How much more memory, threads and descriptors there may be at the end than when warm.
const GROWTH: f64 = 0.05;
/// What `make bench` asks of a crowd without a CPU limit.
const HEALTH_P99: Duration = Duration::from_millis(50);

/// Work the component hard, then break what it stands on
#[derive(Parser)]
struct Args {
    /// How long to work, such as 10m; at least 90s
    #[arg(long = "for", value_parser = duration, default_value = "10m")]
    period: Duration,
    /// A Spin to use in place of the embedded host
    #[arg(long)]
    spin: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let GoDuration(nanos) = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::from_nanos(nanos.try_into().map_err(|_| "it is negative")?);
    if duration < WARM + 2 * EVERY {
        return Err("it must be at least 90s".into());
    }
    Ok(duration)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let spin = args.spin.as_deref();
    let mut failures = work(&Server::start(spin, None)?, args.period)?;
    for (name, fault) in faults::ALL {
        let failed = fault(spin).with_context(|| name.to_owned())?;
        failures.extend(failed.map(|why| format!("{name}: {why}")));
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    ensure!(failures.is_empty(), "{} out of bounds", failures.len());
    Ok(())
}

/// Works the server for so long, and says what is out of bounds.
fn work(server: &Server, period: Duration) -> Result<Vec<String>> {
    println!("{CONNECTIONS} connections for {period:?}");
    let clients = Clients::start(server.address(), CONNECTIONS);
    let start = Instant::now();
    let mut warm = None;
    loop {
        let so_far = start.elapsed();
        sleep(EVERY.min(period.saturating_sub(so_far)));
        let now = server.usage()?;
        let figures = clients.figures();
        println!("{:>5.0} s  {figures}  {now}", start.elapsed().as_secs_f64());
        if warm.is_none() && start.elapsed() >= WARM {
            warm = Some(now);
        } else if start.elapsed() >= period {
            let warm = warm.context("it never got warm")?;
            return Ok(judge(&clients.stop(), &warm, &now));
        }
    }
}

fn judge(figures: &clients::Figures, warm: &Usage, end: &Usage) -> Vec<String> {
    let mut failures: Vec<_> = figures.unexpected.iter().cloned().collect();
    for (what, warm, end) in [
        ("resident memory", warm.resident, end.resident),
        ("threads", warm.threads, end.threads),
        ("descriptors", warm.descriptors, end.descriptors),
    ] {
        let growth = end as f64 / warm as f64 - 1.0;
        println!("{what}: {:+.1} % since it was warm", 100.0 * growth);
        if growth > GROWTH {
            failures.push(format!("{what} grew from {warm} to {end}"));
        }
    }
    let p99 = figures.health_p99();
    if p99 > HEALTH_P99 {
        failures.push(format!("health p99 is {p99:?}, more than {HEALTH_P99:?}"));
    }
    if figures.digests == 0 {
        failures.push("no digest was recomputed".into());
    }
    failures
}

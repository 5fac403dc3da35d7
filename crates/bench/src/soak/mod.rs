//! `make soak`: mixed requests, bad ones and clients that disconnect, for minutes; then faults. It
//! prints its results meanwhile, and fails if one is out of bounds.

mod clients;
mod faults;

use std::{
    process::ExitCode,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use testkit::{Launch, Runner, Server, Usage, manifest, parse_duration};

use clients::{Clients, Results};

const CONNECTIONS: usize = 64;
/// The time after which memory, threads and descriptors are compared with those at the end.
const WARM: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(15);
/// The allowed growth of memory, threads and descriptors from the warm server to the end.
const MAX_GROWTH: f64 = 0.05;
/// The bound of `make bench` for a crowd without a CPU limit.
const MAX_HEALTH_P99: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub struct Args {
    /// How long to send requests, such as 10m; at least 90s
    #[arg(long = "for", value_parser = period, value_name = "DURATION", default_value = "10m")]
    period: Duration,
}

fn period(text: &str) -> Result<Duration, String> {
    let period = parse_duration(text)?;
    if period < WARM + 2 * INTERVAL {
        return Err("it must be at least 90s".into());
    }
    Ok(period)
}

pub fn run(args: Args, runner: &Runner) -> Result<ExitCode> {
    let server = Launch::new(runner, manifest())?.start()?;
    let mut failures = work(&server, args.period)?;
    drop(server);
    for (name, fault) in faults::ALL {
        let failed = fault(runner).with_context(|| name.to_owned())?;
        failures.extend(failed.map(|why| format!("{name}: {why}")));
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    ensure!(failures.is_empty(), "{} out of bounds", failures.len());
    Ok(ExitCode::SUCCESS)
}

/// Sends requests for this period, and returns the results that are out of bounds.
fn work(server: &Server, period: Duration) -> Result<Vec<String>> {
    println!("{CONNECTIONS} connections for {period:?}");
    let clients = Clients::new(server);
    let [warm, end] = scope(|scope| {
        for number in 0..CONNECTIONS {
            let clients = &clients;
            scope.spawn(move || clients.send_requests(number));
        }
        scope.spawn(|| clients.probe_health());
        let usage = watch(&clients, server, period);
        clients.stop();
        usage
    })?;
    Ok(evaluate(&clients.results(), &warm, &end))
}

/// Prints the results until the period is over, and returns the resources of the server when warm
/// and at the end.
fn watch(clients: &Clients, server: &Server, period: Duration) -> Result<[Usage; 2]> {
    let start = Instant::now();
    let mut warm = None;
    loop {
        sleep(INTERVAL.min(period.saturating_sub(start.elapsed())));
        let usage = server.usage()?;
        let elapsed = start.elapsed();
        println!(
            "{:>5.0} s  {}  {usage}",
            elapsed.as_secs_f64(),
            clients.results()
        );
        if elapsed >= WARM {
            let warm = *warm.get_or_insert(usage);
            if elapsed >= period {
                return Ok([warm, usage]);
            }
        }
    }
}

fn evaluate(results: &Results, warm: &Usage, end: &Usage) -> Vec<String> {
    let mut failures: Vec<_> = results.unexpected.iter().cloned().collect();
    for (what, warm, end) in [
        ("resident memory", warm.resident, end.resident),
        ("threads", warm.threads, end.threads),
        ("descriptors", warm.descriptors, end.descriptors),
    ] {
        let growth = end as f64 / warm as f64 - 1.0;
        println!("{what}: {:+.1} % since it was warm", 100.0 * growth);
        if growth > MAX_GROWTH {
            failures.push(format!("{what} grew from {warm} to {end}"));
        }
    }
    let p99 = results.health.quantile(0.99).unwrap_or(Duration::MAX);
    if p99 > MAX_HEALTH_P99 {
        failures.push(format!(
            "health p99 is {p99:?}, more than {MAX_HEALTH_P99:?}"
        ));
    }
    if results.digests == 0 {
        failures.push("no digest was recomputed".into());
    }
    failures
}

//! Runs the load generator of the tutorial, with its timeout.

use std::{io::ErrorKind, time::Duration};

use ::bombardier::{INSTALL, Report, command};
use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Its result; latencies in seconds.
pub struct Bombarded {
    pub requests: usize,
    /// Those without a response of status 2xx.
    pub failed: usize,
    pub p50: f64,
    pub p95: f64,
    pub max: f64,
}

/// Sends requests over this many connections for whole seconds.
///
/// # Errors
/// If it is not installed, or fails.
pub async fn run(url: &str, connections: u32, duration: Duration) -> Result<Bombarded> {
    let command = command(connections, TIMEOUT, duration, url);
    let mut program = Command::new(&command[0]);
    let output = match program
        .args(&command[1..])
        .kill_on_drop(true)
        .output()
        .await
    {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("bombardier is not installed: {INSTALL}")
        }
        output => output.context("cannot run bombardier")?,
    };
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bombardier: {}", error.trim());
    let report = Report::parse(&String::from_utf8_lossy(&output.stdout));
    let report = report.context("bombardier printed no result")?;
    let percentiles = report.latency.percentiles.as_ref();
    let percentiles = percentiles.context("bombardier printed no percentiles")?;
    Ok(Bombarded {
        requests: report.requests() as usize,
        failed: report.not_2xx() as usize,
        p50: percentiles.p50 / 1e6,
        p95: percentiles.p95 / 1e6,
        max: report.latency.max / 1e6,
    })
}

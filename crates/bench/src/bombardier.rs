//! The load generator of the tutorial.

use std::{io::ErrorKind, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

const INSTALL: &str = "go install github.com/codesenberg/bombardier@latest, or https://github.com/codesenberg/bombardier/releases";

/// Its result; latencies in seconds.
pub struct Bombarded {
    pub requests: usize,
    /// Those without a response of status 2xx.
    pub failed: usize,
    pub p50: f64,
    pub p95: f64,
    pub max: f64,
}

/// Runs it with the flags of the tutorial.
///
/// # Errors
/// Where it is not installed, or fails.
pub async fn run(url: &str, connections: usize, duration: Duration) -> Result<Bombarded> {
    let mut command = Command::new("bombardier");
    command.args([
        "--timeout",
        "5s",
        "--latencies",
        "--print",
        "result",
        "--format",
        "json",
    ]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{}s", duration.as_secs()), url]);
    let output = match command.kill_on_drop(true).output().await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("bombardier is not installed: {INSTALL}")
        }
        output => output.context("cannot run bombardier")?,
    };
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bombardier: {}", error.trim());
    let report: Value = serde_json::from_slice(&output.stdout).context("bombardier's report")?;
    let result = &report["result"];
    let number = |value: &Value| value.as_f64().context("bombardier's report lacks a number");
    let micros = |value| Ok::<_, anyhow::Error>(number(value)? / 1e6);
    let succeeded = number(&result["req2xx"])? as usize;
    let mut failed = 0;
    for class in ["req1xx", "req3xx", "req4xx", "req5xx", "others"] {
        failed += number(&result[class])? as usize;
    }
    Ok(Bombarded {
        requests: succeeded + failed,
        failed,
        p50: micros(&result["latency"]["percentiles"]["50"])?,
        p95: micros(&result["latency"]["percentiles"]["95"])?,
        max: micros(&result["latency"]["max"])?,
    })
}

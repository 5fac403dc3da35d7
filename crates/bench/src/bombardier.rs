//! Runs the load generator of the tutorial, with its timeout.

use std::time::Duration;

use ::bombardier::{INSTALL, Report, command};
use anyhow::{Context, Result, ensure};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests over this many connections for whole seconds.
///
/// # Errors
/// If it is not installed, or fails.
pub async fn run(url: &str, connections: u32, duration: Duration) -> Result<Report> {
    let command = command(connections, TIMEOUT, duration, url);
    let mut program = Command::new(&command[0]);
    let output = program.args(&command[1..]).kill_on_drop(true).output();
    let output = output
        .await
        .with_context(|| format!("cannot run bombardier ({INSTALL})"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bombardier: {}", error.trim());
    let report = Report::parse(&String::from_utf8_lossy(&output.stdout));
    report.context("bombardier printed no result")
}

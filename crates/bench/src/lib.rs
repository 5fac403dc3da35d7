//! The benchmark: measures each row of its table against a server in a process of its own, and fails
//! where one falls short of what it must reach.
#![cfg(target_os = "linux")]

mod cgroup;
mod figure;
mod load;
mod measure;
mod report;
mod rows;
mod server;
mod testbed;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{report::Report, rows::Row, testbed::Testbed};

/// Measure what a request costs, and how the host answers meanwhile
///
/// Prints a table in Markdown. Exits with 1 where a figure falls short of what it must reach, and with
/// 2 where one could not be measured.
#[derive(Parser)]
struct Args {
    /// Measure these rows only; by default all but `crowds`, which judges nothing
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::judged(), hide_default_value = true)]
    rows: Vec<Row>,
    /// The Spin that serves, instead of the embedded host
    #[arg(long, env = "SPIN", value_name = "PATH")]
    spin: Option<String>,
    /// Another build of the component, to compare it
    #[arg(long, env = "WASM", value_name = "PATH")]
    wasm: Option<PathBuf>,
}

// One thread: it has to leave both cores to the server, and servers end with the thread that started
// them.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    let args = Args::parse();
    let result = tokio::select! {
        result = run(args) => result,
        result = interrupted() => result,
    };
    match result {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<u8> {
    let spin = args.spin.as_deref().filter(|path| !path.is_empty());
    let testbed = Testbed::build(spin, args.wasm.as_deref())?;
    let mut report = Report::begin(testbed.runner(), args.wasm.as_deref())?;
    for row in args.rows {
        row.measure(&testbed, &mut report).await;
    }
    Ok(report.exit_status())
}

/// Waits for a signal to end, so that servers are stopped and cgroups removed before.
async fn interrupted() -> Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    bail!("interrupted")
}

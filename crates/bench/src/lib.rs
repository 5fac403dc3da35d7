//! The benchmark: measures each row of its table against a server in a process of its own, and fails
//! where one falls short of what it must reach.
#![cfg(target_os = "linux")]

mod figure;
mod load;
mod measure;
mod report;
mod rows;
mod soak;
mod testbed;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{report::Report, rows::Row, testbed::Testbed};

/// Measure what a request costs, and how the host answers meanwhile
///
/// The embedded host serves, or the Spin that the environment variable SPIN names.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print a table in Markdown; exits with 1 where a figure falls short of what it must reach, and with 2 where one
    /// could not be measured
    Measure {
        /// Measure these rows only; by default all but `crowds`, which judges nothing
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::judged(), hide_default_value = true)]
        rows: Vec<Row>,
        /// Another build of the component, to compare it
        #[arg(long, env = "WASM", value_name = "PATH")]
        wasm: Option<PathBuf>,
    },
    /// Send mixed requests for minutes, then break what the server stands on
    Soak(soak::Args),
}

// One thread: it has to leave both cores to the server, and servers end with the thread that started
// them.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Measure { rows, wasm } => tokio::select! {
            result = measure(rows, wasm) => result,
            result = interrupted() => result,
        },
        Command::Soak(args) => testbed::runner()
            .and_then(|runner| soak::run(args, &runner))
            .map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(rows: Vec<Row>, wasm: Option<PathBuf>) -> Result<ExitCode> {
    let testbed = Testbed::build(wasm.as_deref())?;
    let mut report = Report::begin(testbed.runner(), wasm.as_deref())?;
    for row in rows {
        row.measure(&testbed, &mut report).await;
    }
    Ok(report.exit_status().into())
}

/// Waits for a signal to end, so that servers are ended and cgroups removed before.
async fn interrupted() -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    bail!("interrupted")
}

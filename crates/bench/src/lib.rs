//! The benchmark: measures each case with a server in its own process, and fails if a value misses its
//! required bound. Also the soak, which loads a server for minutes.
#![cfg(target_os = "linux")]

mod bombardier;
mod cases;
mod chart;
mod measure;
mod peers;
mod report;
mod soak;
mod testbed;
mod traffic;
mod value;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{cases::Case, report::Report, testbed::Testbed};

/// Measure the cost of requests, and the responsiveness of the host meanwhile
///
/// The embedded host serves, or the Spin that the environment variable SPIN names.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print a table in Markdown; exits with 1 if a value misses its required bound, with 2 if one was not measured
    Measure {
        /// Measure these cases only; by default all but `peers`
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = Case::default_cases(), hide_default_value = true)]
        cases: Vec<Case>,
        /// Another build of the component, to compare it
        #[arg(long, env = "WASM", value_name = "PATH")]
        wasm: Option<PathBuf>,
    },
    /// Measure crowds of growing size and draw them: `crowds.csv` and `crowds.svg`
    Crowds {
        /// Draw the data of this file instead of measuring
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// The folder for both files
        #[arg(long, value_name = "FOLDER", default_value = "docs")]
        output: PathBuf,
    },
    /// Send mixed requests for minutes, then cause faults
    Soak(soak::Args),
}

// One thread: both cores are for the server, and servers end with the thread that started them.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Measure { cases, wasm } => until_interrupted(measure(cases, wasm)).await,
        Command::Crowds { from, output } => until_interrupted(crowds(from, output)).await,
        // It blocks, and leaves nothing to remove: its servers end with it.
        Command::Soak(args) => testbed::runner().and_then(|runner| soak::run(args, &runner)),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(cases: Vec<Case>, wasm: Option<PathBuf>) -> Result<ExitCode> {
    let testbed = Testbed::build(wasm.as_deref())?;
    let mut report = Report::begin(testbed.runner(), wasm.as_deref())?;
    for case in cases {
        case.measure(&testbed, &mut report).await;
    }
    Ok(report.exit_status().into())
}

async fn crowds(from: Option<PathBuf>, output: PathBuf) -> Result<ExitCode> {
    let points = match from {
        Some(data) => chart::read(&data)?,
        None => {
            let testbed = Testbed::build(None)?;
            println!("{}", report::conditions(testbed.runner(), None)?);
            let points = chart::measure(&testbed).await?;
            chart::write(&points, &output.join("crowds.csv"))?;
            points
        }
    };
    fs::write(output.join("crowds.svg"), chart::draw(&points)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends early at a signal, and still stops the servers and removes the cgroups.
async fn until_interrupted(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = work => return result,
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    bail!("interrupted")
}

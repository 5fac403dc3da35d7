//! The benchmark: measures each case with a server in its own process, and fails if a value misses
//! its bound. Also the soak, which loads a server for minutes.
#![cfg(target_os = "linux")]

mod cases;
mod chart;
mod crowds;
mod measure;
mod peers;
mod report;
mod soak;
mod testbed;
mod traffic;
mod value;

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cases::Case,
    report::Report,
    testbed::{COMPONENT, Testbed},
};

/// Measure the cost of requests, and the responsiveness of the host meanwhile
///
/// The embedded host serves, or the Spin that the environment variable SPIN names.
#[derive(Parser)]
enum Command {
    /// Print tables in Markdown; exits with 1 if a value misses its bound, with 2 if one was not
    /// measured
    Measure(Measure),
    /// Draw the case `crowds` of a CSV file
    Draw {
        csv: PathBuf,
        #[arg(default_value = "docs/crowds.svg")]
        svg: PathBuf,
    },
    /// Send mixed requests for minutes, then cause faults
    Soak(soak::Args),
}

#[derive(clap::Args)]
struct Measure {
    /// Measure these cases only; by default all but `crowds` and `peers`
    #[arg(long, value_enum, value_delimiter = ',')]
    #[arg(default_values_t = Case::default_cases(), hide_default_value = true)]
    cases: Vec<Case>,
    /// Builds of the component: each case measures one after the other
    #[arg(long, env = "WASM", value_name = "PATH", value_delimiter = ',')]
    #[arg(default_value = COMPONENT)]
    wasm: Vec<PathBuf>,
    /// Also write the values to this file, in place of those of the same server, component and case
    #[arg(long, env = "CSV", value_name = "FILE")]
    csv: Option<PathBuf>,
}

// One thread: both cores are for the server, and servers end with the thread that started them.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    // All paths are those of `make`, which runs at the root of the workspace.
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    env::set_current_dir(root).expect("the workspace");
    match until_interrupted(Command::parse().run()).await {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    /// Returns the exit status.
    async fn run(self) -> Result<u8> {
        match self {
            Self::Measure(args) => args.run().await,
            Self::Draw { csv, svg } => {
                fs::write(svg, chart::draw(&report::read(&csv)?)?)?;
                Ok(0)
            }
            Self::Soak(args) => args.run().await,
        }
    }
}

impl Measure {
    async fn run(self) -> Result<u8> {
        let mut testbed = Testbed::build()?;
        let mut report = Report::begin(&testbed.runner)?;
        for case in self.cases {
            for build in &self.wasm {
                testbed.component = build.clone();
                report.begin_case(&case.name(), build);
                case.measure(&testbed, &mut report).await;
            }
        }
        report.end(self.csv.as_deref())
    }
}

/// Ends early at a signal, and still stops the servers and removes the cgroups.
async fn until_interrupted(work: impl Future<Output = Result<u8>>) -> Result<u8> {
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

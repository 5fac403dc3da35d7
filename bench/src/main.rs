//! The benchmark: measures each row of its table against a server in a process of its own, and fails
//! where one falls short of what it must reach.

mod cgroup;
mod lab;
mod load;
mod measure;
mod report;
mod rows;
mod server;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::{lab::Lab, report::Report, rows::Part};

/// Measure what a request costs, and how the host answers meanwhile
///
/// Prints a table in Markdown and writes target/bench/report.json. Exits with 1 where a figure falls
/// short of what it must reach, and with 2 where one could not be measured.
#[derive(Parser)]
struct Args {
    /// Measure these rows only
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec(), hide_default_value = true)]
    rows: Vec<Part>,
    /// The Spin that serves, instead of the embedded host
    #[arg(long, env = "SPIN", value_name = "PATH")]
    spin: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // One thread: it has to leave both cores to the server, and servers end with the thread that
    // started them.
    let result = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| {
            runtime.block_on(async {
                tokio::select! {
                    result = run(args) => result,
                    result = interrupted() => result,
                }
            })
        });
    match result {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<u8> {
    let lab = Lab::build(args.spin.as_deref().filter(|path| !path.is_empty()))?;
    let mut report = Report::new(lab.runner())?;
    eprintln!("{}", report.heading());

    let style = ProgressStyle::with_template("{spinner} [{pos}/{len}] {msg} ({elapsed})")?;
    let progress = ProgressBar::new(args.rows.len() as u64).with_style(style);
    progress.enable_steady_tick(Duration::from_secs(1));
    for part in args.rows {
        progress.set_message(part.to_string());
        for line in part.measure(&lab).await {
            progress.suspend(|| eprintln!("{line}"));
            report.add(line);
        }
        progress.inc(1);
    }
    progress.finish_and_clear();

    println!("{}\n\n{}", report.heading(), report.table());
    report.write_json(&lab.output("report.json"))?;
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

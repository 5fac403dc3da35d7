//! The command line: parses the options and starts the recording.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use tokio::task::LocalSet;

use crate::{
    cluster::Target,
    files,
    format::{parse_duration, without_login},
    observations::{self, Header, Verdict},
    probe::Probe,
    record::Record,
    recording::{Mode, Recording},
    report::Report,
    rules::Flags,
};

/// Record what an autoscaler does with a Deployment
///
/// Observes the Deployment, its pods, its HorizontalPodAutoscaler (KEDA creates one too) and their
/// events in the current context of kubectl; it never writes to the cluster. At the end it prints
/// each decision of the autoscaler with its reason, and writes replicas.csv, autoscale.json,
/// autoscale.svg and observations.jsonl.
///
/// Exit status of a recording: 0 if the expectation was met, 1 if it was not, 2 if the recording
/// failed or was interrupted.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Action {
    #[command(flatten)]
    Record(Mode),
    /// Explain a recording again, without a cluster
    Explain {
        /// The observations.jsonl of the recording
        file: PathBuf,
    },
}

#[derive(Args)]
struct Options {
    #[arg(long, global = true, default_value = "default")]
    namespace: String,
    #[arg(long, global = true, default_value = "keda-spinapp")]
    deployment: String,
    /// The address of the app, to which one request a second is sent to measure its latency
    #[arg(long, global = true)]
    url: Option<String>,
    /// The query of these requests, which should use almost no CPU [default: iterations=0 if the
    /// app responds to HEAD as cpu-load-gen does, none for others]
    #[arg(long, global = true)]
    query: Option<String>,
    /// Time limit for each of these requests
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = parse_duration)]
    timeout: Duration,
    /// Serve a page that shows the recording: a port on loopback, or an address such as
    /// 0.0.0.0:8082
    #[arg(long, global = true, value_name = "ADDRESS", value_parser = parse_address)]
    serve: Option<SocketAddr>,
    /// The format of the report on standard output
    #[arg(long, global = true, value_enum, default_value_t)]
    format: Format,
    /// The controller manager's --horizontal-pod-autoscaler-sync-period [default: 15s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_period)]
    sync_period: Option<f64>,
    /// Its --horizontal-pod-autoscaler-tolerance [default: 0.1]
    #[arg(long, global = true, value_name = "FRACTION", value_parser = parse_fraction)]
    tolerance: Option<f64>,
    /// Its --horizontal-pod-autoscaler-downscale-stabilization [default: 5m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    downscale_stabilization: Option<Duration>,
    /// The folder for the files [default: target/autoscale; for explain, the folder of FILE]
    #[arg(long, global = true, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl Options {
    /// The flags of the controller manager: those that were given, else these.
    fn flags(&self, recorded: Flags) -> Flags {
        let window = self.downscale_stabilization;
        let window = window.map(|window| window.as_secs().try_into().unwrap_or(u32::MAX));
        Flags {
            sync_period: self.sync_period.unwrap_or(recorded.sync_period),
            tolerance: self.tolerance.unwrap_or(recorded.tolerance),
            downscale_stabilisation: window.unwrap_or(recorded.downscale_stabilisation),
        }
    }
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Markdown,
    /// The content of autoscale.json
    Json,
}

/// A port of the loopback interface, or an address with its port.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| {
        "it must be a port, or an IP address with a port, such as 8082 or 0.0.0.0:8082".into()
    })
}

fn parse_period(text: &str) -> Result<f64, &'static str> {
    let period = parse_duration(text)?.as_secs_f64();
    if period < 1.0 {
        return Err("it must be at least 1s");
    }
    Ok(period)
}

fn parse_fraction(text: &str) -> Result<f64, &'static str> {
    let fraction = text.parse().ok().filter(|one| (0.0..=1.0).contains(one));
    fraction.ok_or("it must be a fraction of the target, from 0 to 1")
}

/// Parses the arguments, records and reports; the exit status is that of the verdict.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    match LocalSet::new().run_until(run(Cli::parse())).await {
        Ok(verdict) => verdict.status().into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(Cli { action, options }: Cli) -> Result<Verdict> {
    let mode = match action {
        Action::Record(mode) => mode,
        Action::Explain { file } => {
            let (header, record) = observations::read(&file, |flags| options.flags(flags))?;
            let folder = file.parent().unwrap_or(&file);
            let folder = options.output.as_deref().unwrap_or(folder);
            report(&header, &record, folder, options.format)?;
            return Ok(Verdict::default());
        }
    };
    // Both HTTP clients take their cryptography from here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let flags = options.flags(Flags::default());
    let target = Target::find(&options.namespace, &options.deployment, flags).await?;
    let task = mode.task(&target.state, options.url.as_deref())?;
    let mut probe = None;
    if let Some(url) = &options.url {
        let asking = Probe::new(url, options.query.as_deref(), options.timeout)?;
        if task.sends_traffic()
            && let Some(why) = asking.ask().await.failed
        {
            let url = without_login(url);
            bail!("the app at {url:?} does not respond with 2xx: {why}");
        }
        probe = Some(asking);
    }
    let header = Header {
        began: Timestamp::now(),
        expected: task.expectation.as_ref().map(ToString::to_string),
        flags,
        deployment: options.deployment,
        verdict: Verdict::default(),
    };
    let folder = options.output.unwrap_or("target/autoscale".into());
    let mut recording = Recording::new(task, header);
    if let Some(address) = options.serve {
        recording.serve(address, &folder).await?;
    }
    let (header, record) = recording.record(&target, probe, &folder).await?;
    report(&header, &record, &folder, options.format)?;
    Ok(header.verdict)
}

/// Prints a recording, and writes its files.
fn report(header: &Header, record: &Record, folder: &Path, format: Format) -> Result<()> {
    let report = Report::new(header, record);
    files::write(&report, folder)?;
    // The folder of a file in the current folder is empty.
    eprintln!("The files are in {}", Path::new(".").join(folder).display());
    match format {
        Format::Markdown => print!("{}", report.markdown()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

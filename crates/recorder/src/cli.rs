//! The command line: parses the options and starts the recording.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use go_duration::GoDuration;
use tokio::{runtime::Builder, task::LocalSet};

use crate::{
    cluster::Target,
    expectation::{Expectation, Verdict},
    files,
    hold::Hold,
    notes::unscaled,
    observations::{self, Header},
    probe::Probe,
    record::Record,
    recording::{Mode, Recording},
    report::Report,
    rules::Flags,
    steady_load::{self, Plan},
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
    Record(Command),
    /// Explain a recording again, without a cluster
    Explain {
        /// The observations.jsonl of the recording
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum Command {
    /// Record the scaling until Ctrl-C
    Watch {
        /// End after this time
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
        duration: Option<Duration>,
        #[command(flatten)]
        expect: Expect,
    },
    /// Send traffic and record the scaling that follows
    Run {
        /// Then wait for the minimum number of replicas, at most this long
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        until_idle: Option<Duration>,
        #[command(flatten)]
        expect: Expect,
        /// The command that sends the traffic, such as `bombardier -o json -p r -l -c 40 -d 3m
        /// http://localhost:8081`
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Send the traffic that leads to exactly this number of replicas, and check that they stay
    Hold {
        replicas: u32,
        /// How long there must be exactly this number
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
        hold: Duration,
        /// Time limit for reaching them, from the start of the traffic [default: by an estimate]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        within: Option<Duration>,
        /// CPU that a replica uses without traffic, in millicores
        #[arg(long, value_name = "MILLICORES", default_value_t = steady_load::IDLE)]
        idle: f64,
    },
}

#[derive(Args)]
struct Expect {
    /// Number of replicas that must be ready
    #[arg(long, value_name = "REPLICAS")]
    expect: Option<u32>,
    /// Time limit for reaching it, from the start of the traffic
    #[arg(long, value_name = "DURATION", requires = "expect", value_parser = parse_duration)]
    within: Option<Duration>,
    /// How long there must be exactly this number
    #[arg(long, value_name = "DURATION", requires = "expect", value_parser = parse_duration)]
    hold: Option<Duration>,
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
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// Serve a page that shows the recording: a port on loopback, or an address such as
    /// 0.0.0.0:8082
    #[arg(long, global = true, value_name = "ADDRESS", value_parser = parse_address)]
    serve: Option<SocketAddr>,
    /// The format of the report on standard output
    #[arg(long, global = true, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    flags: FlagOptions,
    /// The folder for the files [default: target/autoscale; for explain, the folder of FILE]
    #[arg(long, global = true, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// The flags of the controller manager, which a cluster does not show.
#[derive(Args)]
struct FlagOptions {
    /// The controller manager's --horizontal-pod-autoscaler-sync-period [default: 15s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_period)]
    sync_period: Option<Duration>,
    /// Its --horizontal-pod-autoscaler-tolerance [default: 0.1]
    #[arg(long, global = true, value_name = "FRACTION", value_parser = parse_fraction)]
    tolerance: Option<f64>,
    /// Its --horizontal-pod-autoscaler-downscale-stabilization [default: 5m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    downscale_stabilization: Option<Duration>,
}

impl FlagOptions {
    /// Changes the flags that were given.
    fn apply(&self, flags: &mut Flags) {
        if let Some(period) = self.sync_period {
            flags.sync_period = period.as_secs_f64();
        }
        if let Some(tolerance) = self.tolerance {
            flags.tolerance = tolerance;
        }
        if let Some(window) = self.downscale_stabilization {
            flags.downscale_stabilisation = window.as_secs().try_into().unwrap_or(u32::MAX);
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

/// A duration in the syntax of Go, as in the query of the component.
fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let nanos = text.parse().ok().map(|GoDuration(nanos)| nanos);
    nanos
        .and_then(|nanos| nanos.try_into().ok())
        .map(Duration::from_nanos)
        .ok_or("it must be numbers with units (ms, s, m, h), such as 90s or 1m30s")
}

fn parse_period(text: &str) -> Result<Duration, &'static str> {
    let period = parse_duration(text)?;
    let is_allowed = period >= Duration::from_secs(1);
    is_allowed.then_some(period).ok_or("it must be at least 1s")
}

fn parse_fraction(text: &str) -> Result<f64, &'static str> {
    let fraction = text.parse().ok().filter(|one| (0.0..=1.0).contains(one));
    fraction.ok_or("it must be a fraction of the target, from 0 to 1")
}

/// Parses the arguments, records and reports; the exit status is that of the verdict.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| LocalSet::new().block_on(&runtime, run(cli)));
    match result {
        Ok(verdict) => verdict.status().into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(Cli { action, options }: Cli) -> Result<Verdict> {
    let command = match action {
        Action::Record(command) => command,
        Action::Explain { file } => {
            let (header, record) = observations::read(&file, |flags| options.flags.apply(flags))?;
            let folder = file.parent().unwrap_or(&file);
            let folder = options.output.as_deref().unwrap_or(folder);
            report(&header, &record, folder, options.format)?;
            return Ok(Verdict::default());
        }
    };
    // Both HTTP clients take their cryptography from here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let target = Target::find(&options.namespace, &options.deployment).await?;
    let recording = command.recording(&target, &options)?;
    let mut probe = None;
    if let Some(url) = &options.url {
        let asking = Probe::new(url, options.query.as_deref(), options.timeout)?;
        if !matches!(recording.mode, Mode::Watch { .. })
            && let Some(why) = asking.ask().await.failed
        {
            bail!("{url} does not respond with 2xx: {why}");
        }
        probe = Some(asking);
    }
    let folder = options.output.unwrap_or("target/autoscale".into());
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
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&files::document(&report))?
        ),
    }
    Ok(())
}

impl Expect {
    fn expectation(self) -> Option<Expectation> {
        let Self {
            expect,
            within,
            hold,
        } = self;
        expect.map(|replicas| Expectation {
            replicas,
            within,
            hold,
        })
    }
}

impl Command {
    fn recording(self, target: &Target, options: &Options) -> Result<Recording> {
        if !matches!(self, Self::Watch { .. })
            && let Some(why) = unscaled(&target.state)
        {
            bail!(why);
        }
        let (expectation, mode) = match self {
            Self::Watch { duration, expect } => (expect.expectation(), Mode::Watch { duration }),
            Self::Run {
                until_idle,
                expect,
                command,
            } => (
                expect.expectation(),
                Mode::Run {
                    command,
                    until_idle,
                },
            ),
            Self::Hold {
                replicas,
                hold,
                within,
                idle,
            } => {
                let url = options
                    .url
                    .clone()
                    .context("`hold` needs the `--url` of the app")?;
                let state = &target.state;
                let autoscaler = state.autoscaler().cloned().unwrap_or_default();
                let mut deployment = state.deployment.clone().unwrap_or_default();
                deployment.requests = state.requests().cloned().unwrap_or_default();
                let plan = Plan::new(replicas, &autoscaler, &deployment, idle)?;
                let within = within.unwrap_or(plan.limit);
                let expectation = Expectation {
                    replicas,
                    within: Some(within),
                    hold: Some(hold),
                };
                eprintln!("{plan}");
                let mode = Mode::Hold {
                    hold: Hold::new(plan),
                    url,
                    limit: within + 2 * hold,
                };
                (Some(expectation), mode)
            }
        };
        let mut flags = Flags::default();
        options.flags.apply(&mut flags);
        Ok(Recording {
            deployment: options.deployment.clone(),
            expectation,
            mode,
            flags,
            serve: options.serve,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in [("1m30s", 90.0), ("1.5h", 5400.0), ("500ms", 0.5)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)));
        }
        for text in ["90", "1m 30s", "2min", "-1s", ""] {
            assert!(parse_duration(text).is_err(), "{text:?} was taken");
        }
    }
}

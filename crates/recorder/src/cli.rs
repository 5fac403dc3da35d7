//! The command line: what is recorded, and for how long.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use go_duration::GoDuration;
use tokio::{runtime::Builder, task::LocalSet};

use crate::{
    cluster::Target,
    expectation::{Expectation, Verdict},
    probe::Probe,
    recording::Recording,
    report::Report,
    steady_load::SteadyLoad,
};

/// Record what an autoscaler does with a Deployment
///
/// Follows the Deployment, its pods, its HorizontalPodAutoscaler (KEDA makes one too) and their events
/// in the current context of kubectl, and only reads. Ends with a table of what the autoscaler decided
/// and why, and writes replicas.csv, autoscale.json and autoscale.svg.
///
/// Exit status: 0 what was expected happened, 1 it did not, 2 it could not be observed.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Follow the scaling, until Ctrl-C
    Watch {
        /// End after this long
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        length: Option<Duration>,
        #[command(flatten)]
        expect: Expect,
    },
    /// Send traffic and record the scaling that follows
    Run {
        /// Then wait for the minimum number of replicas, at most this long
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        until_idle: Option<Duration>,
        #[command(flatten)]
        expect: Expect,
        /// The command that sends the traffic, such as `bombardier -o json -p r -l -c 40 -d 3m http://localhost:8081`
        #[arg(last = true, required = true)]
        traffic: Vec<OsString>,
    },
    /// Send the traffic that leads to exactly this number of replicas, and check that they stay
    Hold {
        replicas: u32,
        /// How long there must be exactly this number
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
        hold: Duration,
        /// Time limit for reaching them, from the start of the traffic
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
        within: Duration,
        /// CPU that a replica uses without traffic, in millicores
        #[arg(long, value_name = "MILLICORES", default_value_t = 3.0)]
        idle: f64,
    },
}

#[derive(Args)]
struct Expect {
    /// Number of replicas that must be ready
    #[arg(long, value_name = "REPLICAS")]
    expect: Option<u32>,
    /// Since the start of the traffic
    #[arg(long, value_name = "DURATION", requires = "expect", value_parser = duration)]
    within: Option<Duration>,
    /// How long there must be exactly this number
    #[arg(long, value_name = "DURATION", requires = "expect", value_parser = duration)]
    hold: Option<Duration>,
}

#[derive(Args)]
struct Options {
    #[arg(long, global = true, default_value = "default")]
    namespace: String,
    #[arg(long, global = true, default_value = "keda-spinapp")]
    deployment: String,
    /// The app, which is asked once a second how long an answer takes
    #[arg(long, global = true)]
    url: Option<String>,
    /// The query of these requests, which should cost next to nothing
    #[arg(long, global = true, default_value = "iterations=0")]
    query: String,
    /// How long one of them may take
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// The folder for replicas.csv, autoscale.json and autoscale.svg
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        default_value = "target/autoscale"
    )]
    output: PathBuf,
}

/// As in the query of the component: the durations of Go.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let nanos = text.parse().ok().map(|GoDuration(nanos)| nanos);
    nanos
        .and_then(|nanos| nanos.try_into().ok())
        .map(Duration::from_nanos)
        .ok_or("it must be each number with its unit (ms, s, m, h), such as 90s or 1m30s")
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

async fn run(Cli { command, options }: Cli) -> Result<Verdict> {
    // Both HTTP clients take their cryptography from here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let target = Target::find(&options.namespace, &options.deployment).await?;
    let recording = command.recording(&target, &options)?;
    let mut probe = None;
    if let Some(url) = &options.url {
        let asking = Probe::new(url, &options.query, options.timeout)?;
        if recording.traffic.is_some()
            && let Some(why) = asking.ask().await.failed
        {
            bail!("{url} does not answer: {why}");
        }
        probe = Some(asking);
    }
    let (record, verdict) = recording.record(&target, probe).await?;
    let expected = recording.expectation.as_ref().map(ToString::to_string);
    let report = Report::new(&recording.deployment, &record, expected, &verdict);
    print!("\n{}", report.text());
    report.write(&options.output)?;
    println!(
        "Written to {}: replicas.csv, autoscale.json, autoscale.svg",
        options.output.display()
    );
    match (&verdict, &recording.expectation) {
        (Verdict::AsExpected, Some(expectation)) => println!("As expected: {expectation}"),
        (Verdict::AsExpected, None) => {}
        (Verdict::Unexpected(why), _) => eprintln!("Not as expected: {why}"),
        (Verdict::Unobserved(why), _) => eprintln!("Not observed: {why}"),
    }
    Ok(verdict)
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
        let recording = Recording {
            deployment: options.deployment.clone(),
            ..Recording::default()
        };
        let recording = match self {
            Self::Watch { length, expect } => Recording {
                expectation: expect.expectation(),
                length,
                ends_when_decided: true,
                ..recording
            },
            Self::Run {
                until_idle,
                expect,
                traffic,
            } => Recording {
                expectation: expect.expectation(),
                traffic: Some(traffic),
                until_idle,
                ..recording
            },
            Self::Hold {
                replicas,
                hold,
                within,
                idle,
            } => Recording {
                expectation: Some(Expectation {
                    replicas,
                    within: Some(within),
                    hold: Some(hold),
                }),
                traffic: Some(steady_load(
                    target,
                    replicas,
                    idle,
                    within + 2 * hold,
                    options,
                )?),
                ends_when_decided: true,
                ..recording
            },
        };
        if target.autoscaler.is_none() && recording.traffic.is_some() {
            bail!(
                "no HorizontalPodAutoscaler targets the Deployment {} in namespace {}: make deploy adds one, with or without KEDA",
                options.deployment,
                options.namespace
            );
        }
        Ok(recording)
    }
}

/// The command whose traffic leads to this number of replicas.
fn steady_load(
    target: &Target,
    replicas: u32,
    idle: f64,
    length: Duration,
    options: &Options,
) -> Result<Vec<OsString>> {
    let url = options
        .url
        .as_deref()
        .context("hold needs the --url of the app")?;
    let autoscaler = target.autoscaler.clone().unwrap_or_default();
    let load = SteadyLoad::holding(replicas, &autoscaler, &target.deployment, idle)?;
    eprintln!("For {replicas} replicas: {load}; {idle}m is what each replica uses by itself");
    Ok(load.command(url, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in [("1m30s", 90.0), ("1.5h", 5400.0), ("500ms", 0.5)] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)));
        }
        for text in ["90", "1m 30s", "2min", "-1s", ""] {
            assert!(duration(text).is_err(), "{text:?} was taken");
        }
    }
}

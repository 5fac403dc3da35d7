//! Records what an autoscaler does with a Deployment, explains it and judges it: `make autoscale`.

mod account;
mod cluster;
mod decision;
mod expect;
mod generator;
mod live;
mod pace;
mod picture;
mod plan;
mod probe;
mod record;
mod report;
mod words;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use go_duration::GoDuration;
use tokio::{runtime::Builder, task::LocalSet};

use crate::{
    cluster::Target,
    expect::{Expectation, Verdict},
    pace::Pace,
    plan::Plan,
    probe::Probe,
    report::Report,
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
    /// Run a load, and record what follows
    Run {
        /// Then wait until there are as few replicas as there may be, this long at most
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        until_idle: Option<Duration>,
        #[command(flatten)]
        expect: Expect,
        /// The load, such as `bombardier -o json -p r -l -c 40 -d 3m http://localhost:8081`
        #[arg(last = true, required = true)]
        load: Vec<OsString>,
    },
    /// Load the app such that exactly so many replicas are wanted, and see that they stay
    Hold {
        replicas: u32,
        /// For how long there must be exactly so many
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
        hold: Duration,
        /// Since the load's start, until they are there
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
        within: Duration,
        /// What a replica uses without any load, in millicores
        #[arg(long, value_name = "MILLICORES", default_value_t = 3.0)]
        idle: f64,
    },
}

#[derive(Args)]
struct Expect {
    /// How many replicas must be ready
    #[arg(long, value_name = "REPLICAS")]
    expect: Option<u32>,
    /// Since the load's start
    #[arg(long, value_name = "DURATION", requires = "expect", value_parser = duration)]
    within: Option<Duration>,
    /// For how long there must be exactly so many
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

fn main() -> ExitCode {
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
    let plan = command.plan(&target, &options)?;
    let mut probe = None;
    if let Some(url) = &options.url {
        let asking = Probe::new(url, &options.query, options.timeout)?;
        if plan.load.is_some()
            && let Some(why) = asking.ask().await.failed
        {
            bail!("{url} does not answer: {why}");
        }
        probe = Some(asking);
    }
    let (record, verdict) = plan.record(&target, probe).await?;
    let expected = plan.expectation.as_ref().map(ToString::to_string);
    let report = Report::new(&plan.deployment, &record, expected, &verdict);
    print!("\n{}", report.text());
    report.write(&options.output)?;
    println!(
        "Written to {}: replicas.csv, autoscale.json, autoscale.svg",
        options.output.display()
    );
    match (&verdict, &plan.expectation) {
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
    fn plan(self, target: &Target, options: &Options) -> Result<Plan> {
        let plan = Plan {
            deployment: options.deployment.clone(),
            ..Plan::default()
        };
        let plan = match self {
            Self::Watch { length, expect } => Plan {
                expectation: expect.expectation(),
                length,
                ends_when_decided: true,
                ..plan
            },
            Self::Run {
                until_idle,
                expect,
                load,
            } => Plan {
                expectation: expect.expectation(),
                load: Some(load),
                until_idle,
                ..plan
            },
            Self::Hold {
                replicas,
                hold,
                within,
                idle,
            } => Plan {
                expectation: Some(Expectation {
                    replicas,
                    within: Some(within),
                    hold: Some(hold),
                }),
                load: Some(paced_load(
                    target,
                    replicas,
                    idle,
                    within + 2 * hold,
                    options,
                )?),
                ends_when_decided: true,
                ..plan
            },
        };
        if target.autoscaler.is_none() && plan.load.is_some() {
            bail!(
                "no HorizontalPodAutoscaler targets the Deployment {} in namespace {}: make deploy adds one, with or without KEDA",
                options.deployment,
                options.namespace
            );
        }
        Ok(plan)
    }
}

/// The command whose load holds so many replicas of this target.
fn paced_load(
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
    let pace = Pace::holding(replicas, &autoscaler, &target.deployment, idle)?;
    eprintln!("For {replicas} replicas: {pace}; {idle}m is what each replica uses by itself");
    Ok(pace.command(url, length))
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

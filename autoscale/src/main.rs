//! Records what an autoscaler does with a Deployment, explains it and judges it: `make autoscale`.

mod account;
mod cluster;
mod decision;
mod expect;
mod live;
mod load;
mod pace;
mod picture;
mod probe;
mod record;
mod report;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use humantime::format_duration;
use jiff::Timestamp;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::{Instant, interval, timeout},
};

use crate::{
    account::is_idle,
    cluster::Target,
    expect::{Expectation, Outlook, Verdict},
    live::Live,
    load::{Load, LoadReport},
    pace::Pace,
    probe::Probe,
    record::{Record, Seen},
    report::Report,
};

/// How long the app is watched at rest before its load begins.
const REST: Duration = Duration::from_secs(5);

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
}

#[derive(Subcommand)]
enum Command {
    /// Follow the scaling, until Ctrl-C
    Watch {
        /// End after this long
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        length: Option<Duration>,
        #[command(flatten)]
        expect: Expect,
        #[command(flatten)]
        options: Options,
    },
    /// Run a load, and record what follows
    Run {
        /// Then wait until there are as few replicas as there may be, this long at most
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        until_idle: Option<Duration>,
        #[command(flatten)]
        expect: Expect,
        #[command(flatten)]
        options: Options,
        /// The load, such as `bombardier -o json -p r -l -c 40 -d 3m http://localhost:8081`
        #[arg(last = true, required = true)]
        load: Vec<OsString>,
    },
    /// Load the app such that exactly so many replicas are wanted, and see that they stay
    Hold {
        replicas: u32,
        /// For how long there must be exactly so many
        #[arg(long = "hold", value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
        hold: Duration,
        /// Since the load's start, until they are there
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
        within: Duration,
        /// What a replica uses without any load, in millicores
        #[arg(long, value_name = "MILLICORES", default_value_t = 3.0)]
        idle: f64,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args)]
struct Expect {
    /// How many replicas must be ready
    #[arg(long, value_name = "REPLICAS")]
    expect: Option<u32>,
    /// Since the load's start
    #[arg(long, value_name = "DURATION", requires = "expect", value_parser = humantime::parse_duration)]
    within: Option<Duration>,
    /// For how long there must be exactly so many
    #[arg(long, value_name = "DURATION", requires = "expect", value_parser = humantime::parse_duration)]
    hold: Option<Duration>,
}

impl Expect {
    fn expectation(&self) -> Option<Expectation> {
        let Self {
            expect,
            within,
            hold,
        } = *self;
        Some(Expectation {
            replicas: expect?,
            within,
            hold,
        })
    }
}

#[derive(Args)]
struct Options {
    #[arg(long, default_value = "default")]
    namespace: String,
    #[arg(long, default_value = "keda-spinapp")]
    deployment: String,
    /// The app, which is asked once a second how long an answer takes
    #[arg(long)]
    url: Option<String>,
    /// The query of these requests, which should cost next to nothing
    #[arg(long, default_value = "iterations=0")]
    query: String,
    /// How long one of them may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The folder for replicas.csv, autoscale.json and autoscale.svg
    #[arg(long, value_name = "FOLDER", default_value = "target/autoscale")]
    output: PathBuf,
}

/// What is done, once the command line is understood.
struct Plan {
    options: Options,
    load: Option<Vec<OsString>>,
    expectation: Option<Expectation>,
    length: Option<Duration>,
    until_idle: Option<Duration>,
    /// Whether it is over as soon as the expectation is met or missed.
    ends_when_decided: bool,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| LocalSet::new().block_on(&runtime, run(command)));
    match result {
        Ok(Verdict::AsExpected) => ExitCode::SUCCESS,
        Ok(verdict) => verdict.status().into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command) -> Result<Verdict> {
    // Both HTTP clients take their cryptography from here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (options, is_watch) = match &command {
        Command::Watch { options, .. } => (options, true),
        Command::Run { options, .. } | Command::Hold { options, .. } => (options, false),
    };
    let target = Target::find(&options.namespace, &options.deployment).await?;
    if target.autoscaler.is_none() && !is_watch {
        bail!(
            "no HorizontalPodAutoscaler targets the Deployment {} in namespace {}: make deploy adds one, with or without KEDA",
            options.deployment,
            options.namespace
        );
    }
    let plan = command.plan(&target)?;
    let probe = plan.options.url.as_deref();
    let probe = probe
        .map(|url| Probe::new(url, &plan.options.query, plan.options.timeout))
        .transpose()?;
    if let (Some(probe), Some(_)) = (&probe, &plan.load)
        && let Some(why) = probe.ask().await.failed
    {
        bail!(
            "{} does not answer: {why}",
            plan.options.url.unwrap_or_default()
        );
    }
    let (record, verdict) = plan.record(&target, probe).await?;
    let expected = plan.expectation.as_ref().map(ToString::to_string);
    let Options {
        namespace,
        deployment,
        output,
        ..
    } = &plan.options;
    let report = Report::new(namespace, deployment, &record, expected, &verdict);
    print!("\n{}", report.text());
    report.write(output)?;
    println!(
        "Written to {}: replicas.csv, autoscale.json, autoscale.svg",
        output.display()
    );
    match (&verdict, &plan.expectation) {
        (Verdict::AsExpected, Some(expectation)) => println!("As expected: {expectation}"),
        (Verdict::AsExpected, None) => {}
        (Verdict::Unexpected(why), _) => eprintln!("Not as expected: {why}"),
        (Verdict::Unobserved(why), _) => eprintln!("Not observed: {why}"),
    }
    Ok(verdict)
}

impl Command {
    fn plan(self, target: &Target) -> Result<Plan> {
        Ok(match self {
            Self::Watch {
                length,
                expect,
                options,
            } => Plan {
                expectation: expect.expectation(),
                load: None,
                length,
                until_idle: None,
                ends_when_decided: expect.expect.is_some(),
                options,
            },
            Self::Run {
                until_idle,
                expect,
                options,
                load,
            } => Plan {
                expectation: expect.expectation(),
                load: Some(load),
                length: None,
                until_idle,
                ends_when_decided: false,
                options,
            },
            Self::Hold {
                replicas,
                hold,
                within,
                idle,
                options,
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
                    &options,
                )?),
                length: None,
                until_idle: None,
                ends_when_decided: true,
                options,
            },
        })
    }
}

/// bombardier, with the pace that holds so many replicas of this target.
fn paced_load(
    target: &Target,
    replicas: u32,
    idle: f64,
    length: Duration,
    options: &Options,
) -> Result<Vec<OsString>> {
    let Some(url) = &options.url else {
        bail!("hold needs the --url of the app")
    };
    let mut state = record::State::default();
    state.deployment = Some(target.deployment.clone());
    state.autoscaler = target.autoscaler.clone();
    let (Some(autoscaler), Some(millicores)) = (&target.autoscaler, state.target_millicores())
    else {
        bail!("the autoscaler has no CPU target, or the pods request no CPU to compare it with");
    };
    let pace = Pace::holding(replicas, millicores, idle, &autoscaler.rules)?;
    eprintln!(
        "{replicas} replicas of {millicores}m each: {} connections of {} ({}m, and {idle}m that each replica uses by itself)",
        pace.connections,
        pace.query(),
        pace.total()
    );
    let url = format!("{}/?{}", url.trim_end_matches('/'), pace.query());
    let command = [
        "bombardier",
        "-o",
        "json",
        "-p",
        "r",
        "-l",
        "-t",
        "60s",
        "-c",
        &pace.connections.to_string(),
        "-d",
        &format!("{}s", length.as_secs()),
        &url,
    ];
    Ok(command.map(OsString::from).to_vec())
}

/// Why a recording is over.
enum End {
    Done,
    Interrupted,
    DeploymentGone,
}

impl Plan {
    async fn record(&self, target: &Target, probe: Option<Probe>) -> Result<(Record, Verdict)> {
        let (seen, mut news) = mpsc::unbounded_channel();
        let began = Instant::now();
        let mut record = Record::new(Timestamp::now());
        let mut live = Live::new();
        target.watch(&seen);
        if let Some(probe) = probe {
            tokio::task::spawn_local(probe.run(seen.clone()));
        }
        let (stop_load, load_is_to_stop) = oneshot::channel::<()>();
        let mut stop_load = Some(stop_load);
        if let Some(command) = self.load.clone() {
            tokio::task::spawn_local(run_load(command, load_is_to_stop, seen.clone()));
        }
        let mut ticks = interval(Duration::from_millis(500));
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut end = None;
        loop {
            tokio::select! {
                Some(one) = news.recv() => {
                    let now = began.elapsed().as_secs_f64();
                    if matches!(one, Seen::DeploymentGone) {
                        end.get_or_insert(End::DeploymentGone);
                    }
                    live.tell(&record, now, &one);
                    record.add(now, one);
                    live.show(&record, now, &self.waiting_for(&record, now));
                }
                _ = ticks.tick() => {
                    let now = began.elapsed().as_secs_f64();
                    live.show(&record, now, &self.waiting_for(&record, now));
                }
                _ = interrupt.recv() => { end.get_or_insert(End::Interrupted); }
                _ = terminate.recv() => { end.get_or_insert(End::Interrupted); }
                _ = hang_up.recv() => { end.get_or_insert(End::Interrupted); }
            }
            if end.is_none() && self.is_over(&record, began.elapsed().as_secs_f64()) {
                end = Some(End::Done);
            }
            if end.is_some() {
                // A load that runs is asked to end, and its report awaited.
                drop(stop_load.take());
                let runs = record.load().is_some() && record.load_report().is_none();
                if !runs {
                    break;
                }
            }
        }
        live.end();
        let verdict = self.verdict(&record, end, began.elapsed().as_secs_f64());
        Ok((record, verdict))
    }

    fn outlook(&self, record: &Record, now: f64) -> Option<Outlook> {
        self.expectation
            .as_ref()
            .map(|expectation| expectation.outlook(record, now))
    }

    fn is_over(&self, record: &Record, now: f64) -> bool {
        let decided = self
            .outlook(record, now)
            .map(|outlook| outlook != Outlook::Pending);
        if self.ends_when_decided && decided == Some(true) {
            return true;
        }
        if self.load.is_none() {
            return self
                .length
                .is_some_and(|length| now >= length.as_secs_f64());
        }
        let Some(report) = record.load_report() else {
            return false;
        };
        let Some((_, ended)) = record.load() else {
            return report.failed.is_some();
        };
        let Some(until_idle) = self.until_idle else {
            return true;
        };
        report.failed.is_some()
            || matches!(self.outlook(record, now), Some(Outlook::Missed(_)))
            || is_idle(&record.now)
            || now >= ended + until_idle.as_secs_f64()
    }

    fn waiting_for(&self, record: &Record, now: f64) -> String {
        let has_ended = record.load_report().is_some();
        match self.outlook(record, now) {
            _ if self.load.is_some() && record.load().is_none() => {
                "the load is about to begin".into()
            }
            Some(Outlook::Pending) if !has_ended => {
                format!(
                    "waiting for {}",
                    self.expectation.as_ref().expect("it is pending")
                )
            }
            _ if self.load.is_some() && !has_ended => "waiting for the end of the load".into(),
            _ if self.load.is_some() => "waiting for as few replicas as there may be".into(),
            _ => match self.length {
                Some(length) => format!("for {}", format_duration(length)),
                None => "until Ctrl-C".into(),
            },
        }
    }

    fn verdict(&self, record: &Record, end: Option<End>, now: f64) -> Verdict {
        let Record { now: state, .. } = record;
        let outlook = self.outlook(record, now);
        let load = record.load_report();
        if let Some(why) = load.and_then(|load| load.failed.clone()) {
            return Verdict::Unobserved(why);
        }
        match end {
            Some(End::DeploymentGone) => {
                return Verdict::Unobserved(format!(
                    "the Deployment {} was deleted",
                    self.options.deployment
                ));
            }
            Some(End::Interrupted) if self.load.is_some() || outlook == Some(Outlook::Pending) => {
                return Verdict::Unobserved("it was interrupted".into());
            }
            _ => {}
        }
        match (&self.expectation, outlook) {
            (_, Some(Outlook::Missed(instead))) => return Verdict::Unexpected(instead),
            (Some(expectation), Some(Outlook::Pending)) => {
                return Verdict::Unexpected(expectation.instead(record, now));
            }
            _ => {}
        }
        if let Some(counted) = load.and_then(|load| load.bombardier.as_ref()) {
            match (counted.answers(), counted.not_2xx()) {
                (0, _) => return Verdict::Unexpected("the load got no answer".into()),
                (_, 0) => {}
                (all, failed) => {
                    return Verdict::Unexpected(format!(
                        "{failed} of {all} requests of the load were not answered with 2xx"
                    ));
                }
            }
        }
        if let Some(limit) = self.until_idle
            && !is_idle(state)
        {
            let left = state
                .deployment
                .as_ref()
                .map_or(0, |deployment| deployment.existing);
            let limit = format_duration(limit);
            return Verdict::Unexpected(format!(
                "{left} replicas were left {limit} after the load"
            ));
        }
        Verdict::AsExpected
    }
}

async fn run_load(
    command: Vec<OsString>,
    mut stop: oneshot::Receiver<()>,
    seen: mpsc::UnboundedSender<Seen>,
) {
    if timeout(REST, &mut stop).await.is_ok() {
        return;
    }
    let report = match Load::start(&command) {
        Ok(load) => {
            let _ = seen.send(Seen::LoadStarted);
            load.finish(async { _ = stop.await }).await
        }
        Err(why) => LoadReport {
            failed: Some(why),
            bombardier: None,
            output: String::new(),
        },
    };
    let _ = seen.send(Seen::LoadEnded(report));
}

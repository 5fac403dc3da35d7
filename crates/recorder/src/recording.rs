//! What a recording does and when it is over: what is seen until then goes into the record, and is judged.

use std::{ffi::OsString, time::Duration};

use anyhow::Result;
use humantime::format_duration;
use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::spawn_local,
    time::{Instant, interval, timeout},
};

use crate::{
    account::is_idle,
    cluster::Target,
    expect::{Expectation, Outlook, Verdict},
    generator::{Generator, LoadReport},
    live::Live,
    probe::Probe,
    record::{Record, Seen},
};

/// How long the app is watched at rest before its load begins.
const REST: Duration = Duration::from_secs(5);

/// What is done, and when it is over.
#[derive(Default)]
pub struct Plan {
    pub deployment: String,
    /// The command, where there is a load.
    pub load: Option<Vec<OsString>>,
    pub expectation: Option<Expectation>,
    /// When it ends, where there is no load.
    pub length: Option<Duration>,
    /// How long it goes on after the load, for as few replicas as there may be.
    pub until_idle: Option<Duration>,
    /// Whether it is over as soon as the expectation is met or missed.
    pub ends_when_decided: bool,
}

/// Why a recording is over.
enum End {
    Done,
    Interrupted,
    DeploymentGone,
}

impl Plan {
    /// Records until it is over, and judges what was seen.
    pub async fn record(&self, target: &Target, probe: Option<Probe>) -> Result<(Record, Verdict)> {
        let (seen, mut news) = mpsc::unbounded_channel();
        let began = Instant::now();
        let mut record = Record::new(Timestamp::now());
        let mut live = Live::new();
        target.watch(&seen);
        if let Some(probe) = probe {
            spawn_local(probe.run(seen.clone()));
        }
        let (stop_load, load_is_to_stop) = oneshot::channel::<()>();
        let mut stop_load = Some(stop_load);
        if let Some(command) = self.load.clone() {
            spawn_local(run_load(command, load_is_to_stop, seen.clone()));
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
                    self.deployment
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
    let report = match Generator::start(&command) {
        Ok(generator) => {
            let _ = seen.send(Seen::LoadStarted);
            generator.finish(async { _ = stop.await }).await
        }
        Err(why) => LoadReport {
            failed: Some(why),
            bombardier: None,
            output: String::new(),
        },
    };
    let _ = seen.send(Seen::LoadEnded(report));
}

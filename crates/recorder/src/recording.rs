//! Runs a recording until it is over, and evaluates the record.

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
    analysis::is_idle,
    cluster::Target,
    expectation::{Evaluation, Expectation, Verdict},
    probe::Probe,
    progress::Progress,
    record::{ObservationKind, Record},
    traffic::{Traffic, TrafficResult, label},
};

/// How long the app is observed at rest before the traffic starts.
const REST: Duration = Duration::from_secs(5);

/// What to record, and when to stop.
#[derive(Default)]
pub struct Recording {
    pub deployment: String,
    /// The command that sends the traffic, if any.
    pub traffic: Option<Vec<OsString>>,
    pub expectation: Option<Expectation>,
    /// When it ends if there is no traffic.
    pub length: Option<Duration>,
    /// How long to wait after the traffic for the minimum number of replicas.
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

impl Recording {
    /// Records until it is over, and evaluates the record.
    pub async fn record(&self, target: &Target, probe: Option<Probe>) -> Result<(Record, Verdict)> {
        let (seen, mut news) = mpsc::unbounded_channel();
        let began = Instant::now();
        let mut record = Record::new(Timestamp::now());
        let mut progress = Progress::new();
        target.watch(&seen);
        if let Some(probe) = probe {
            spawn_local(probe.run(seen.clone()));
        }
        let (stop_traffic, traffic_stops) = oneshot::channel::<()>();
        let mut stop_traffic = Some(stop_traffic);
        if let Some(command) = self.traffic.clone() {
            spawn_local(run_traffic(command, traffic_stops, seen.clone()));
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
                    if matches!(one, ObservationKind::DeploymentGone) {
                        end.get_or_insert(End::DeploymentGone);
                    }
                    progress.tell(&record, now, &one);
                    record.add(now, one);
                    progress.show(&record, now, &self.waiting_for(&record, now));
                }
                _ = ticks.tick() => {
                    let now = began.elapsed().as_secs_f64();
                    progress.show(&record, now, &self.waiting_for(&record, now));
                }
                _ = interrupt.recv() => { end.get_or_insert(End::Interrupted); }
                _ = terminate.recv() => { end.get_or_insert(End::Interrupted); }
                _ = hang_up.recv() => { end.get_or_insert(End::Interrupted); }
            }
            if end.is_none() && self.is_over(&record, began.elapsed().as_secs_f64()) {
                end = Some(End::Done);
            }
            if end.is_some() {
                // Traffic that runs is asked to stop, and its result awaited.
                drop(stop_traffic.take());
                let runs = record.traffic_span().is_some() && record.traffic_result().is_none();
                if !runs {
                    break;
                }
            }
        }
        progress.end();
        let verdict = self.verdict(&record, end, began.elapsed().as_secs_f64());
        Ok((record, verdict))
    }

    fn evaluate(&self, record: &Record, now: f64) -> Option<Evaluation> {
        self.expectation
            .as_ref()
            .map(|expectation| expectation.evaluate(record, now))
    }

    fn is_over(&self, record: &Record, now: f64) -> bool {
        let decided = self
            .evaluate(record, now)
            .map(|evaluation| evaluation != Evaluation::Pending);
        if self.ends_when_decided && decided == Some(true) {
            return true;
        }
        if self.traffic.is_none() {
            return self
                .length
                .is_some_and(|length| now >= length.as_secs_f64());
        }
        let Some(report) = record.traffic_result() else {
            return false;
        };
        let Some((_, ended)) = record.traffic_span() else {
            return report.failed.is_some();
        };
        let Some(until_idle) = self.until_idle else {
            return true;
        };
        report.failed.is_some()
            || matches!(self.evaluate(record, now), Some(Evaluation::Missed(_)))
            || is_idle(&record.state)
            || now >= ended + until_idle.as_secs_f64()
    }

    fn waiting_for(&self, record: &Record, now: f64) -> String {
        let has_ended = record.traffic_result().is_some();
        match self.evaluate(record, now) {
            _ if self.traffic.is_some() && record.traffic_span().is_none() => {
                "the traffic is about to start".into()
            }
            Some(Evaluation::Pending) if !has_ended => {
                format!(
                    "waiting for {}",
                    self.expectation.as_ref().expect("it is pending")
                )
            }
            _ if self.traffic.is_some() && !has_ended => {
                "waiting for the end of the traffic".into()
            }
            _ if self.traffic.is_some() => "waiting for the minimum number of replicas".into(),
            _ => match self.length {
                Some(length) => format!("for {}", format_duration(length)),
                None => "until Ctrl-C".into(),
            },
        }
    }

    fn verdict(&self, record: &Record, end: Option<End>, now: f64) -> Verdict {
        let Record { state, .. } = record;
        let evaluation = self.evaluate(record, now);
        let traffic = record.traffic_result();
        if let Some(why) = traffic.and_then(|traffic| traffic.failed.clone()) {
            return Verdict::Unobserved(why);
        }
        match end {
            Some(End::DeploymentGone) => {
                return Verdict::Unobserved(format!(
                    "the Deployment {} was deleted",
                    self.deployment
                ));
            }
            Some(End::Interrupted)
                if self.traffic.is_some() || evaluation == Some(Evaluation::Pending) =>
            {
                return Verdict::Unobserved("it was interrupted".into());
            }
            _ => {}
        }
        match (&self.expectation, evaluation) {
            (_, Some(Evaluation::Missed(instead))) => return Verdict::Unexpected(instead),
            (Some(expectation), Some(Evaluation::Pending)) => {
                return Verdict::Unexpected(expectation.instead(record, now));
            }
            _ => {}
        }
        if let Some(counted) = traffic.and_then(|traffic| traffic.bombardier.as_ref()) {
            match (counted.answers(), counted.not_2xx()) {
                (0, _) => return Verdict::Unexpected("the traffic got no answer".into()),
                (_, 0) => {}
                (all, failed) => {
                    return Verdict::Unexpected(format!(
                        "{failed} of {all} requests of the traffic were not answered with 2xx"
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
                "{left} replicas were left {limit} after the traffic"
            ));
        }
        Verdict::AsExpected
    }
}

async fn run_traffic(
    command: Vec<OsString>,
    mut stop: oneshot::Receiver<()>,
    seen: mpsc::UnboundedSender<ObservationKind>,
) {
    if timeout(REST, &mut stop).await.is_ok() {
        return;
    }
    let report = match Traffic::start(&command) {
        Ok(traffic) => {
            let _ = seen.send(ObservationKind::TrafficStarted(label(&command)));
            traffic.finish(async { _ = stop.await }).await
        }
        Err(why) => TrafficResult {
            failed: Some(why),
            bombardier: None,
            output: String::new(),
        },
    };
    let _ = seen.send(ObservationKind::TrafficEnded(report));
}

//! Runs a recording until it is over, and evaluates the record.

use std::{ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result};
use humantime::format_duration;
use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::spawn_local,
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    analysis::is_idle,
    cluster::Target,
    expectation::{Evaluation, Expectation, Verdict},
    format::replicas,
    hold::Hold,
    observations::{Header, Log, RawObservation},
    probe::Probe,
    progress::Progress,
    record::{ObservationKind, Record},
    report::conclusion,
    serve::Page,
    traffic::{self, Traffic, TrafficResult},
};

/// How long the app is observed at rest before the traffic starts.
const REST: Duration = Duration::from_secs(5);

/// The subject of a recording, and when it ends.
pub struct Recording {
    pub deployment: String,
    pub expectation: Option<Expectation>,
    pub mode: Mode,
    /// The address of a page that shows it.
    pub serve: Option<SocketAddr>,
}

pub enum Mode {
    /// Observe until the expectation is met or missed, and at most this long; otherwise until Ctrl-C.
    Watch { duration: Option<Duration> },
    /// Send traffic until its command ends, then wait at most `until_idle` for the minimum number of replicas.
    Run {
        command: Vec<OsString>,
        until_idle: Option<Duration>,
    },
    /// Send steady loads to a URL until the expectation is met or missed; each ends by itself after `limit`.
    Hold {
        hold: Hold,
        url: String,
        limit: Duration,
    },
}

/// Why a recording is over.
enum End {
    Done,
    Interrupted,
    DeploymentGone,
    /// The name of the ScaledObject.
    Paused(String),
}

impl Recording {
    /// Records until it is over, and evaluates the record. `observations.jsonl` in the folder has each observation as
    /// soon as it is made.
    pub async fn record(
        mut self,
        target: &Target,
        probe: Option<Probe>,
        folder: &Path,
    ) -> Result<(Header, Record)> {
        let (sender, mut observations) = unbounded_channel();
        let began = Instant::now();
        let mut record = Record::new(Timestamp::now());
        let page = self.page(record.began).await?;
        let mut header = Header {
            began: record.began,
            deployment: self.deployment.clone(),
            expected: self.expectation.as_ref().map(ToString::to_string),
            verdict: Verdict::Unobserved("the recorder was killed or failed".into()),
        };
        fs::create_dir_all(folder)
            .with_context(|| format!("the folder {} cannot be created", folder.display()))?;
        let path = folder.join("observations.jsonl");
        let unwritable = || format!("{} cannot be written", path.display());
        let mut log = Log::create(&path, &header).with_context(unwritable)?;
        let mut progress = Progress::default();
        target.watch(&sender);
        if let Some(probe) = probe {
            spawn_local(probe.run(sender.clone()));
        }
        let stop = CancellationToken::new();
        let mut traffic = stop.child_token();
        if let Some((command, label)) = self.mode.traffic() {
            spawn_local(send_traffic(
                command,
                label,
                REST,
                traffic.clone(),
                sender.clone(),
            ));
        }
        let mut ticks = interval(Duration::from_millis(500));
        let (found_paused, mut paused) = unbounded_channel();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut end = None;
        loop {
            tokio::select! {
                Some(seen) = observations.recv() => {
                    let now = began.elapsed();
                    log.add(now.as_secs_f64(), &seen)
                        .with_context(unwritable)?;
                    let kind = seen.into();
                    match kind {
                        ObservationKind::DeploymentGone => {
                            end.get_or_insert(End::DeploymentGone);
                        }
                        ObservationKind::AutoscalerGone(_) => {
                            let (check, found) = (target.paused(), found_paused.clone());
                            // The recording may have ended meanwhile.
                            spawn_local(async move { check.await.map(|name| found.send(name)) });
                        }
                        _ => {}
                    }
                    progress.report(&record, now, &kind);
                    if let Some(page) = &page {
                        page.observe(now.as_secs_f64(), &kind);
                    }
                    record.add(now.as_secs_f64(), kind);
                }
                _ = ticks.tick() => {}
                Some(name) = paused.recv() => { end.get_or_insert(End::Paused(name)); }
                _ = interrupt.recv() => { end.get_or_insert(End::Interrupted); }
                _ = terminate.recv() => { end.get_or_insert(End::Interrupted); }
                _ = hang_up.recv() => { end.get_or_insert(End::Interrupted); }
            }
            let now = began.elapsed();
            let evaluation = self.evaluate(&record, now);
            let waiting_for = self.waiting_for(&record, &evaluation);
            progress.show(&record, now, &waiting_for);
            if let Some(page) = &page {
                page.show(now.as_secs_f64(), &self.status(&evaluation, &waiting_for));
            }
            if end.is_none() && self.is_over(&record, &evaluation, now) {
                end = Some(End::Done);
            }
            let runs = record.traffic_span().is_some() && record.traffic_result().is_none();
            if end.is_some() {
                // Traffic that runs is asked to stop, and its result awaited.
                stop.cancel();
                if !runs {
                    break;
                }
            } else if let Mode::Hold { hold, .. } = &mut self.mode {
                if runs && !traffic.is_cancelled() {
                    if let Some(why) = hold.observe(&record, now) {
                        progress.say(&format!("{why}: {}", hold.load()));
                        traffic.cancel();
                    }
                } else if traffic.is_cancelled() && !runs {
                    traffic = stop.child_token();
                    let (command, label) = self.mode.traffic().expect("it holds");
                    spawn_local(send_traffic(
                        command,
                        label,
                        Duration::ZERO,
                        traffic.clone(),
                        sender.clone(),
                    ));
                }
            }
        }
        progress.end();
        header.verdict = self.verdict(&record, end, began.elapsed());
        log.finish(&path, &header).with_context(unwritable)?;
        if let Some(page) = page {
            page.end(&conclusion(&header.verdict).unwrap_or("The recording has ended".into()))
                .await;
        }
        Ok((header, record))
    }

    async fn page(&self, began: Timestamp) -> Result<Option<Page>> {
        let Some(address) = self.serve else {
            return Ok(None);
        };
        let served = Page::serve(address, &self.deployment, began).await;
        let (page, address) = served.with_context(|| format!("cannot serve at {address}"))?;
        eprintln!("Serving http://{address}/ until the recording ends");
        Ok(Some(page))
    }

    /// The verdict so far, and the condition that the recording waits for.
    fn status(&self, evaluation: &Option<Evaluation>, waiting_for: &str) -> String {
        match (&self.expectation, evaluation) {
            (Some(expectation), Some(Evaluation::Met(_) | Evaluation::MetBefore)) => {
                format!("as expected so far: {expectation}; {waiting_for}")
            }
            (_, Some(Evaluation::Missed(why))) => format!("not as expected: {why}; {waiting_for}"),
            _ => waiting_for.into(),
        }
    }

    fn evaluate(&self, record: &Record, now: Duration) -> Option<Evaluation> {
        let expectation = self.expectation.as_ref()?;
        if !matches!(self.mode, Mode::Watch { .. }) && record.traffic_span().is_none() {
            return Some(Evaluation::Pending);
        }
        Some(expectation.evaluate(record, now))
    }

    fn is_over(&self, record: &Record, evaluation: &Option<Evaluation>, now: Duration) -> bool {
        let is_decided = evaluation
            .as_ref()
            .is_some_and(|one| *one != Evaluation::Pending);
        let result = record.traffic_result();
        let has_failed = result.is_some_and(|result| result.failed.is_some());
        match &self.mode {
            Mode::Watch { duration } => {
                is_decided || duration.is_some_and(|duration| now >= duration)
            }
            Mode::Hold { .. } => is_decided || has_failed,
            Mode::Run { until_idle, .. } => {
                let ended = record.traffic_span().map_or(0.0, |(_, end)| end);
                let waited = now.saturating_sub(Duration::from_secs_f64(ended));
                let is_idle = |limit: &Duration| {
                    matches!(evaluation, Some(Evaluation::Missed(_)))
                        || is_idle(&record.state)
                        || waited >= *limit
                };
                has_failed || result.is_some() && until_idle.as_ref().is_none_or(is_idle)
            }
        }
    }

    fn waiting_for(&self, record: &Record, evaluation: &Option<Evaluation>) -> String {
        let has_ended = record.traffic_result().is_some();
        match (&self.mode, &self.expectation) {
            (Mode::Run { .. } | Mode::Hold { .. }, _) if record.traffic_span().is_none() => {
                "the traffic is about to start".into()
            }
            (_, Some(expectation)) if *evaluation == Some(Evaluation::Pending) && !has_ended => {
                format!("waiting for {expectation}")
            }
            (Mode::Run { .. }, _) if has_ended => {
                "waiting for the minimum number of replicas".into()
            }
            (Mode::Run { .. } | Mode::Hold { .. }, _) => {
                "waiting for the end of the traffic".into()
            }
            (
                Mode::Watch {
                    duration: Some(duration),
                },
                _,
            ) => {
                format!("for {}", format_duration(*duration))
            }
            (Mode::Watch { duration: None }, _) => "until Ctrl-C".into(),
        }
    }

    fn verdict(&self, record: &Record, end: Option<End>, now: Duration) -> Verdict {
        let evaluation = self.evaluate(record, now);
        let result = record.traffic_result();
        if let Some(why) = result.and_then(|result| result.failed.clone()) {
            return Verdict::Unobserved(why);
        }
        let bombardier = result.and_then(|result| result.bombardier.as_ref());
        if bombardier.is_some_and(|counted| counted.req2xx == 0) {
            return Verdict::Unexpected("no request of the traffic got a 2xx response".into());
        }
        let is_pending = evaluation == Some(Evaluation::Pending);
        let is_watch = matches!(self.mode, Mode::Watch { .. });
        match end {
            Some(End::DeploymentGone) => {
                let name = &self.deployment;
                return Verdict::Unobserved(format!("the Deployment {name} was deleted"));
            }
            Some(End::Paused(name)) => return Verdict::Unobserved(paused(&name)),
            Some(End::Interrupted) if !is_watch || is_pending => {
                return Verdict::Unobserved("it was interrupted".into());
            }
            _ => {}
        }
        let met = match (&self.expectation, evaluation) {
            (_, Some(Evaluation::Missed(instead))) => return Verdict::Unexpected(instead),
            (Some(expectation), Some(Evaluation::Pending)) => {
                return Verdict::Unexpected(expectation.describe_miss(record, now));
            }
            (Some(expectation), Some(Evaluation::MetBefore)) => Some(format!(
                "{expectation}; already so before the traffic started"
            )),
            (Some(expectation), Some(Evaluation::Met(after))) => {
                Some(format!("{expectation}; after {:.0} s", after.as_secs_f64()))
            }
            _ => None,
        };
        // A hold removes pods on purpose, with the requests that run on them.
        if let Some(counted) = bombardier
            && counted.not_2xx() > 0
            && !matches!(self.mode, Mode::Hold { .. })
        {
            return Verdict::Unexpected(format!(
                "{} of {} requests of the traffic got no 2xx response",
                counted.not_2xx(),
                counted.answers()
            ));
        }
        if let Mode::Run {
            until_idle: Some(limit),
            ..
        } = &self.mode
            && !is_idle(&record.state)
        {
            let deployment = record.state.deployment.as_ref();
            let left = deployment.map_or(0, |deployment| deployment.existing);
            let limit = format_duration(*limit);
            return Verdict::Unexpected(format!(
                "there were still {} {limit} after the traffic",
                replicas(left)
            ));
        }
        Verdict::AsExpected(met)
    }
}

impl Mode {
    /// The command that sends the traffic now, and its label.
    fn traffic(&self) -> Option<(Vec<OsString>, String)> {
        match self {
            Self::Watch { .. } => None,
            Self::Run { command, .. } => Some((command.clone(), traffic::label(command))),
            Self::Hold { hold, url, limit } => {
                let load = hold.load();
                Some((load.command(url, *limit), load.to_string()))
            }
        }
    }
}

/// The error that there is no autoscaler because its ScaledObject is paused, with the remedy.
pub fn paused(scaled_object: &str) -> String {
    format!(
        "the ScaledObject {scaled_object} is paused, so nothing scales the Deployment; remove its annotation \
         autoscaling.keda.sh/paused or autoscaling.keda.sh/paused-replicas"
    )
}

async fn send_traffic(
    command: Vec<OsString>,
    label: String,
    rest: Duration,
    stop: CancellationToken,
    observations: UnboundedSender<RawObservation>,
) {
    if stop.run_until_cancelled(sleep(rest)).await.is_none() {
        return;
    }
    let result = match Traffic::start(&command) {
        Ok(running) => {
            let _ = observations.send(RawObservation::LoadStarted(label.into()));
            running.finish(&stop).await
        }
        Err(why) => TrafficResult::failed(why),
    };
    let _ = observations.send(RawObservation::LoadEnded(Box::new(result)));
}

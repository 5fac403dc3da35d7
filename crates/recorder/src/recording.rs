//! Runs a recording until it is over, and evaluates the record.

use std::{ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::spawn_local,
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    analysis::{Phase, is_idle},
    cluster::Target,
    expectation::{Evaluation, Expectation, Verdict},
    format::{self, replicas},
    hold::Hold,
    notes::unscaled,
    observations::{Header, Log, RawObservation},
    probe::Probe,
    progress::Progress,
    record::{ObservationKind, Record},
    report::conclusion,
    rules::Flags,
    serve::Page,
    traffic::{self, Traffic, TrafficResult},
};

/// How long the app is observed at rest before the traffic starts.
const REST: Duration = Duration::from_secs(5);
/// How long there may be no autoscaler until traffic is stopped, in seconds: it may be replaced.
const UNSCALED: f64 = 10.0;

/// The subject of a recording, and when it ends.
pub struct Recording {
    pub deployment: String,
    pub expectation: Option<Expectation>,
    pub mode: Mode,
    pub flags: Flags,
    /// The address of a page that shows it.
    pub serve: Option<SocketAddr>,
}

pub enum Mode {
    /// Observe until the expectation is met or missed, and at most this long; otherwise until
    /// Ctrl-C.
    Watch { duration: Option<Duration> },
    /// Send traffic until its command ends, then wait at most `until_idle` for the minimum number
    /// of replicas.
    Run {
        command: Vec<OsString>,
        until_idle: Option<Duration>,
    },
    /// Send steady loads to a URL until the expectation is met or missed; each ends by itself after
    /// `limit`.
    Hold {
        hold: Hold,
        url: String,
        limit: Duration,
    },
}

/// Why a recording is over.
#[derive(Clone, Copy)]
enum End {
    Done,
    Interrupted,
    DeploymentGone,
    AutoscalerGone,
}

/// A recording that runs.
struct Session {
    recording: Recording,
    began: Instant,
    record: Record,
    progress: Progress,
    observations: UnboundedSender<RawObservation>,
    /// Cancelled by a signal.
    interrupted: CancellationToken,
    /// Stops all traffic.
    stop: CancellationToken,
    /// Stops the traffic that is being sent.
    stop_load: CancellationToken,
    /// When an autoscaler was last deleted, in seconds since the recording began.
    unscaled: Option<f64>,
    end: Option<End>,
}

impl Recording {
    /// Records until it is over, and evaluates the record. `observations.jsonl` in the folder has
    /// each observation as soon as it is made.
    pub async fn record(
        self,
        target: &Target,
        probe: Option<Probe>,
        folder: &Path,
    ) -> Result<(Header, Record)> {
        let (sender, mut observations) = unbounded_channel();
        let mut session = Session::new(self, sender.clone())?;
        let page = session.page().await?;
        let mut header = session.header();
        fs::create_dir_all(folder)
            .with_context(|| format!("the folder {} cannot be created", folder.display()))?;
        let path = folder.join("observations.jsonl");
        let unwritable = || format!("{} cannot be written", path.display());
        let mut log = Log::create(&path, &header).with_context(unwritable)?;
        target.watch(&sender);
        if let Some(probe) = probe {
            spawn_local(probe.run(sender));
        }
        session.send_traffic(REST);
        let mut ticks = interval(Duration::from_millis(500));
        while !session.is_over() {
            tokio::select! {
                Some(seen) = observations.recv() => {
                    let at = session.began.elapsed().as_secs_f64();
                    log.add(at, &seen).with_context(unwritable)?;
                    let kind = seen.into();
                    if let Some(page) = &page {
                        page.observe(at, &kind);
                    }
                    session.observe(at, kind);
                }
                _ = ticks.tick() => {}
            }
            let status = session.tick();
            if let Some(page) = &page {
                page.show(session.began.elapsed().as_secs_f64(), &status);
            }
        }
        session.progress.end();
        header.verdict = session.verdict();
        log.finish(&path, &header).with_context(unwritable)?;
        if let Some(page) = page {
            page.end(&conclusion(&header.verdict).unwrap_or("The recording has ended".into()))
                .await;
        }
        Ok((header, session.record))
    }
}

impl Session {
    fn new(recording: Recording, observations: UnboundedSender<RawObservation>) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut record = Record::new(Timestamp::now());
        record.flags = recording.flags;
        Ok(Self {
            recording,
            began: Instant::now(),
            record,
            progress: Progress::default(),
            observations,
            interrupted: interrupted()?,
            stop_load: stop.child_token(),
            stop,
            unscaled: None,
            end: None,
        })
    }

    async fn page(&self) -> Result<Option<Page>> {
        let Some(address) = self.recording.serve else {
            return Ok(None);
        };
        let served = Page::serve(address, &self.recording.deployment, self.record.clone()).await;
        let (page, address) = served.with_context(|| format!("cannot serve at {address}"))?;
        eprintln!("Serving http://{address}/ until the recording ends");
        Ok(Some(page))
    }

    fn header(&self) -> Header {
        Header {
            began: self.record.began,
            deployment: self.recording.deployment.clone(),
            expected: self.recording.expectation.as_ref().map(ToString::to_string),
            flags: self.recording.flags,
            verdict: Verdict::Unobserved("the recorder was killed or failed".into()),
        }
    }

    fn observe(&mut self, at: f64, kind: ObservationKind) {
        self.progress.report(&self.record, at, &kind);
        match kind {
            ObservationKind::DeploymentGone => self.end = self.end.or(Some(End::DeploymentGone)),
            ObservationKind::AutoscalerGone(_) => self.unscaled = Some(at),
            _ => {}
        }
        self.record.add(at, kind);
    }

    /// Shows the progress and sends the next load, or stops the traffic if the recording ends.
    /// Returns the status.
    fn tick(&mut self) -> String {
        let now = self.began.elapsed();
        let evaluation = self.evaluation(now);
        let status = self.status(&evaluation);
        self.progress.show(&self.record, now.as_secs_f64(), &status);
        self.end = self.end.or_else(|| self.is_ending(&evaluation, now));
        if self.end.is_some() {
            self.stop.cancel();
        } else {
            self.next_load(now);
        }
        status
    }

    /// Whether it has ended; the result of traffic that runs is awaited.
    fn is_over(&self) -> bool {
        self.end.is_some() && !self.is_sending()
    }

    fn is_sending(&self) -> bool {
        self.record.traffic_span().is_some() && self.record.traffic_result().is_none()
    }

    fn sends_traffic(&self) -> bool {
        !matches!(self.recording.mode, Mode::Watch { .. })
    }

    fn is_ending(&self, evaluation: &Option<Evaluation>, now: Duration) -> Option<End> {
        if self.interrupted.is_cancelled() {
            return Some(End::Interrupted);
        }
        let unscaled = self.unscaled.map_or(0.0, |since| now.as_secs_f64() - since);
        let is_scaled = !self.record.state.autoscalers.is_empty();
        if self.sends_traffic() && !is_scaled && unscaled >= UNSCALED {
            return Some(End::AutoscalerGone);
        }
        let is_decided = evaluation
            .as_ref()
            .is_some_and(|one| *one != Evaluation::Pending);
        let result = self.record.traffic_result();
        let has_failed = result.is_some_and(|result| result.failed.is_some());
        let is_done = match &self.recording.mode {
            Mode::Watch { duration } => {
                is_decided || duration.is_some_and(|duration| now >= duration)
            }
            Mode::Hold { .. } => is_decided || has_failed,
            Mode::Run { until_idle, .. } => {
                let ended = self.record.traffic_span().map_or(0.0, |(_, end)| end);
                let waited = now.saturating_sub(Duration::from_secs_f64(ended));
                let is_idle = |limit: &Duration| {
                    matches!(evaluation, Some(Evaluation::Missed(_)))
                        || is_idle(&self.record.state)
                        || waited >= *limit
                };
                has_failed || result.is_some() && until_idle.as_ref().is_none_or(is_idle)
            }
        };
        is_done.then_some(End::Done)
    }

    /// Stops a load of a hold when it is time for the next one, which is sent once the last one has
    /// ended.
    fn next_load(&mut self, now: Duration) {
        let is_sending = self.is_sending();
        let Mode::Hold { hold, .. } = &mut self.recording.mode else {
            return;
        };
        if self.stop_load.is_cancelled() {
            if !is_sending {
                self.stop_load = self.stop.child_token();
                self.send_traffic(Duration::ZERO);
            }
        } else if is_sending && let Some(why) = hold.observe(&self.record, now) {
            self.progress.say(&format!("{why}: {}", hold.load()));
            self.stop_load.cancel();
        }
    }

    /// Sends the traffic of the mode, if it has any, after a rest.
    fn send_traffic(&self, rest: Duration) {
        let (command, label) = match &self.recording.mode {
            Mode::Watch { .. } => return,
            Mode::Run { command, .. } => (command.clone(), traffic::label(command)),
            Mode::Hold { hold, url, limit } => {
                let load = hold.load();
                (load.command(url, *limit), load.to_string())
            }
        };
        let (stop, observations) = (self.stop_load.clone(), self.observations.clone());
        spawn_local(async move {
            if stop.run_until_cancelled(sleep(rest)).await.is_none() {
                return;
            }
            let result = match Traffic::start(&command) {
                Ok(traffic) => {
                    let _ = observations.send(RawObservation::TrafficStarted(label.into()));
                    traffic.finish(&stop).await
                }
                Err(why) => TrafficResult::failed(why),
            };
            let _ = observations.send(RawObservation::TrafficEnded(Box::new(result)));
        });
    }

    fn evaluation(&self, now: Duration) -> Option<Evaluation> {
        let expectation = self.recording.expectation.as_ref()?;
        if self.sends_traffic() && self.record.traffic_span().is_none() {
            return Some(Evaluation::Pending);
        }
        Some(expectation.evaluate(&self.record, now))
    }

    /// Whether the expectation is met so far, and the condition that the recording waits for.
    fn status(&self, evaluation: &Option<Evaluation>) -> String {
        let so_far = match evaluation {
            Some(Evaluation::Met(_) | Evaluation::MetBefore) => "as expected so far; ",
            Some(Evaluation::Missed(_)) => "not as expected; ",
            Some(Evaluation::Pending) | None => "",
        };
        let has_ended = self.record.traffic_result().is_some();
        let is_pending = *evaluation == Some(Evaluation::Pending) && !has_ended;
        let waiting_for = match (&self.recording.mode, &self.recording.expectation) {
            _ if self.sends_traffic() && self.record.traffic_span().is_none() => {
                "the traffic is about to start".into()
            }
            (_, Some(expectation)) if is_pending => format!("waiting for {expectation}"),
            (Mode::Watch { duration }, _) => duration.map_or("until Ctrl-C".into(), |duration| {
                format!("for {}", format::duration(duration))
            }),
            (Mode::Run { .. }, _) if has_ended => {
                "waiting for the minimum number of replicas".into()
            }
            _ => "waiting for the end of the traffic".into(),
        };
        format!("{so_far}{waiting_for}")
    }

    fn verdict(&self) -> Verdict {
        let now = self.began.elapsed();
        let evaluation = self.evaluation(now);
        let expectation = self.recording.expectation.as_ref();
        let met = expectation
            .zip(evaluation.as_ref())
            .and_then(|(expectation, it)| expectation.describe_met(it, &self.record));
        let although_met = |why: String| match &met {
            Some(met) => format!("{why}; the expectation was met: {met}"),
            None => why,
        };
        if let Some(why) = self.unobserved(&evaluation) {
            return Verdict::Unobserved(although_met(why));
        }
        let failures = self.failures(evaluation, now);
        if failures.is_empty() {
            return Verdict::AsExpected(met);
        }
        Verdict::Unexpected(although_met(failures.join("; ")))
    }

    fn unobserved(&self, evaluation: &Option<Evaluation>) -> Option<String> {
        let result = self.record.traffic_result();
        if let Some(why) = result.and_then(|result| result.failed.clone()) {
            return Some(why);
        }
        let is_pending = *evaluation == Some(Evaluation::Pending);
        match self.end? {
            End::DeploymentGone => {
                let name = &self.recording.deployment;
                Some(format!("the Deployment `{name}` was deleted"))
            }
            End::AutoscalerGone => unscaled(&self.record.state),
            End::Interrupted if self.sends_traffic() || is_pending => {
                Some("it was interrupted".into())
            }
            End::Interrupted | End::Done => None,
        }
    }

    /// All that was not as expected.
    fn failures(&self, evaluation: Option<Evaluation>, now: Duration) -> Vec<String> {
        let mut failures = Vec::new();
        let is_missed = matches!(evaluation, Some(Evaluation::Missed(_)));
        match (&self.recording.expectation, evaluation) {
            (_, Some(Evaluation::Missed(why))) => failures.push(why),
            (Some(expectation), Some(Evaluation::Pending)) => {
                failures.push(expectation.describe_miss(&self.record, now));
            }
            _ => {}
        }
        let mode = &self.recording.mode;
        let mut without_2xx = |failed: u64, all: u64, what: &str| {
            // A hold removes pods on purpose, with the requests that run on them.
            if failed > 0 && (failed == all || !matches!(mode, Mode::Hold { .. })) {
                failures.push(format!("{failed} of {all} {what} got no 2xx response"));
            }
        };
        let result = self.record.traffic_result();
        if let Some(counted) = result.and_then(|result| result.bombardier.as_ref()) {
            let (failed, all) = (counted.not_2xx(), counted.requests());
            without_2xx(failed, all, "requests of the traffic");
        }
        if let Some(probes) = Phase::of_traffic(&self.record) {
            let all = probes.succeeded + probes.failed;
            without_2xx(probes.failed, all, "probes during the traffic");
        }
        if let Mode::Run {
            until_idle: Some(limit),
            ..
        } = mode
            && !is_missed
            && !is_idle(&self.record.state)
        {
            let deployment = self.record.state.deployment.as_ref();
            let left = replicas(deployment.map_or(0, |deployment| deployment.existing));
            let limit = format::duration(*limit);
            failures.push(format!("there were still {left} {limit} after the traffic"));
        }
        failures
    }
}

/// A token that SIGINT, SIGTERM and SIGHUP cancel.
fn interrupted() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let (mut signal, token) = (signal(kind)?, token.clone());
        spawn_local(async move {
            signal.recv().await;
            token.cancel();
        });
    }
    Ok(token)
}

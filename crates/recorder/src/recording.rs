//! Runs a recording until it is over, and evaluates the record.

use std::{ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};
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
    expectation::{Evaluation, Expectation},
    format::{self, parse_duration, replicas},
    hold::Hold,
    notes::why_unscaled,
    observations::{Header, Log, Verdict},
    probe::Probe,
    progress::Progress,
    record::{ObservationKind, Record, State},
    report::conclusion,
    serve::Page,
    steady_load::{self, Plan},
    traffic,
};

/// How long the app is observed at rest before the traffic starts.
const BASELINE: Duration = Duration::from_secs(5);
/// How long there may be no autoscaler until traffic is stopped, in seconds: it may be replaced.
const MAX_UNSCALED: f64 = 10.0;

/// What is done while the autoscaler is observed, and until when: a command of the command line.
#[derive(Subcommand)]
pub enum Mode {
    /// Record the scaling until Ctrl-C
    Watch {
        /// End after this time
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
        duration: Option<Duration>,
        #[command(flatten)]
        expect: Option<Expectation>,
    },
    /// Send traffic and record the scaling that follows
    Run {
        /// Then wait for the minimum number of replicas, at most this long
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        until_idle: Option<Duration>,
        #[command(flatten)]
        expect: Option<Expectation>,
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

impl Mode {
    pub fn sends_traffic(&self) -> bool {
        !matches!(self, Self::Watch { .. })
    }
}

/// A recording that runs.
pub struct Recording {
    mode: Mode,
    expectation: Option<Expectation>,
    /// The names and the commands of the loads to send; each but the last one until it is stopped.
    loads: Vec<(String, Vec<OsString>)>,
    /// Until the second load of a hold is sent.
    hold: Option<Hold>,
    header: Header,
    began: Instant,
    record: Record,
    progress: Progress,
    page: Option<Page>,
    is_interrupted: bool,
    /// Stops all traffic.
    stop: CancellationToken,
    /// Stops the first load.
    stop_load: CancellationToken,
    /// When an autoscaler was last deleted, in seconds since the recording began.
    autoscaler_deleted: Option<f64>,
    /// Once it is over: an error if too little was observed.
    end: Option<Result<(), String>>,
}

impl Recording {
    /// Of a Deployment in this state, with the URL of its app.
    ///
    /// # Errors
    /// If there is traffic to send but nothing scales the Deployment, or if no load leads to the
    /// number of a hold.
    pub fn new(mode: Mode, mut header: Header, state: &State, url: Option<&str>) -> Result<Self> {
        if mode.sends_traffic()
            && let Some(why) = why_unscaled(state)
        {
            bail!(why);
        }
        let (mut loads, mut first) = (Vec::new(), None);
        let expectation = match &mode {
            Mode::Watch { expect, .. } => expect.clone(),
            Mode::Run {
                expect, command, ..
            } => {
                loads.push((traffic::label(command), command.clone()));
                expect.clone()
            }
            Mode::Hold {
                replicas,
                hold,
                within,
                idle,
            } => {
                let url = url.context("`hold` needs the `--url` of the app")?;
                let plan = Plan::new(*replicas, state, *idle)?;
                eprintln!("{plan}");
                let within = within.unwrap_or(plan.limit);
                loads = plan.loads(url, within + 2 * *hold);
                first = plan.first;
                Some(Expectation {
                    replicas: *replicas,
                    within: Some(within),
                    hold: Some(*hold),
                })
            }
        };
        header.expected = expectation.as_ref().map(ToString::to_string);
        let stop = CancellationToken::new();
        Ok(Self {
            mode,
            expectation,
            loads,
            hold: first.map(|first| Hold::new(first.rests)),
            record: Record::new(header.began, header.flags),
            header,
            began: Instant::now(),
            progress: Progress::default(),
            page: None,
            is_interrupted: false,
            stop_load: stop.child_token(),
            stop,
            autoscaler_deleted: None,
            end: None,
        })
    }

    /// Shows a page at this address while it runs.
    pub async fn serve(&mut self, address: SocketAddr) -> Result<()> {
        let page = Page::serve(address, self.header.clone(), self.record.clone()).await;
        self.page = Some(page.with_context(|| format!("cannot serve at \"{address}\""))?);
        Ok(())
    }

    /// Records until it is over, and evaluates the record. `observations.jsonl` in the folder has
    /// each observation as soon as it is made.
    pub async fn record(
        mut self,
        target: &Target,
        probe: Option<Probe>,
        folder: &Path,
    ) -> Result<(Header, Record)> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        fs::create_dir_all(folder)
            .with_context(|| format!("the folder {folder:?} cannot be created"))?;
        let path = folder.join("observations.jsonl");
        let unwritable = || format!("{path:?} cannot be written");
        let killed = Header {
            verdict: Verdict::Unobserved("the recorder was killed or failed".into()),
            ..self.header.clone()
        };
        let mut log = Log::create(&path, &killed).with_context(unwritable)?;
        let (sender, mut observations) = unbounded_channel();
        target.watch(&sender);
        if let Some(probe) = probe {
            spawn_local(probe.run(sender.clone()));
        }
        self.send_traffic(sender);
        let mut ticks = interval(Duration::from_millis(500));
        while !self.is_over() {
            tokio::select! {
                Some(seen) = observations.recv() => {
                    let at = self.now();
                    let kind = log.add(at, seen).with_context(unwritable)?;
                    self.observe(at, kind);
                }
                _ = ticks.tick() => {}
                _ = interrupt.recv() => self.is_interrupted = true,
                _ = terminate.recv() => self.is_interrupted = true,
                _ = hangup.recv() => self.is_interrupted = true,
            }
            self.tick();
        }
        self.progress.end();
        self.header.verdict = self.verdict();
        log.finish(&path, &self.header).with_context(unwritable)?;
        if let Some(page) = self.page {
            let conclusion = conclusion(&self.header.verdict);
            page.end(&conclusion.unwrap_or("The recording has ended".into()))
                .await;
        }
        Ok((self.header, self.record))
    }

    fn observe(&mut self, at: f64, kind: ObservationKind) {
        self.progress.report(&self.record, at, &kind);
        if let Some(page) = &self.page {
            page.observe(at, &kind);
        }
        match kind {
            ObservationKind::DeploymentGone => {
                let name = &self.header.deployment;
                let why = format!("the Deployment `{name}` was deleted");
                self.end.get_or_insert(Err(why));
            }
            ObservationKind::AutoscalerGone(_) => self.autoscaler_deleted = Some(at),
            _ => {}
        }
        self.record.add(at, kind);
    }

    /// Shows the progress, and stops the first of two loads, or all traffic if the recording ends.
    fn tick(&mut self) {
        let now = self.now();
        let evaluation = self.evaluation(now);
        let status = self.status(&evaluation);
        self.progress.show(&self.record, now, &status);
        if let Some(page) = &self.page {
            page.show(now, status);
        }
        if self.end.is_none() {
            self.end = self.find_end(&evaluation, now);
        }
        if self.end.is_some() {
            self.stop.cancel();
        } else if self.is_sending()
            && let Some(hold) = &mut self.hold
            && let Some(count) = hold.observe(&self.record, now)
        {
            let (second, _) = &self.loads[1];
            let at_rest = replicas(count);
            self.progress
                .say(&format!("at rest with {at_rest}: {second}"));
            self.hold = None;
            self.stop_load.cancel();
        }
    }

    /// Seconds since the recording began.
    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Whether it has ended; the result of traffic that runs is awaited.
    fn is_over(&self) -> bool {
        self.end.is_some() && !self.is_sending()
    }

    fn is_sending(&self) -> bool {
        self.record.traffic_span().is_some() && self.record.traffic_result().is_none()
    }

    fn find_end(&self, evaluation: &Evaluation, now: f64) -> Option<Result<(), String>> {
        let is_pending = *evaluation == Evaluation::Pending;
        if self.is_interrupted {
            let awaits = self.expectation.is_some() && is_pending;
            return Some(if self.mode.sends_traffic() || awaits {
                Err("it was interrupted".into())
            } else {
                Ok(())
            });
        }
        let unscaled_for = self.autoscaler_deleted.map_or(0.0, |since| now - since);
        if self.mode.sends_traffic()
            && unscaled_for >= MAX_UNSCALED
            && self.record.state.autoscalers.is_empty()
        {
            return why_unscaled(&self.record.state).map(Err);
        }
        let result = self.record.traffic_result();
        let has_failed = result.is_some_and(|result| result.failed.is_some());
        let is_over = |limit: &Duration, since: f64| now - since >= limit.as_secs_f64();
        let is_done = match &self.mode {
            Mode::Watch { duration, .. } => {
                !is_pending || duration.is_some_and(|duration| is_over(&duration, 0.0))
            }
            Mode::Hold { .. } => !is_pending || has_failed,
            Mode::Run { until_idle, .. } => {
                let ended = self.record.traffic_span().map_or(0.0, |(_, end)| end);
                let is_idle = |limit: &Duration| {
                    matches!(evaluation, Evaluation::Missed(_))
                        || is_idle(&self.record.state)
                        || is_over(limit, ended)
                };
                has_failed || result.is_some() && until_idle.as_ref().is_none_or(is_idle)
            }
        };
        is_done.then_some(Ok(()))
    }

    /// Sends the loads: each once the one before it was stopped.
    fn send_traffic(&self, observations: UnboundedSender<Value>) {
        let (loads, stop) = (self.loads.clone(), self.stop.clone());
        let mut stop_load = self.stop_load.clone();
        spawn_local(async move {
            if stop.run_until_cancelled(sleep(BASELINE)).await.is_none() {
                return;
            }
            for (label, command) in loads {
                let started = || {
                    let _ = observations.send(json!({"traffic_started": label}));
                };
                let result = traffic::run(&command, started, &stop_load).await;
                let _ = observations.send(json!({"traffic_ended": result}));
                if stop.is_cancelled() || !stop_load.is_cancelled() || result.failed.is_some() {
                    break;
                }
                stop_load = stop.clone();
            }
        });
    }

    /// Pending as well if nothing is expected.
    fn evaluation(&self, now: f64) -> Evaluation {
        match &self.expectation {
            Some(expectation) if !self.awaits_traffic() => expectation.evaluate(&self.record, now),
            _ => Evaluation::Pending,
        }
    }

    fn awaits_traffic(&self) -> bool {
        self.mode.sends_traffic() && self.record.traffic_span().is_none()
    }

    /// Whether the expectation is met so far, and the condition that the recording waits for.
    fn status(&self, evaluation: &Evaluation) -> String {
        let so_far = match evaluation {
            Evaluation::Met(_) => "as expected so far; ",
            Evaluation::Missed(_) => "not as expected; ",
            Evaluation::Pending => "",
        };
        let has_ended = self.record.traffic_result().is_some();
        let is_pending = *evaluation == Evaluation::Pending && !has_ended;
        let waiting_for = match (&self.mode, &self.expectation) {
            _ if self.awaits_traffic() => "the traffic is about to start".into(),
            (_, Some(expectation)) if is_pending => format!("waiting for {expectation}"),
            (Mode::Watch { duration, .. }, _) => duration
                .map_or("until Ctrl-C".into(), |duration| {
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
        let now = self.now();
        let evaluation = self.evaluation(now);
        let failures = self.failures(&evaluation, now);
        let met = match evaluation {
            Evaluation::Met(how) => Some(how),
            _ => None,
        };
        let although_met = |why: String| match &met {
            Some(met) => format!("{why}; the expectation was met: {met}"),
            None => why,
        };
        let result = self.record.traffic_result();
        let failed = result.and_then(|result| result.failed.clone());
        let too_little = || self.end.clone()?.err();
        if let Some(why) = failed.or_else(too_little) {
            Verdict::Unobserved(although_met(why))
        } else if failures.is_empty() {
            Verdict::AsExpected(met)
        } else {
            Verdict::Unexpected(although_met(failures.join("; ")))
        }
    }

    /// All that was not as expected.
    fn failures(&self, evaluation: &Evaluation, now: f64) -> Vec<String> {
        let missed = match (evaluation, &self.expectation) {
            (Evaluation::Missed(why), _) => Some(why.clone()),
            (Evaluation::Pending, Some(it)) => Some(it.describe_miss(&self.record, now)),
            _ => None,
        };
        // A hold removes pods on purpose, with the requests that run on them.
        let removes_pods = matches!(self.mode, Mode::Hold { .. });
        let not_2xx = |failed: u64, all: u64, what: &str| {
            let counts = failed > 0 && (failed == all || !removes_pods);
            counts.then(|| format!("{failed} of {all} {what} got no 2xx response"))
        };
        let result = self.record.traffic_result();
        let requests = result.and_then(|result| {
            let counted = result.bombardier.as_ref()?;
            not_2xx(
                counted.not_2xx(),
                counted.requests(),
                "requests of the traffic",
            )
        });
        let probes = Phase::of_traffic(&self.record).and_then(|probes| {
            let all = probes.answered + probes.failed;
            not_2xx(probes.failed, all, "probes during the traffic")
        });
        let left = match self.mode {
            Mode::Run {
                until_idle: Some(limit),
                ..
            } if !matches!(evaluation, Evaluation::Missed(_)) && !is_idle(&self.record.state) => {
                let deployment = self.record.state.deployment.as_ref();
                let left = replicas(deployment.map_or(0, |deployment| deployment.existing));
                let limit = format::duration(limit);
                Some(format!("there were still {left} {limit} after the traffic"))
            }
            _ => None,
        };
        [missed, requests, probes, left]
            .into_iter()
            .flatten()
            .collect()
    }
}

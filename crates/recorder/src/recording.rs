//! Runs a recording until it is over, and evaluates the record.

use std::{ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde::Deserialize;
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
    observations::{FILE, Header, Log, Seen, Verdict},
    probe::Probe,
    progress::{Progress, numbers},
    record::{Observation, ObservationKind, Record, State},
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
    /// What there is to do for a Deployment in this state, with the URL of its app.
    ///
    /// # Errors
    /// If there is traffic to send but nothing scales the Deployment, or if no load leads to the
    /// number of a hold.
    pub fn task(self, state: &State, url: Option<&str>) -> Result<Task> {
        if !matches!(self, Self::Watch { .. })
            && let Some(why) = why_unscaled(state)
        {
            bail!(why);
        }
        Ok(match self {
            Self::Watch { duration, expect } => Task {
                expectation: expect,
                loads: Vec::new(),
                hold: None,
                until: Until::Evaluated(duration),
            },
            Self::Run {
                until_idle,
                expect,
                command,
            } => Task {
                expectation: expect,
                loads: vec![(traffic::label(&command), command)],
                hold: None,
                until: Until::TrafficEnded(until_idle),
            },
            Self::Hold {
                replicas,
                hold,
                within,
                idle,
            } => {
                let url = url.context("`hold` needs the `--url` of the app")?;
                let plan = Plan::new(replicas, state, idle)?;
                eprintln!("{plan}");
                let within = within.unwrap_or(plan.limit);
                Task {
                    expectation: Some(Expectation {
                        replicas,
                        within: Some(within),
                        hold: Some(hold),
                    }),
                    loads: plan.loads(url, within + 2 * hold),
                    hold: plan.first.map(|first| Hold::new(first.rests)),
                    until: Until::Evaluated(None),
                }
            }
        })
    }
}

/// What there is to do while the autoscaler is observed, and until when.
pub struct Task {
    pub expectation: Option<Expectation>,
    /// The name and the command of each load, in their order. All but the last one run until
    /// `stop_load`.
    loads: Vec<(String, Vec<OsString>)>,
    /// Until the second load of a hold is sent.
    hold: Option<Hold>,
    until: Until,
}

impl Task {
    pub fn sends_traffic(&self) -> bool {
        !self.loads.is_empty()
    }
}

/// When a recording ends, unless it fails or is interrupted.
enum Until {
    /// Once the expectation is met or missed, or after this time.
    Evaluated(Option<Duration>),
    /// Once the traffic has ended. With a time, that is the longest wait for the minimum number of
    /// replicas after it.
    TrafficEnded(Option<Duration>),
}

/// A recording that runs.
pub struct Recording {
    task: Task,
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
    pub fn new(task: Task, header: Header) -> Self {
        let stop = CancellationToken::new();
        Self {
            task,
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
        }
    }

    /// Shows a page at this address while it is recorded in this folder.
    pub async fn serve(&mut self, address: SocketAddr, folder: &Path) -> Result<()> {
        let page = Page::serve(address, self.header.clone(), folder.join(FILE)).await;
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
        let path = folder.join(FILE);
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
                    let line = seen.line(self.now())?;
                    let observation = Observation::deserialize(&line)
                        .with_context(|| format!("this is not an observation: {line}"))?;
                    log.write(&line).with_context(unwritable)?;
                    self.observe(observation);
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

    fn observe(&mut self, Observation { at, kind }: Observation) {
        self.progress.report(&self.record, at, &kind);
        match kind {
            ObservationKind::DeploymentGone(_) => {
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
        let evaluation = self.evaluation(now, false);
        let status = self.status(&evaluation);
        self.progress.show(&self.record, now, &status);
        if let Some(page) = &self.page {
            page.show(numbers(&self.record, now), status);
        }
        if self.end.is_none() {
            self.end = self.find_end(&evaluation, now);
        }
        if self.end.is_some() {
            self.stop.cancel();
        } else if self.is_sending()
            && let Some(hold) = &mut self.task.hold
            && let Some(count) = hold.observe(&self.record, now)
        {
            let (second, _) = &self.task.loads[1];
            let at_rest = replicas(count);
            self.progress
                .say(&format!("at rest with {at_rest}: {second}"));
            self.task.hold = None;
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
            let awaits = self.task.expectation.is_some() && is_pending;
            return Some(if self.task.sends_traffic() || awaits {
                Err("it was interrupted".into())
            } else {
                Ok(())
            });
        }
        let unscaled_for = self.autoscaler_deleted.map_or(0.0, |since| now - since);
        if self.task.sends_traffic()
            && unscaled_for >= MAX_UNSCALED
            && self.record.state.autoscalers.is_empty()
        {
            return why_unscaled(&self.record.state).map(Err);
        }
        let result = self.record.traffic_result();
        let has_failed = result.is_some_and(|result| result.failed.is_some());
        let is_done = match self.task.until {
            Until::Evaluated(limit) => {
                !is_pending || limit.is_some_and(|limit| now >= limit.as_secs_f64())
            }
            Until::TrafficEnded(limit) => {
                let is_settled = |limit| {
                    matches!(evaluation, Evaluation::Missed(_))
                        || is_idle(&self.record.state)
                        || self.has_waited(limit, now)
                };
                result.is_some() && limit.is_none_or(is_settled)
            }
        };
        (is_done || has_failed).then_some(Ok(()))
    }

    /// Whether the traffic ended this long ago.
    fn has_waited(&self, limit: Duration, now: f64) -> bool {
        let ended = self.record.traffic_span().map_or(0.0, |(_, end)| end);
        now - ended >= limit.as_secs_f64()
    }

    /// Sends the loads: each once the one before it was stopped.
    fn send_traffic(&self, observations: UnboundedSender<Seen>) {
        let (loads, stop) = (self.task.loads.clone(), self.stop.clone());
        let mut stop_load = self.stop_load.clone();
        spawn_local(async move {
            if stop.run_until_cancelled(sleep(BASELINE)).await.is_none() {
                return;
            }
            for (label, command) in loads {
                let started = || {
                    let _ = observations.send(Seen::TrafficStarted(label));
                };
                let result = traffic::run(&command, started, &stop_load).await;
                let has_failed = result.failed.is_some();
                let _ = observations.send(Seen::TrafficEnded(result));
                if stop.is_cancelled() || !stop_load.is_cancelled() || has_failed {
                    break;
                }
                stop_load = stop.clone();
            }
        });
    }

    /// Pending as well if nothing is expected.
    fn evaluation(&self, now: f64, has_ended: bool) -> Evaluation {
        let expectation = self.task.expectation.as_ref();
        let awaited = expectation.filter(|_| !self.awaits_traffic());
        awaited.map_or(Evaluation::Pending, |it| {
            it.evaluate(&self.record, now, has_ended)
        })
    }

    fn awaits_traffic(&self) -> bool {
        self.task.sends_traffic() && self.record.traffic_span().is_none()
    }

    /// Whether the expectation is met so far, and the condition that the recording waits for.
    fn status(&self, evaluation: &Evaluation) -> String {
        let so_far = match evaluation {
            Evaluation::Met(_) => "as expected so far; ",
            Evaluation::Missed(_) => "not as expected; ",
            Evaluation::Pending => "",
        };
        let traffic_ended = self.record.traffic_result().is_some();
        let is_pending = *evaluation == Evaluation::Pending && !traffic_ended;
        let waiting_for = match (&self.task.until, &self.task.expectation) {
            _ if self.awaits_traffic() => "the traffic is about to start".into(),
            (_, Some(expectation)) if is_pending => format!("waiting for {expectation}"),
            (Until::TrafficEnded(_), _) if traffic_ended => {
                "waiting for the minimum number of replicas".into()
            }
            _ if self.task.sends_traffic() => "waiting for the end of the traffic".into(),
            (Until::Evaluated(Some(limit)), _) => format!("for {}", format::duration(*limit)),
            _ => "until Ctrl-C".into(),
        };
        format!("{so_far}{waiting_for}")
    }

    fn verdict(&self) -> Verdict {
        let now = self.now();
        let (met, missed) = match self.evaluation(now, true) {
            Evaluation::Met(how) => (Some(how), None),
            Evaluation::Missed(why) => (None, Some(why)),
            Evaluation::Pending => (None, None),
        };
        let although_met = |why: String| match &met {
            Some(met) => format!("{why}; the expectation was met: {met}"),
            None => why,
        };
        let result = self.record.traffic_result();
        let failed = result.and_then(|result| result.failed.clone());
        let too_little = || self.end.clone()?.err();
        if let Some(why) = failed.or_else(too_little) {
            return Verdict::Unobserved(although_met(why));
        }
        let failures: Vec<_> = missed.into_iter().chain(self.failures(now)).collect();
        if failures.is_empty() {
            Verdict::AsExpected(met)
        } else {
            Verdict::Unexpected(although_met(failures.join("; ")))
        }
    }

    /// All that is wrong apart from the expectation.
    fn failures(&self, now: f64) -> impl Iterator<Item = String> {
        // A hold removes pods on purpose, with the requests that run on them.
        let removes_pods = matches!(self.task.until, Until::Evaluated(_));
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
        let left = match self.task.until {
            Until::TrafficEnded(Some(limit))
                if self.has_waited(limit, now) && !is_idle(&self.record.state) =>
            {
                let deployment = self.record.state.deployment.as_ref();
                let left = replicas(deployment.map_or(0, |deployment| deployment.existing));
                let limit = format::duration(limit);
                Some(format!("there were still {left} {limit} after the traffic"))
            }
            _ => None,
        };
        [requests, probes, left].into_iter().flatten()
    }
}

//! Shows the progress of a recording: one line on a terminal, or else a line for every change.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::ProgressBar;

use crate::{
    format::{describe, duration},
    record::{ObservationKind, Record, State},
};

pub struct Progress {
    line: Option<ProgressBar>,
    last: String,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            line: stderr().is_terminal().then(ProgressBar::new_spinner),
            last: String::new(),
        }
    }
}

impl Progress {
    /// `now` is the time since the recording began.
    pub fn show(&mut self, record: &Record, now: Duration, waiting_for: &str) {
        let known = replicas(&record.state);
        let since = seconds(record, now);
        if let Some(line) = &self.line {
            let answer = record
                .state
                .answer
                .as_ref()
                .map_or(String::new(), |answer| {
                    let took = duration(answer.took.as_secs_f64());
                    match &answer.failed {
                        None => format!(", responds in {took}"),
                        Some(why) => format!(", no response: {why}"),
                    }
                });
            line.set_message(format!("{since}  {known}{answer}; {waiting_for}"));
            line.tick();
        } else if known != self.last {
            eprintln!("{since}  {known}");
            self.last = known;
        }
    }

    /// Prints an observation that is not a number on its own line.
    pub fn report(&self, record: &Record, now: Duration, kind: &ObservationKind) {
        let is_noteworthy = match kind {
            ObservationKind::DeploymentGone
            | ObservationKind::AutoscalerGone(_)
            | ObservationKind::TrafficStarted(_)
            | ObservationKind::TrafficEnded(_)
            | ObservationKind::Lost { .. }
            | ObservationKind::Regained { .. } => true,
            ObservationKind::Answer(answer) => answer.failed.is_some(),
            // Some events are repeated every few seconds.
            ObservationKind::Event(event) => !record.observations.iter().any(
                |before| matches!(&before.kind, ObservationKind::Event(other) if other == event),
            ),
            _ => false,
        };
        if is_noteworthy {
            self.say(&format!("{}  {}", seconds(record, now), describe(kind)));
        }
    }

    pub fn say(&self, line: &str) {
        match &self.line {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    pub fn end(&self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

/// Since the start of the traffic.
fn seconds(record: &Record, now: Duration) -> String {
    format!("{:>4.0} s", now.as_secs_f64() - record.time_origin())
}

fn replicas(state: &State) -> String {
    let Some(deployment) = &state.deployment else {
        return "no Deployment".into();
    };
    let replicas = format!(
        "{} ready of {}, {} wanted",
        deployment.ready, deployment.existing, deployment.desired
    );
    format!("{replicas}, {}", cpu(state))
}

/// The CPU that the autoscaler reads, and its target, or why there is none.
pub fn cpu(state: &State) -> String {
    let Some(autoscaler) = state.autoscaler() else {
        return "no autoscaler targets it".into();
    };
    let Some(cpu) = autoscaler.cpu() else {
        return format!("the autoscaler {} has no CPU metric", autoscaler.name);
    };
    let target = cpu.unit.format(cpu.target);
    match cpu.current {
        Some(current) => format!("CPU {} of {target}", cpu.unit.format(current)),
        None => {
            let why = autoscaler
                .condition("ScalingActive")
                .filter(|active| !active.is_true);
            let why = why.map_or(String::new(), |why| format!(" ({})", why.reason));
            format!("CPU not known yet, of {target}{why}")
        }
    }
}

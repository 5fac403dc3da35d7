//! Shows the progress of a recording: one line on a terminal, or else a line for every change.

use std::io::{IsTerminal, stderr};

use indicatif::ProgressBar;

use crate::{
    format::{describe, duration},
    record::{ObservationKind, Record, State},
};

pub struct Progress {
    line: Option<ProgressBar>,
    last: String,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            line: stderr().is_terminal().then(ProgressBar::new_spinner),
            last: String::new(),
        }
    }

    /// `now` in seconds since the recording began.
    pub fn show(&mut self, record: &Record, now: f64, waiting_for: &str) {
        let known = replicas(&record.state);
        let since = format!("{:>4.0} s", now - record.time_origin());
        if let Some(line) = &self.line {
            let answer = record
                .state
                .answer
                .as_ref()
                .map_or(String::new(), |answer| {
                    let took = duration(answer.took.as_secs_f64());
                    match &answer.failed {
                        None => format!(", answers in {took}"),
                        Some(why) => format!(", no answer: {why}"),
                    }
                });
            line.set_message(format!("{since}  {known}{answer}; {waiting_for}"));
            line.tick();
        } else if known != self.last {
            eprintln!("{since}  {known}");
            self.last = known;
        }
    }

    /// What is no number gets a line of its own everywhere.
    pub fn tell(&self, record: &Record, now: f64, seen: &ObservationKind) {
        let is_noteworthy = match seen {
            ObservationKind::DeploymentGone
            | ObservationKind::AutoscalerGone
            | ObservationKind::TrafficStarted(_)
            | ObservationKind::TrafficEnded(_)
            | ObservationKind::Lost { .. }
            | ObservationKind::Regained { .. } => true,
            ObservationKind::Answer(answer) => answer.failed.is_some(),
            // Some events are told again every few seconds.
            ObservationKind::Event(event) => {
                let told = |seen: &ObservationKind| matches!(seen, ObservationKind::Event(other) if other == event);
                !record.observations.iter().any(|before| told(&before.kind))
            }
            _ => false,
        };
        if is_noteworthy {
            self.say(&format!(
                "{:>4.0} s  {}",
                now - record.time_origin(),
                describe(seen)
            ));
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

fn replicas(state: &State) -> String {
    let Some(deployment) = &state.deployment else {
        return "no Deployment".into();
    };
    let replicas = format!(
        "{} ready of {}, {} wanted",
        deployment.ready, deployment.existing, deployment.desired
    );
    let Some(autoscaler) = &state.autoscaler else {
        return format!("{replicas}, no autoscaler targets it");
    };
    match (autoscaler.reading, autoscaler.target) {
        (Some(reading), _) => format!(
            "{replicas}, CPU {}{unit} of {}{unit}",
            reading.current,
            reading.target,
            unit = reading.unit
        ),
        (None, Some((target, unit))) => {
            let why = autoscaler
                .condition("ScalingActive")
                .filter(|active| !active.is_true);
            let why = why.map_or(String::new(), |why| format!(" ({})", why.reason));
            format!("{replicas}, CPU not known yet, of {target}{unit}{why}")
        }
        (None, None) => format!(
            "{replicas}, the autoscaler {} has no CPU metric",
            autoscaler.name
        ),
    }
}

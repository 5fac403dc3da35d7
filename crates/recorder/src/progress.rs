//! Shows the progress of a recording: its numbers on a terminal, or else a line for every change.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    format::{describe, duration},
    record::{KubeEvent, ObservationKind, Record, State},
};

pub struct Progress {
    line: Option<ProgressBar>,
    last: String,
    events: Events,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            line: stderr().is_terminal().then(|| {
                let style = ProgressStyle::with_template("{spinner} {wide_msg}\n  {prefix}");
                ProgressBar::new_spinner().with_style(style.expect("the template is valid"))
            }),
            last: String::new(),
            events: Events::default(),
        }
    }
}

impl Progress {
    /// `now` is the time since the recording began.
    pub fn show(&mut self, record: &Record, now: Duration, waiting_for: &str) {
        let known = replicas(&record.state);
        if let Some(line) = &self.line {
            line.set_message(numbers(record, now));
            line.set_prefix(waiting_for.to_string());
            line.tick();
        } else if known != self.last {
            eprintln!("{}  {known}", seconds(record, now));
            self.last = known;
        }
    }

    /// Prints an observation that is not a number on its own line.
    pub fn report(&mut self, record: &Record, now: Duration, kind: &ObservationKind) {
        let is_noteworthy = match kind {
            ObservationKind::DeploymentGone
            | ObservationKind::AutoscalerGone(_)
            | ObservationKind::TrafficStarted(_)
            | ObservationKind::TrafficEnded(_)
            | ObservationKind::Lost { .. }
            | ObservationKind::Regained { .. } => true,
            ObservationKind::Answer(answer) => answer.failed.is_some(),
            ObservationKind::Event(event) => self.events.add(event),
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
        for line in self.events.repeated() {
            eprintln!("{line}");
        }
    }
}

/// How often each event was observed.
#[derive(Default)]
struct Events(BTreeMap<[String; 3], usize>);

impl Events {
    /// Whether it is the first of its kind. Each of many pods has the same events, with other messages, and so has a
    /// ReplicaSet for each pod that it cannot create.
    fn add(&mut self, event: &KubeEvent) -> bool {
        let message = match event.kind.as_str() {
            "Pod" | "ReplicaSet" => "",
            _ => &event.message,
        };
        let key = [&event.kind, &event.reason, message].map(str::to_string);
        let count = self.0.entry(key).or_default();
        *count += 1;
        *count == 1
    }

    fn repeated(&self) -> impl Iterator<Item = String> {
        let repeated = self.0.iter().filter(|(_, count)| **count > 1);
        repeated.map(|([kind, reason, _], count)| format!("{reason}: {count} events of {kind}s"))
    }
}

/// Since the start of the traffic.
fn seconds(record: &Record, now: Duration) -> String {
    format!("{:>4.0} s", now.as_secs_f64() - record.time_origin())
}

fn numbers(record: &Record, now: Duration) -> String {
    let latency = record.state.answer.as_ref().map(|it| match &it.failed {
        None => format!(", {}", duration(it.took.as_secs_f64())),
        Some(why) => format!(", no response: {why}"),
    });
    let latency = latency.unwrap_or_default();
    format!(
        "{}  {}{latency}",
        seconds(record, now),
        replicas(&record.state)
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Answer, Autoscaler, Deployment};

    #[test]
    fn an_event_that_every_pod_has_is_printed_once_and_counted() {
        let mut events = Events::default();
        let mut add = |kind: &str, about: &str, reason: &str, message: &str| {
            events.add(&KubeEvent {
                kind: kind.into(),
                about: about.into(),
                reason: reason.into(),
                message: message.into(),
            })
        };
        assert!(add(
            "Pod",
            "a-1",
            "Unhealthy",
            "connection refused by 10.0.0.1"
        ));
        assert!(!add(
            "Pod",
            "a-2",
            "Unhealthy",
            "connection refused by 10.0.0.2"
        ));
        assert!(!add(
            "Pod",
            "a-2",
            "Unhealthy",
            "connection refused by 10.0.0.2"
        ));
        assert!(add("Pod", "a-1", "MissingClusterDNS", "no cluster DNS"));
        let rescaled = "SuccessfulRescale";
        assert!(add("HorizontalPodAutoscaler", "a", rescaled, "New size: 4"));
        assert!(add("HorizontalPodAutoscaler", "a", rescaled, "New size: 8"));
        assert!(!add(
            "HorizontalPodAutoscaler",
            "a",
            rescaled,
            "New size: 4"
        ));
        let repeated: Vec<_> = events.repeated().collect();
        assert_eq!(
            repeated,
            [
                "SuccessfulRescale: 2 events of HorizontalPodAutoscalers",
                "Unhealthy: 3 events of Pods"
            ]
        );
    }

    #[test]
    fn the_line_of_a_terminal_fits_80_columns() {
        let mut autoscaler = Autoscaler::of_the_tutorial();
        autoscaler.metrics[0].current = Some(1234);
        let state = State {
            deployment: Some(Deployment {
                desired: 20,
                existing: 20,
                ready: 12,
                ..Deployment::default()
            }),
            autoscalers: [(String::new(), autoscaler)].into(),
            answer: Some(Answer {
                took: Duration::from_millis(123),
                failed: None,
            }),
            ..State::default()
        };
        let mut record = Record::new(jiff::Timestamp::UNIX_EPOCH);
        record.state = state;
        let line = numbers(&record, Duration::from_secs(12_345));
        // The spinner and a space come first.
        assert!(line.len() <= 78, "{line}");
    }
}

//! Shows the progress of a recording: its numbers on a terminal, or else a line for every change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, stderr},
    mem::replace,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    format::{describe, latency, no_response},
    notes::LISTED,
    record::{KubeEvent, ObservationKind, Record, Response, State},
};

/// After this many responses in succession the app responds again.
const RECOVERED: u32 = 5;

pub struct Progress {
    line: Option<ProgressBar>,
    last: String,
    events: Events,
    outage: Outage,
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
            outage: Outage::default(),
        }
    }
}

impl Progress {
    /// Shows the numbers once they are known; `at` is in seconds since the recording began.
    pub fn show(&mut self, record: &Record, at: f64, status: &str) {
        let state = &record.state;
        if at < LISTED && (state.deployment.is_none() || state.autoscalers.is_empty()) {
            return;
        }
        let known = replicas(state);
        if let Some(line) = &self.line {
            line.set_message(numbers(record, at));
            line.set_prefix(status.to_string());
            line.tick();
        } else if known != self.last {
            eprintln!("{}  {known}", seconds(record, at));
            self.last = known;
        }
    }

    /// Prints an observation that is not a number on its own line.
    pub fn report(&mut self, record: &Record, at: f64, kind: &ObservationKind) {
        let line = match kind {
            ObservationKind::Response(response) => self.outage.add(response),
            ObservationKind::Event(event) => self.events.add(event).then(|| describe(kind)),
            ObservationKind::DeploymentGone
            | ObservationKind::AutoscalerGone(_)
            | ObservationKind::TrafficStarted(_)
            | ObservationKind::TrafficEnded(_)
            | ObservationKind::Lost { .. }
            | ObservationKind::Regained { .. } => Some(describe(kind)),
            _ => None,
        };
        if let Some(line) = line {
            self.say(&format!("{}  {line}", seconds(record, at)));
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

/// Whether the app responds.
#[derive(Default)]
struct Outage {
    is_out: bool,
    /// The number of the last responses in succession that have not failed.
    succeeded: u32,
}

impl Outage {
    /// What to say if it begins or ends.
    fn add(&mut self, response: &Response) -> Option<String> {
        self.succeeded = match response.failed {
            Some(_) => 0,
            None => self.succeeded + 1,
        };
        match &response.failed {
            Some(why) if !replace(&mut self.is_out, true) => Some(no_response(why)),
            None if self.is_out && self.succeeded >= RECOVERED => {
                self.is_out = false;
                Some("the app responds again".into())
            }
            _ => None,
        }
    }
}

/// The different messages of each kind and reason, and the number of events.
#[derive(Default)]
struct Events(BTreeMap<[String; 2], (BTreeSet<String>, usize)>);

impl Events {
    /// Whether it is the first of its kind. Each of many pods has the same events, with other
    /// messages, and so has a ReplicaSet for each pod that it cannot create.
    fn add(&mut self, event: &KubeEvent) -> bool {
        let message = match event.kind.as_str() {
            "Pod" | "ReplicaSet" => "",
            _ => &event.message,
        };
        let key = [&event.kind, &event.reason].map(Clone::clone);
        let (messages, count) = self.0.entry(key).or_default();
        *count += 1;
        messages.insert(message.into())
    }

    fn repeated(&self) -> impl Iterator<Item = String> {
        let repeated = self.0.iter();
        let repeated = repeated.filter(|(_, (messages, count))| *count > messages.len());
        repeated.map(|([kind, reason], (_, count))| format!("{reason}: {count} events of {kind}s"))
    }
}

/// Since the start of the traffic.
fn seconds(record: &Record, at: f64) -> String {
    format!("{:>4.0} s", at - record.time_origin())
}

/// The line of a terminal: the time, the replicas, CPU and latency.
pub fn numbers(record: &Record, at: f64) -> String {
    let latency = record.state.response.as_ref().map(|it| match &it.failed {
        None => format!(", {}", latency(it.took.as_secs_f64())),
        Some(why) => format!(", {}", no_response(why)),
    });
    let latency = latency.unwrap_or_default();
    format!(
        "{}  {}{latency}",
        seconds(record, at),
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
fn cpu(state: &State) -> String {
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
    use std::time::Duration;

    use super::*;
    use crate::record::{Autoscaler, Deployment, Response};

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
        let mut rescaled =
            |size: &str| add("HorizontalPodAutoscaler", "a", "SuccessfulRescale", size);
        assert!(rescaled("New size: 4"));
        assert!(rescaled("New size: 8"));
        assert!(!rescaled("New size: 4"));
        assert!(!rescaled("New size: 8"));
        let repeated: Vec<_> = events.repeated().collect();
        assert_eq!(
            repeated,
            [
                "SuccessfulRescale: 4 events of HorizontalPodAutoscalers",
                "Unhealthy: 3 events of Pods"
            ]
        );
    }

    #[test]
    fn an_outage_is_said_when_it_begins_and_when_it_ends() {
        let mut outage = Outage::default();
        let mut said = Vec::new();
        // A response, failures, too few responses to say that it is over, a failure, and enough.
        for (failed, times) in [(false, 1), (true, 3), (false, 4), (true, 1), (false, 9)] {
            for _ in 0..times {
                let failed = failed.then(|| "503 Service Unavailable".to_string());
                let took = Duration::ZERO;
                said.extend(outage.add(&Response { took, failed }));
            }
        }
        assert_eq!(
            said,
            [
                "no 2xx response: 503 Service Unavailable",
                "the app responds again"
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
            response: Some(Response {
                took: Duration::from_millis(123),
                failed: None,
            }),
            ..State::default()
        };
        let mut record = Record::new(jiff::Timestamp::UNIX_EPOCH);
        record.state = state;
        let line = numbers(&record, 12_345.0);
        // The spinner and a space come first.
        assert!(line.len() <= 78, "{line}");
    }
}

//! Shows the progress of a recording: its numbers on a terminal, or else a line for every change.

use std::collections::{BTreeMap, BTreeSet};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    format::{describe, latency, no_response},
    notes::LISTED,
    objects::KubeEvent,
    record::{ObservationKind, Record, Response, State},
};

/// After this many responses in succession the app responds again.
const RECOVERED: u32 = 5;

pub struct Progress {
    /// Hidden if the standard error is no terminal.
    line: ProgressBar,
    last: String,
    events: Events,
    outage: Outage,
}

impl Default for Progress {
    fn default() -> Self {
        let style = ProgressStyle::with_template("{spinner} {wide_msg}\n  {prefix}");
        let style = style.expect("the template is valid");
        Self {
            line: ProgressBar::new_spinner().with_style(style),
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
        self.line.set_message(numbers(record, at));
        self.line.set_prefix(status.to_string());
        self.line.tick();
        if self.line.is_hidden() && known != self.last {
            eprintln!("{}  {known}", seconds(record, at));
            self.last = known;
        }
    }

    /// Prints an observation that is not a number on its own line.
    pub fn report(&mut self, record: &Record, at: f64, kind: &ObservationKind) {
        let line = match kind {
            ObservationKind::Response(response) => self.outage.add(response),
            ObservationKind::Event(event) => self.events.add(event).then(|| describe(kind)),
            ObservationKind::DeploymentGone(_)
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
        self.line.suspend(|| eprintln!("{line}"));
    }

    pub fn end(&self) {
        self.line.finish_and_clear();
        for line in self.events.repeated() {
            eprintln!("{line}");
        }
    }
}

/// While the app does not respond: the number of responses since it last failed.
#[derive(Default)]
struct Outage(Option<u32>);

impl Outage {
    /// What to say if it begins or ends.
    fn add(&mut self, response: &Response) -> Option<String> {
        if let Some(why) = &response.failed {
            return self.0.replace(0).is_none().then(|| no_response(why));
        }
        let succeeded = self.0? + 1;
        self.0 = Some(succeeded).filter(|succeeded| *succeeded < RECOVERED);
        (self.0.is_none()).then(|| "the app responds again".into())
    }
}

/// The different messages of each kind and reason, and the number of events.
#[derive(Default)]
struct Events(BTreeMap<[String; 2], (BTreeSet<String>, usize)>);

impl Events {
    /// Whether it is the first of its kind. Each of many pods has the same events, with other
    /// messages, and so has a ReplicaSet for each pod that it cannot create.
    fn add(&mut self, event: &KubeEvent) -> bool {
        let kind = event.involved_object.kind.clone().unwrap_or_default();
        let message = match kind.as_str() {
            "Pod" | "ReplicaSet" => "",
            _ => &event.message,
        };
        let key = [kind, event.reason.clone()];
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
    let latency = match &record.state.response {
        None => String::new(),
        Some(Response { seconds, failed }) => match failed {
            None => format!(", {}", latency(*seconds)),
            Some(why) => format!(", {}", no_response(why)),
        },
    };
    let replicas = replicas(&record.state);
    format!("{}  {replicas}{latency}", seconds(record, at))
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
            let why = autoscaler.condition_with("ScalingActive", "False");
            let why = why.and_then(|why| why.reason.as_deref());
            let why = why.map_or(String::new(), |why| format!(" ({why})"));
            format!("CPU not known yet, of {target}{why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::common;

    #[test]
    fn an_event_that_every_pod_has_is_printed_once_and_counted() {
        let hpa = "HorizontalPodAutoscaler";
        let mut events = Events::default();
        for (is_printed, kind, reason, message) in [
            (true, "Pod", "Unhealthy", "connection refused by 10.0.0.1"),
            (false, "Pod", "Unhealthy", "connection refused by 10.0.0.2"),
            (false, "Pod", "Unhealthy", "connection refused by 10.0.0.2"),
            (true, "Pod", "MissingClusterDNS", "no cluster DNS"),
            (true, hpa, "SuccessfulRescale", "New size: 4"),
            (true, hpa, "SuccessfulRescale", "New size: 8"),
            (false, hpa, "SuccessfulRescale", "New size: 4"),
            (false, hpa, "SuccessfulRescale", "New size: 8"),
        ] {
            let event = json!({
                "involvedObject": {"kind": kind}, "reason": reason, "message": message,
            });
            let event = serde_json::from_value(event).expect("it is an event");
            assert_eq!(events.add(&event), is_printed, "{event:?}");
        }
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
                let failed = failed.then(|| "503".to_string());
                let seconds = 0.0;
                said.extend(outage.add(&Response { seconds, failed }));
            }
        }
        assert_eq!(said, ["no 2xx response: 503", "the app responds again"]);
    }

    #[test]
    fn the_line_of_a_terminal_fits_80_columns() {
        let record = common::record([
            (0.0, json!({"deployment": common::deployment(20, 12)})),
            (0.0, json!({"hpa": common::hpa(20, 20, 1234)})),
            (0.0, json!({"response": {"seconds": 0.123}})),
        ]);
        // The spinner and a space come first.
        let line = numbers(&record, 12_345.0);
        assert_eq!(
            line,
            "12345 s  12 ready of 20, 20 wanted, CPU 1234 % of 50 %, 123 ms"
        );
        assert!(line.len() <= 78, "{line}");
    }
}

//! Formats observations, durations and errors for the terminal, the files and the chart.

use std::error::Error;

use crate::record::ObservationKind;

/// An observation in a few words.
pub fn describe(seen: &ObservationKind) -> String {
    match seen {
        ObservationKind::Deployment(_) => "deployment".into(),
        ObservationKind::DeploymentGone => "the Deployment was deleted".into(),
        ObservationKind::Autoscaler(autoscaler) => format!("autoscaler {}", autoscaler.name),
        ObservationKind::AutoscalerGone(_) => "the autoscaler was deleted".into(),
        ObservationKind::Pod(pod) => {
            let state = if pod.leaving {
                "leaving"
            } else if pod.is_ready() {
                "ready"
            } else {
                "not ready"
            };
            format!("pod {} {state}", pod.name)
        }
        ObservationKind::PodGone(name) => format!("pod {name} deleted"),
        ObservationKind::Usage(_) => "metrics".into(),
        ObservationKind::Answer(answer) => match &answer.failed {
            None => "answer".into(),
            Some(why) => format!("no response: {why}"),
        },
        ObservationKind::Event(event) => {
            format!("{} {}: {}", event.about, event.reason, event.message)
        }
        ObservationKind::TrafficStarted(label) => format!("the traffic starts: {label}"),
        ObservationKind::TrafficEnded(report) => report
            .failed
            .clone()
            .unwrap_or("the traffic has ended".into()),
        ObservationKind::Lost { what, why } => {
            format!("{what} cannot be read: {why}; trying again")
        }
        ObservationKind::Regained { what } => format!("{what} can be read again"),
    }
}

/// `1 replica`, `2 replicas`.
pub fn replicas(count: u32) -> String {
    match count {
        1 => "1 replica".into(),
        count => format!("{count} replicas"),
    }
}

/// Three digits: `4.21 ms`, `1.70 s`.
pub fn duration(seconds: f64) -> String {
    let (number, unit) = if seconds < 1.0 {
        (seconds * 1000.0, "ms")
    } else {
        (seconds, "s")
    };
    let decimals = if number < 10.0 {
        2
    } else if number < 100.0 {
        1
    } else {
        0
    };
    format!("{number:.decimals$} {unit}")
}

/// The message of the last error in the chain of sources.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    anyhow::Chain::new(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

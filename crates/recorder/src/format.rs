//! How an observation and a time are put into words, on the terminal, in the files and in the picture.

use crate::record::Seen;

/// An observation in a few words.
pub fn describe(seen: &Seen) -> String {
    match seen {
        Seen::Deployment(_) => "deployment".into(),
        Seen::DeploymentGone => "the Deployment was deleted".into(),
        Seen::Autoscaler(autoscaler) => format!("autoscaler {}", autoscaler.name),
        Seen::AutoscalerGone => "the autoscaler was deleted".into(),
        Seen::Pod(pod) => {
            let state = if pod.leaving {
                "leaving"
            } else if pod.ready {
                "ready"
            } else {
                "not ready"
            };
            format!("pod {} {state}", pod.name)
        }
        Seen::PodGone(name) => format!("pod {name} gone"),
        Seen::Usage(_) => "metrics".into(),
        Seen::Answer(answer) => match &answer.failed {
            None => "answer".into(),
            Some(why) => format!("no answer: {why}"),
        },
        Seen::Event(event) => format!("{} {}: {}", event.about, event.reason, event.message),
        Seen::LoadStarted => "the load begins".into(),
        Seen::LoadEnded(report) => report.failed.clone().unwrap_or("the load has ended".into()),
        Seen::Lost { what, why } => format!("{what} cannot be seen: {why}; trying again"),
        Seen::Regained { what } => format!("{what} can be seen again"),
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

//! Formats observations, durations and errors for the terminal, the files and the chart.

use std::{error::Error, time::Duration};

use go_duration::GoDuration;
use reqwest::Url;

use crate::record::ObservationKind;

/// A URL as a message shows it: without its login.
pub fn without_login(url: &str) -> String {
    let Some(mut shown) = Url::parse(url).ok().filter(Url::has_host) else {
        return url.rsplit('@').next().unwrap_or_default().into();
    };
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}

/// An observation in a few words.
pub fn describe(seen: &ObservationKind) -> String {
    match seen {
        ObservationKind::Deployment(_) => "deployment".into(),
        ObservationKind::DeploymentGone(_) => "the Deployment was deleted".into(),
        ObservationKind::Autoscaler(autoscaler) => format!("autoscaler {}", autoscaler.name),
        ObservationKind::AutoscalerGone(_) => "the autoscaler was deleted".into(),
        ObservationKind::Pod(pod) => {
            let state = if pod.state.leaving {
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
        ObservationKind::Response(response) => match &response.failed {
            None => "response".into(),
            Some(why) => no_response(why),
        },
        ObservationKind::Event(event) => {
            format!("{} {}: {}", event.about(), event.reason, event.message)
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

pub fn no_response(why: &str) -> String {
    format!("no 2xx response: {why}")
}

/// `1 replica`, `2 replicas`.
pub fn replicas(count: u32) -> String {
    match count {
        1 => "1 replica".into(),
        count => format!("{count} replicas"),
    }
}

/// As Go writes it, without the parts that are zero: `1m30s`, `10m`.
pub fn duration(duration: Duration) -> String {
    let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let text = GoDuration(nanos).to_string().replace("h0m", "h");
    match text.strip_suffix("0s") {
        Some(longer) if longer.ends_with(['h', 'm']) => longer.into(),
        _ => text,
    }
}

/// The same, in whole seconds.
pub fn seconds(seconds: f64) -> String {
    duration(Duration::from_secs(seconds.round() as u64))
}

/// A duration in the syntax of Go, as in the query of the component.
///
/// # Errors
/// If it is anything else, or negative.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let nanos = text.parse().ok().map(|GoDuration(nanos)| nanos);
    nanos
        .and_then(|nanos| nanos.try_into().ok())
        .map(Duration::from_nanos)
        .ok_or("it must be numbers with units (ms, s, m, h), such as 90s or 1m30s")
}

/// Three digits: `4.21 ms`, `1.70 s`.
pub fn latency(seconds: f64) -> String {
    let (number, unit) = if seconds < 1.0 {
        (seconds * 1000.0, "ms")
    } else {
        (seconds, "s")
    };
    let decimals = match number {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

/// The message of the last error in the chain of sources.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    anyhow::Chain::new(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_login_is_shown() {
        for (url, shown) in [
            ("http://me:secret@host:81/a?b=1", "http://host:81/a?b=1"),
            ("http://me@host/a@b", "http://host/a@b"),
            ("http://host/", "http://host/"),
            ("http://me:secret@host:none", "host:none"),
            ("me:secret@host", "host"),
        ] {
            assert_eq!(without_login(url), shown);
        }
    }

    #[test]
    fn durations_are_those_of_go_without_zero_parts() {
        for text in ["0s", "250ms", "40s", "1m30s", "10m", "1h", "1h5s", "10h1m"] {
            assert_eq!(parse_duration(text).map(duration).as_deref(), Ok(text));
        }
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        for text in ["90", "1m 30s", "2min", "-1s", ""] {
            assert!(parse_duration(text).is_err(), "{text:?} was taken");
        }
    }
}

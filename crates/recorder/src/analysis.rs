//! Analyses a record: the milestones of the scaling, and the latency for users.
//! Times are in seconds since the traffic started.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    decisions::Decision,
    record::{Observation, ObservationKind, Record, Response, State},
};

const UNDER_TRAFFIC: &str = "under traffic";

/// The times of the main events.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Serialize)]
pub struct Milestones {
    #[serde(rename = "first_decision_seconds")]
    pub first_decision: Option<f64>,
    #[serde(rename = "first_new_pod_ready_seconds")]
    pub first_new_pod_ready: Option<f64>,
    #[serde(rename = "last_new_pod_ready_seconds")]
    pub last_new_pod_ready: Option<f64>,
    #[serde(rename = "traffic_ended_seconds")]
    pub traffic_ended: Option<f64>,
    /// The time from the end of the traffic until the minimum number of replicas.
    #[serde(rename = "idle_after_traffic_seconds")]
    pub back_at_minimum: Option<f64>,
}

impl Milestones {
    pub fn of(record: &Record, decisions: &[Decision]) -> Self {
        let origin = record.time_origin();
        // A hold sends several loads, one after another.
        let ended = record.traffic_result().and(record.traffic_span());
        let traffic_ended = ended.map(|(_, end)| end);
        let last = traffic_ended.unwrap_or(f64::INFINITY);
        let ready = added_pods_ready(record, origin, last);
        let mut back_at_minimum = None;
        record.replay(|observation, state| {
            if traffic_ended.is_some_and(|end| observation.at >= end) && is_idle(state) {
                back_at_minimum.get_or_insert(observation.at);
            }
        });
        let since = |at: f64| at - origin;
        Self {
            first_decision: decisions
                .iter()
                .find(|row| row.to > row.from && row.at > 0.0)
                .map(|row| row.at),
            first_new_pod_ready: ready.first().copied().map(since),
            last_new_pod_ready: ready.last().copied().map(since),
            traffic_ended: traffic_ended.map(since),
            back_at_minimum: back_at_minimum.zip(traffic_ended).map(|(at, end)| at - end),
        }
    }
}

/// When more replicas were ready than ever before, between two times. Those that were ready when
/// the recording began do not count, nor does a pod that takes the place of another one, nor a
/// surge pod of a rollout.
fn added_pods_ready(record: &Record, start: f64, end: f64) -> Vec<f64> {
    let mut first = record.observations.iter();
    let first = first.find_map(|observation| match &observation.kind {
        ObservationKind::Deployment(deployment) => Some(deployment.ready),
        _ => None,
    });
    let mut most = first.unwrap_or_default();
    let mut times = Vec::new();
    record.replay(|Observation { at, .. }, state| {
        let wanted = match (&state.deployment, state.autoscaler()) {
            (Some(deployment), _) => deployment.desired,
            (None, Some(autoscaler)) => autoscaler.to,
            (None, None) => u32::MAX,
        };
        let pods = state
            .pods
            .values()
            .filter(|pod| pod.is_ready() && !pod.leaving);
        let ready = wanted.min(pods.count() as u32);
        if ready > most {
            most = ready;
            times.push(*at);
        }
    });
    times.retain(|at| *at > start && *at <= end);
    times
}

/// When each pod was first seen to be ready, in seconds since the recording began.
pub fn pods_ready(record: &Record) -> BTreeMap<String, f64> {
    let mut ready = BTreeMap::new();
    for observation in &record.observations {
        if let ObservationKind::Pod(pod) = &observation.kind
            && pod.is_ready()
        {
            ready.entry(pod.name.clone()).or_insert(observation.at);
        }
    }
    ready
}

/// Whether there are no more replicas than the minimum, or none (KEDA can scale to zero), and all
/// of them are ready.
pub fn is_idle(state: &State) -> bool {
    let (Some(deployment), Some(autoscaler)) = (&state.deployment, state.autoscaler()) else {
        return false;
    };
    deployment.desired <= autoscaler.rules.min
        && [deployment.existing, deployment.ready] == [deployment.desired; 2]
}

/// The responses to the probes of one phase; latencies in seconds.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct Phase {
    #[serde(rename = "phase")]
    pub name: &'static str,
    #[serde(rename = "answered")]
    pub succeeded: u64,
    pub failed: u64,
    #[serde(rename = "p50_seconds")]
    pub p50: Option<f64>,
    #[serde(rename = "p95_seconds")]
    pub p95: Option<f64>,
    #[serde(rename = "max_seconds")]
    pub max: Option<f64>,
}

/// Before, during and after the scale-out, and after the traffic, as far as there were probes. A
/// probe belongs to the phase in which it was sent.
pub fn phases(record: &Record, milestones: &Milestones) -> Vec<Phase> {
    let spans = match record.traffic_span() {
        None => vec![("all the time", 0.0, f64::INFINITY)],
        Some((start, end)) => {
            let scales_out = milestones.first_decision.is_some_and(|at| at + start < end);
            let (scaled, after_it) = match milestones.last_new_pod_ready {
                Some(at) => (start + at, "after it, under traffic"),
                None if scales_out => (end, ""),
                None => (start, UNDER_TRAFFIC),
            };
            vec![
                ("before the traffic", 0.0, start),
                ("during the scale-out", start, scaled),
                (after_it, scaled, end),
                ("after the traffic", end, f64::INFINITY),
            ]
        }
    };
    spans
        .into_iter()
        .map(|(name, from, to)| Phase::of(name, record, from, to))
        .filter(|phase| phase.succeeded + phase.failed > 0)
        .collect()
}

impl Phase {
    /// From the start of the traffic to its end.
    pub fn of_traffic(record: &Record) -> Option<Self> {
        let (start, end) = record.traffic_span()?;
        Some(Self::of(UNDER_TRAFFIC, record, start, end))
    }

    fn of(name: &'static str, record: &Record, from: f64, to: f64) -> Self {
        let mut histogram = Histogram::<u64>::new(3).expect("three significant digits are allowed");
        let mut failed = 0;
        for (asked, response) in probes(record) {
            if asked < from || asked >= to {
                continue;
            }
            if response.failed.is_some() {
                failed += 1;
            } else {
                let took = histogram.record(response.took.as_micros() as u64);
                took.expect("a histogram without an upper bound grows");
            }
        }
        let seconds = |quantile| {
            let micros = histogram.value_at_quantile(quantile);
            (!histogram.is_empty()).then(|| Duration::from_micros(micros).as_secs_f64())
        };
        Self {
            name,
            succeeded: histogram.len(),
            failed,
            p50: seconds(0.5),
            p95: seconds(0.95),
            max: seconds(1.0),
        }
    }
}

/// Every probe, and when it was sent.
pub fn probes(record: &Record) -> impl Iterator<Item = (f64, &Response)> {
    record
        .observations
        .iter()
        .filter_map(|observation| match &observation.kind {
            ObservationKind::Response(response) => {
                Some((observation.at - response.took.as_secs_f64(), response))
            }
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        common,
        decisions::decisions,
        record::{Autoscaler, Deployment, Pod, Readiness},
        traffic::TrafficResult,
    };

    fn autoscaler(from: u32, to: u32, current: u32) -> ObservationKind {
        ObservationKind::Autoscaler(Autoscaler::decided(from, to, current))
    }

    /// Traffic from 10 s to 100 s.
    fn record(seen: Vec<(f64, ObservationKind)>) -> Record {
        let ended = TrafficResult {
            failed: None,
            bombardier: None,
            output: String::new(),
        };
        let mut all = vec![
            (0.0, autoscaler(1, 1, 2)),
            (
                10.0,
                ObservationKind::TrafficStarted("40 connections".into()),
            ),
        ];
        all.extend(seen);
        // A hold sends a second load right after the first one.
        all.push((45.0, ObservationKind::TrafficEnded(ended.clone())));
        all.push((45.0, ObservationKind::TrafficStarted("more".into())));
        all.push((100.0, ObservationKind::TrafficEnded(ended)));
        all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        all.into_iter().for_each(|(at, seen)| record.add(at, seen));
        record
    }

    #[test]
    fn idle_is_at_most_the_minimum() {
        let idle = |desired, existing, ready| {
            is_idle(&State {
                deployment: Some(Deployment {
                    desired,
                    existing,
                    ready,
                    ..Deployment::default()
                }),
                autoscalers: [(String::new(), Autoscaler::of_the_tutorial())].into(),
                ..State::default()
            })
        };
        assert!(idle(1, 1, 1));
        assert!(idle(0, 0, 0), "KEDA scaled it to zero");
        assert!(!idle(1, 2, 1), "a pod is terminating");
        assert!(!idle(1, 1, 0), "the last pod is not ready");
    }

    #[test]
    fn probes_belong_to_the_phase_in_which_they_were_sent() {
        let pod = |name: &str, ready| {
            let name = name.into();
            let readiness = if ready {
                Readiness::Ready
            } else {
                Readiness::NotReady
            };
            ObservationKind::Pod(Pod {
                name,
                readiness: Some((readiness, Timestamp::UNIX_EPOCH)),
                ..Pod::default()
            })
        };
        let response = |seconds, failed: Option<&str>| {
            let took = Duration::from_secs(seconds);
            ObservationKind::Response(Response {
                took,
                failed: failed.map(Into::into),
            })
        };
        let record = record(vec![
            (1.0, pod("old", true)),
            (9.0, response(1, None)),
            (30.0, autoscaler(1, 4, 500)),
            (31.0, pod("new", false)),
            (40.0, pod("new", true)),
            (50.0, pod("newer", true)),
            (52.0, response(4, None)),
            (53.0, response(1, Some("status 503"))),
        ]);
        let milestones = Milestones::of(&record, &decisions(&record).0);
        assert_eq!(milestones.first_decision, Some(20.0));
        assert_eq!(milestones.first_new_pod_ready, Some(30.0));
        assert_eq!(milestones.last_new_pod_ready, Some(40.0));
        assert_eq!(milestones.traffic_ended, Some(90.0));
        let phases = phases(&record, &milestones);
        let short: Vec<_> = phases
            .iter()
            .map(|phase| (phase.name, phase.succeeded, phase.failed))
            .collect();
        assert_eq!(
            short,
            [
                ("before the traffic", 1, 0),
                ("during the scale-out", 1, 0),
                ("after it, under traffic", 0, 1)
            ]
        );
        let scale_out = &phases[1];
        for seconds in [scale_out.p50, scale_out.max] {
            let seconds = seconds.expect("a response");
            assert!((seconds - 4.0).abs() < 0.01, "{seconds} s");
        }
    }

    #[test]
    fn replicas_that_are_ready_when_a_recording_begins_are_not_new() {
        let pod = |name: &str| json!({"pod": common::pod(name)});
        let deployment = |replicas| json!({"deployment": common::deployment(replicas, replicas)});
        let mut seen = vec![
            (0.05, pod("a")),
            (0.06, pod("b")),
            (0.10, deployment(2)),
            (0.11, json!({"hpa": common::hpa(2, 2, 50)})),
        ];
        let milestones = |seen: &[(f64, Value)]| {
            let record = common::record(seen.iter().cloned());
            Milestones::of(&record, &decisions(&record).0)
        };
        assert_eq!(milestones(&seen), Milestones::default());
        seen.extend([(30.0, deployment(3)), (40.0, pod("c"))]);
        assert_eq!(milestones(&seen).first_new_pod_ready, Some(40.0));
        assert_eq!(milestones(&seen).last_new_pod_ready, Some(40.0));
    }

    #[test]
    fn without_a_scale_out_no_probe_is_of_one() {
        let names = |seen: Vec<(f64, ObservationKind)>| -> Vec<_> {
            let mut seen = seen;
            let response = |at| {
                let took = Duration::ZERO;
                (
                    at,
                    ObservationKind::Response(Response { took, failed: None }),
                )
            };
            seen.extend([response(5.0), response(20.0), response(80.0)]);
            let record = record(seen);
            let milestones = Milestones::of(&record, &decisions(&record).0);
            let phases = phases(&record, &milestones).into_iter();
            phases.map(|phase| phase.name).collect()
        };
        assert_eq!(names(vec![]), ["before the traffic", "under traffic"]);
        // No new pod is ever ready.
        let decided = vec![(15.0, autoscaler(1, 4, 500))];
        assert_eq!(
            names(decided),
            ["before the traffic", "during the scale-out"]
        );
    }
}

//! Analyses a record: the milestones of the scaling, and the latency for users.
//! Times are in seconds since the traffic started.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    computation::Decision,
    record::{Observation, ObservationKind, Record, Response, State},
};

const UNDER_TRAFFIC: &str = "under traffic";

/// The times of the main events.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Serialize)]
pub struct Milestones {
    pub first_decision_seconds: Option<f64>,
    pub first_new_pod_ready_seconds: Option<f64>,
    pub last_new_pod_ready_seconds: Option<f64>,
    pub traffic_ended_seconds: Option<f64>,
    /// The time from the end of the traffic until the minimum number of replicas.
    pub idle_after_traffic_seconds: Option<f64>,
}

impl Milestones {
    pub fn of(record: &Record, decisions: &[Decision]) -> Self {
        let origin = record.time_origin();
        // A hold sends several loads, one after another.
        let ended = record.traffic_result().and(record.traffic_span());
        let ended = ended.map(|(_, end)| end);
        let ready = added_pods_ready(record, origin, ended.unwrap_or(f64::INFINITY));
        let mut idle_after = None;
        record.for_each(|observation, state| {
            let after = ended.map_or(-1.0, |end| observation.at - end);
            if after >= 0.0 && is_idle(state) {
                idle_after.get_or_insert(after);
            }
        });
        let scale_out = |row: &&Decision| row.to > row.from && row.at > 0.0;
        let since = |at: &f64| at - origin;
        Self {
            first_decision_seconds: decisions.iter().find(scale_out).map(|row| row.at),
            first_new_pod_ready_seconds: ready.first().map(since),
            last_new_pod_ready_seconds: ready.last().map(since),
            traffic_ended_seconds: ended.as_ref().map(since),
            idle_after_traffic_seconds: idle_after,
        }
    }
}

/// When more replicas were ready than ever before, between two times. Those that were ready when
/// the recording began do not count, nor does a pod that takes the place of another one, nor a
/// surge pod of a rollout.
fn added_pods_ready(record: &Record, start: f64, end: f64) -> Vec<f64> {
    let mut deployments = record.deployments();
    let first = deployments.find_map(|(_, deployment)| Some(deployment?.ready));
    let mut most = first.unwrap_or_default();
    let mut times = Vec::new();
    record.for_each(|Observation { at, .. }, state| {
        let ready = ready_pods(state).min(desired(state).unwrap_or(u32::MAX));
        if ready > most {
            most = ready;
            times.push(*at);
        }
    });
    times.retain(|at| *at > start && *at <= end);
    times
}

/// The number of replicas that is set, also if only the autoscaler was observed.
pub fn desired(state: &State) -> Option<u32> {
    let deployment = state.deployment.as_ref();
    let by_autoscaler = || state.autoscaler().map(|autoscaler| autoscaler.to);
    deployment.map(|one| one.desired).or_else(by_autoscaler)
}

/// The number of pods that are ready and stay.
fn ready_pods(state: &State) -> u32 {
    let pods = state.pods.values();
    pods.filter(|pod| pod.is_ready() && !pod.state.leaving)
        .count() as u32
}

/// When each pod was first seen to be ready.
pub fn pods_ready(record: &Record) -> BTreeMap<&str, f64> {
    let mut ready = BTreeMap::new();
    for Observation { at, kind } in &record.observations {
        if let ObservationKind::Pod(pod) = kind
            && pod.is_ready()
        {
            ready.entry(&*pod.name).or_insert(at - record.time_origin());
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

/// The responses to the probes of one phase.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct Phase {
    pub phase: &'static str,
    pub answered: u64,
    pub failed: u64,
    pub p50_seconds: Option<f64>,
    pub p95_seconds: Option<f64>,
    pub max_seconds: Option<f64>,
}

/// Before, during and after the scale-out, and after the traffic, as far as there were probes. A
/// probe belongs to the phase in which it was sent.
pub fn phases(record: &Record, milestones: &Milestones) -> Vec<Phase> {
    let spans = match record.traffic_span() {
        None => vec![("all the time", 0.0, f64::INFINITY)],
        Some((start, end)) => {
            let decided = milestones.first_decision_seconds;
            let scales_out = decided.is_some_and(|at| at + start < end);
            let (scaled, after_it) = match milestones.last_new_pod_ready_seconds {
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
    let phases = spans.into_iter();
    phases
        .map(|(name, from, to)| Phase::of(name, record, from, to))
        .filter(|phase| phase.answered + phase.failed > 0)
        .collect()
}

impl Phase {
    /// From the start of the traffic to its end.
    pub fn of_traffic(record: &Record) -> Option<Self> {
        let (start, end) = record.traffic_span()?;
        Some(Self::of(UNDER_TRAFFIC, record, start, end))
    }

    fn of(phase: &'static str, record: &Record, from: f64, to: f64) -> Self {
        let mut histogram = Histogram::<u64>::new(3).expect("three significant digits are allowed");
        let mut failed = 0;
        for (_, response) in probes(record).filter(|(sent, _)| (from..to).contains(sent)) {
            if response.failed.is_some() {
                failed += 1;
            } else {
                let took = Duration::from_secs_f64(response.seconds);
                let recorded = histogram.record(took.as_micros() as u64);
                recorded.expect("a histogram without an upper bound grows");
            }
        }
        let seconds = |quantile| {
            let micros = histogram.value_at_quantile(quantile);
            (!histogram.is_empty()).then(|| Duration::from_micros(micros).as_secs_f64())
        };
        Self {
            phase,
            answered: histogram.len(),
            failed,
            p50_seconds: seconds(0.5),
            p95_seconds: seconds(0.95),
            max_seconds: seconds(1.0),
        }
    }
}

/// Every probe, and when it was sent.
pub fn probes(record: &Record) -> impl Iterator<Item = (f64, &Response)> {
    let observations = record.observations.iter();
    observations.filter_map(|Observation { at, kind }| match kind {
        ObservationKind::Response(response) => Some((at - response.seconds, response)),
        _ => None,
    })
}

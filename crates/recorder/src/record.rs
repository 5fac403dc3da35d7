//! What was observed, in the order in which it was; everything else is worked out from this.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::{
    decision::{Pods, Reading, Rules, Unit},
    traffic::TrafficResult,
};

/// How long after its start a pod's CPU may be that of its start
/// (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const INITIALISATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that became unready within this time of its start was never ready
/// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum ObservationKind {
    Deployment(Deployment),
    DeploymentGone,
    Autoscaler(Autoscaler),
    AutoscalerGone,
    Pod(Pod),
    PodGone(String),
    /// What the metrics API says of every pod that it knows.
    Usage(BTreeMap<String, Usage>),
    Answer(Answer),
    /// A Kubernetes event about the Deployment, its autoscaler or one of its pods.
    Event(KubeEvent),
    /// A label of the traffic, such as `40 connections`.
    #[serde(rename = "load_started")]
    TrafficStarted(String),
    #[serde(rename = "load_ended")]
    TrafficEnded(TrafficResult),
    /// What could not be watched or asked for, and why.
    Lost {
        what: String,
        why: String,
    },
    Regained {
        what: String,
    },
}

#[derive(Clone, Debug, Serialize)]
pub struct Observation {
    /// Seconds since the recording began.
    pub at: f64,
    #[serde(flatten)]
    pub kind: ObservationKind,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Deployment {
    /// What the autoscaler set.
    pub desired: u32,
    /// Pods that there are.
    pub existing: u32,
    pub ready: u32,
    /// What a pod requests, in millicores, where every container requests some.
    pub request: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Autoscaler {
    pub name: String,
    pub rules: Rules,
    /// The target of its CPU metric, which is there before a reading is.
    pub target: Option<(u32, Unit)>,
    /// What its last computation began with, led to, and read.
    pub from: u32,
    pub to: u32,
    pub reading: Option<Reading>,
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
impl Autoscaler {
    /// The one of the tutorial: up to 20 replicas, at 50 % of what a pod requests.
    pub fn of_the_tutorial() -> Self {
        let mut autoscaler = Self {
            target: Some((50, Unit::Percent)),
            ..Self::default()
        };
        autoscaler.rules.max = 20;
        autoscaler
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    pub kind: String,
    pub is_true: bool,
    pub reason: String,
    pub message: String,
}

impl Autoscaler {
    /// What each of these pods should use on average, in millicores.
    pub fn target_millicores(&self, deployment: &Deployment) -> Option<f64> {
        let (target, unit) = self.target?;
        let of_one = match unit {
            Unit::Millicores => 1.0,
            Unit::Percent => f64::from(deployment.request?) / 100.0,
        };
        Some(f64::from(target) * of_one)
    }

    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pod {
    pub name: String,
    pub created: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub ready: bool,
    /// Since when it has been ready, or has not been.
    pub since: Option<Timestamp>,
    pub pending: bool,
    /// Failed, or being deleted: an autoscaler does not look at it.
    pub leaving: bool,
}

/// The CPU of a pod, averaged over a window that ended at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Usage {
    pub millicores: f64,
    pub ended: Timestamp,
    #[serde(skip)]
    pub window: SignedDuration,
}

#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// From the moment it was asked until the whole answer was there.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub took: Duration,
    /// Why it does not count as answered.
    pub failed: Option<String>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KubeEvent {
    pub about: String,
    pub reason: String,
    pub message: String,
}

/// Everything that was seen, and what is known now.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub began: Timestamp,
    pub observations: Vec<Observation>,
    #[serde(skip)]
    pub state: State,
    #[serde(skip)]
    traffic_started: Option<f64>,
    /// Unless it is still running.
    #[serde(skip)]
    traffic_ended: Option<f64>,
}

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub deployment: Option<Deployment>,
    pub autoscaler: Option<Autoscaler>,
    pub pods: BTreeMap<String, Pod>,
    pub usage: BTreeMap<String, Usage>,
    pub answer: Option<Answer>,
}

impl Record {
    pub fn new(began: Timestamp) -> Self {
        Self {
            began,
            observations: Vec::new(),
            state: State::default(),
            traffic_started: None,
            traffic_ended: None,
        }
    }

    pub fn add(&mut self, at: f64, kind: ObservationKind) {
        self.state.apply(&kind);
        match kind {
            ObservationKind::TrafficStarted(_) => {
                self.traffic_started.get_or_insert(at);
                self.traffic_ended = None;
            }
            ObservationKind::TrafficEnded(_) => self.traffic_ended = Some(at),
            _ => {}
        }
        self.observations.push(Observation { at, kind });
    }

    /// Every observation together with what was known once it was made.
    pub fn replay(&self, mut each: impl FnMut(&Observation, &State)) {
        let mut state = State::default();
        for observation in &self.observations {
            state.apply(&observation.kind);
            each(observation, &state);
        }
    }

    /// When the first observation of a kind was made.
    pub fn first(&self, is: impl Fn(&ObservationKind) -> bool) -> Option<f64> {
        self.observations
            .iter()
            .find(|one| is(&one.kind))
            .map(|one| one.at)
    }

    /// When the traffic started and ended.
    pub fn traffic_span(&self) -> Option<(f64, f64)> {
        let end = self.traffic_ended.unwrap_or(self.end());
        self.traffic_started.map(|start| (start, end))
    }

    /// What times are counted from: the start of the traffic, or else the beginning.
    pub fn time_origin(&self) -> f64 {
        self.traffic_started.unwrap_or_default()
    }

    /// When the last observation was made.
    pub fn end(&self) -> f64 {
        self.observations.last().map_or(0.0, |one| one.at)
    }

    /// The moment of the cluster's clock, as far as it goes like ours.
    pub fn clock(&self, at: f64) -> Timestamp {
        self.began
            .saturating_add(SignedDuration::from_secs_f64(at))
            .unwrap_or(self.began)
    }

    pub fn traffic_result(&self) -> Option<&TrafficResult> {
        self.traffic_ended?;
        self.observations
            .iter()
            .rev()
            .find_map(|one| match &one.kind {
                ObservationKind::TrafficEnded(result) => Some(result),
                _ => None,
            })
    }
}

impl State {
    fn apply(&mut self, kind: &ObservationKind) {
        match kind {
            ObservationKind::Deployment(deployment) => self.deployment = Some(deployment.clone()),
            ObservationKind::DeploymentGone => self.deployment = None,
            ObservationKind::Autoscaler(autoscaler) => self.autoscaler = Some(autoscaler.clone()),
            ObservationKind::AutoscalerGone => self.autoscaler = None,
            ObservationKind::Pod(pod) => {
                self.pods.insert(pod.name.clone(), pod.clone());
            }
            ObservationKind::PodGone(name) => {
                self.pods.remove(name);
            }
            ObservationKind::Usage(usage) => self.usage = usage.clone(),
            ObservationKind::Answer(answer) => self.answer = Some(answer.clone()),
            ObservationKind::Event(_)
            | ObservationKind::TrafficStarted(_)
            | ObservationKind::TrafficEnded(_)
            | ObservationKind::Lost { .. }
            | ObservationKind::Regained { .. } => {}
        }
    }

    /// The average CPU of the pods that the metrics API knows, in millicores.
    pub fn millicores_per_pod(&self) -> Option<f64> {
        let known = self.usage.len();
        let sum: f64 = self.usage.values().map(|usage| usage.millicores).sum();
        (known > 0).then(|| sum / known as f64)
    }

    /// What a pod should use on average, in millicores.
    pub fn target_millicores(&self) -> Option<f64> {
        self.autoscaler
            .as_ref()?
            .target_millicores(self.deployment.as_ref()?)
    }

    /// The oldest so many pods as an autoscaler sorts them: "Algorithm details" of the documentation
    /// says which it sets aside.
    pub fn classify_pods(&self, now: Timestamp, oldest: u32) -> Pods {
        let mut sorted = Pods::default();
        let mut pods: Vec<_> = self.pods.values().filter(|pod| !pod.leaving).collect();
        pods.sort_by_key(|pod| pod.created);
        for pod in pods.into_iter().take(oldest as usize) {
            match self.usage.get(&pod.name) {
                _ if pod.pending => sorted.unready += 1,
                None => sorted.missing += 1,
                Some(usage) if is_unready(pod, usage, now) => sorted.unready += 1,
                Some(_) => sorted.counted += 1,
            }
        }
        sorted
    }
}

fn is_unready(pod: &Pod, usage: &Usage, now: Timestamp) -> bool {
    let (Some(started), Some(since)) = (pod.started, pod.since) else {
        return true;
    };
    if now.duration_since(started) < INITIALISATION {
        !pod.ready || usage.ended.duration_since(since) < usage.window
    } else {
        !pod.ready && since.duration_since(started) < READINESS_DELAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("it is in range")
    }

    fn state(pod: Pod, usage: Option<i64>) -> State {
        let mut state = State::default();
        if let Some(ended) = usage {
            let window = SignedDuration::from_secs(15);
            let usage = Usage {
                millicores: 20.0,
                ended: at(ended),
                window,
            };
            state.usage.insert(pod.name.clone(), usage);
        }
        state.apply(&ObservationKind::Pod(pod));
        state
    }

    fn pod(ready: bool, since: i64) -> Pod {
        Pod {
            name: "a".into(),
            created: Some(at(0)),
            started: Some(at(0)),
            ready,
            since: Some(at(since)),
            pending: false,
            leaving: false,
        }
    }

    const COUNTED: Pods = Pods {
        counted: 1,
        unready: 0,
        missing: 0,
    };
    const UNREADY: Pods = Pods {
        counted: 0,
        unready: 1,
        missing: 0,
    };
    const MISSING: Pods = Pods {
        counted: 0,
        unready: 0,
        missing: 1,
    };

    #[test]
    fn a_young_pod_counts_once_a_whole_window_was_measured_while_it_was_ready() {
        assert_eq!(
            state(pod(false, 0), Some(20)).classify_pods(at(25), 1),
            UNREADY
        );
        assert_eq!(
            state(pod(true, 10), Some(20)).classify_pods(at(25), 1),
            UNREADY
        );
        assert_eq!(
            state(pod(true, 10), Some(25)).classify_pods(at(25), 1),
            COUNTED
        );
        assert_eq!(state(pod(true, 10), None).classify_pods(at(25), 1), MISSING);
    }

    #[test]
    fn an_old_pod_counts_even_while_it_is_not_ready() {
        assert_eq!(
            state(pod(false, 200), Some(390)).classify_pods(at(400), 1),
            COUNTED
        );
        assert_eq!(
            state(pod(false, 5), Some(390)).classify_pods(at(400), 1),
            UNREADY
        );
    }

    #[test]
    fn a_pod_that_leaves_is_not_looked_at() {
        let leaving = Pod {
            leaving: true,
            ..pod(true, 10)
        };
        assert_eq!(
            state(leaving, Some(25)).classify_pods(at(25), 1),
            Pods::default()
        );
        let pending = Pod {
            pending: true,
            ..pod(false, 0)
        };
        assert_eq!(state(pending, None).classify_pods(at(25), 1), UNREADY);
    }
}

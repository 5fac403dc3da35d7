//! The observations in their order; everything else is computed from them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Unexpected},
};
use serde_json::Value;

use crate::{
    objects::{Autoscaler, Deployment, KubeEvent, Pod, Usage, total},
    rules::{Class, Flags, Pods, Unit},
    traffic::{Traffic, TrafficResult},
};

/// The key and the value in a line of `observations.jsonl`. Its objects are written as those of the
/// API, and read as far as they matter.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservationKind<D = Deployment, A = Autoscaler, P = Pod, E = KubeEvent> {
    Deployment(D),
    /// The value says nothing.
    DeploymentGone(Value),
    #[serde(rename = "hpa")]
    Autoscaler(A),
    /// Its name, unless there is only one.
    #[serde(rename = "hpa_gone", deserialize_with = "text_or_nothing")]
    AutoscalerGone(String),
    Pod(P),
    PodGone(String),
    /// The usage of every pod in the metrics API.
    Usage(Vec<Usage>),
    #[serde(alias = "answer")]
    Response(Response),
    Event(E),
    /// A label of the traffic, such as `40 connections`.
    #[serde(alias = "load_started", deserialize_with = "text_or_nothing")]
    TrafficStarted(String),
    #[serde(alias = "load_ended")]
    TrafficEnded(TrafficResult),
    /// A watch or poll that failed, and why.
    Lost {
        what: String,
        why: String,
    },
    Regained {
        what: String,
    },
}

/// Anything but a text is none.
fn text_or_nothing<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let value = Value::deserialize(value)?;
    Ok(value.as_str().unwrap_or_default().into())
}

/// Seconds, from 0 to 136 years, so that each time after the start has a timestamp.
fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    let seconds = f64::deserialize(value)?;
    if !(0.0..=u32::MAX.into()).contains(&seconds) {
        let given = Unexpected::Float(seconds);
        return Err(D::Error::invalid_value(given, &"0 to 4294967295 seconds"));
    }
    Ok(seconds)
}

#[derive(Clone, Debug, Deserialize)]
pub struct Observation {
    /// Seconds since the recording began.
    #[serde(deserialize_with = "seconds")]
    pub at: f64,
    #[serde(flatten)]
    pub kind: ObservationKind,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Response {
    /// From sending the request until the whole response was received.
    #[serde(deserialize_with = "seconds")]
    pub seconds: f64,
    /// Why it counts as failed.
    #[serde(default)]
    pub failed: Option<String>,
}

/// All observations, and the state that follows from them.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub began: Timestamp,
    /// The flags of the controller manager, for all autoscalers that are added from now on.
    pub flags: Flags,
    pub observations: Vec<Observation>,
    pub state: State,
    /// When the first traffic started.
    traffic_started: Option<f64>,
    /// When the last traffic ended, and its result, unless it is still running.
    traffic_ended: Option<(f64, TrafficResult)>,
}

/// The state at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub deployment: Option<Deployment>,
    /// Those that target the Deployment, by name: more than one is a mistake.
    pub autoscalers: BTreeMap<String, Autoscaler>,
    pub pods: BTreeMap<String, Pod>,
    pub usage: BTreeMap<String, Usage>,
    pub response: Option<Response>,
}

impl Record {
    pub fn new(began: Timestamp, flags: Flags) -> Self {
        Self {
            began,
            flags,
            ..Self::default()
        }
    }

    pub fn add(&mut self, at: f64, mut kind: ObservationKind) {
        match &mut kind {
            ObservationKind::Autoscaler(autoscaler) => autoscaler.rules.flags = self.flags,
            ObservationKind::TrafficStarted(_) => {
                self.traffic_started.get_or_insert(at);
                self.traffic_ended = None;
            }
            ObservationKind::TrafficEnded(result) => {
                self.traffic_ended = Some((at, result.clone()));
            }
            _ => {}
        }
        self.state.apply(&kind);
        self.observations.push(Observation { at, kind });
    }

    /// Calls a function with every observation and the state after it.
    pub fn for_each(&self, mut each: impl FnMut(&Observation, &State)) {
        let mut state = State::default();
        for observation in &self.observations {
            state.apply(&observation.kind);
            each(observation, &state);
        }
    }

    /// When the traffic started and ended.
    pub fn traffic_span(&self) -> Option<(f64, f64)> {
        let end = self.traffic_ended.as_ref().map_or(self.end(), |it| it.0);
        self.traffic_started.map(|start| (start, end))
    }

    /// The zero of all times: the start of the traffic, or else of the recording.
    pub fn time_origin(&self) -> f64 {
        self.traffic_started.unwrap_or_default()
    }

    /// When the last observation was made.
    pub fn end(&self) -> f64 {
        self.observations.last().map_or(0.0, |one| one.at)
    }

    /// This time on the cluster's clock, if it agrees with the local clock.
    pub fn clock(&self, at: f64) -> Timestamp {
        self.began
            .saturating_add(SignedDuration::from_secs_f64(at))
            .unwrap_or(self.began)
    }

    /// The reverse: a time on the cluster's clock in seconds since the recording began.
    pub fn seconds_at(&self, time: Timestamp) -> f64 {
        time.duration_since(self.began).as_secs_f64()
    }

    /// The Deployment as it was observed, and when; nothing once it is gone.
    pub fn deployments(&self) -> impl Iterator<Item = (f64, Option<&Deployment>)> {
        let observations = self.observations.iter();
        observations.filter_map(|Observation { at, kind }| match kind {
            ObservationKind::Deployment(deployment) => Some((*at, Some(deployment))),
            ObservationKind::DeploymentGone(_) => Some((*at, None)),
            _ => None,
        })
    }

    /// All traffic, in seconds since the first one started.
    pub fn traffic(&self) -> Vec<Traffic<'_>> {
        let mut all: Vec<Traffic> = Vec::new();
        for Observation { at, kind } in &self.observations {
            let seconds = at - self.time_origin();
            match (kind, all.last_mut()) {
                (ObservationKind::TrafficStarted(label), _) => all.push(Traffic {
                    label,
                    start_seconds: seconds,
                    ..Traffic::default()
                }),
                (ObservationKind::TrafficEnded(result), Some(last)) => {
                    last.end(seconds, result);
                }
                _ => {}
            }
        }
        all
    }

    /// The result of the last traffic, unless it is still running.
    pub fn traffic_result(&self) -> Option<&TrafficResult> {
        self.traffic_ended.as_ref().map(|(_, result)| result)
    }
}

impl State {
    pub fn apply(&mut self, kind: &ObservationKind) {
        match kind {
            ObservationKind::Deployment(deployment) => self.deployment = Some(deployment.clone()),
            ObservationKind::DeploymentGone(_) => self.deployment = None,
            ObservationKind::Autoscaler(autoscaler) => {
                let name = autoscaler.name.clone();
                self.autoscalers.insert(name, autoscaler.clone());
            }
            ObservationKind::AutoscalerGone(name) if name.is_empty() => self.autoscalers.clear(),
            ObservationKind::AutoscalerGone(name) => {
                self.autoscalers.remove(name);
            }
            ObservationKind::Pod(pod) => {
                self.pods.insert(pod.name.clone(), pod.clone());
            }
            ObservationKind::PodGone(name) => {
                self.pods.remove(name);
            }
            ObservationKind::Usage(pods) => {
                let named = |usage: &Usage| (usage.pod().into(), usage.clone());
                self.usage = pods.iter().map(named).collect();
            }
            ObservationKind::Response(response) => self.response = Some(response.clone()),
            _ => {}
        }
    }

    /// The autoscaler, or the first of several.
    pub fn autoscaler(&self) -> Option<&Autoscaler> {
        self.autoscalers.values().next()
    }

    /// The CPU of each pod that the metrics API knows, in millicores.
    pub fn millicores(&self) -> impl Iterator<Item = f64> {
        let usages = self.usage.values();
        let millicores = usages.filter_map(|usage| total(&usage.containers, "cpu", None));
        millicores.map(|millicores| millicores as f64)
    }

    /// The average CPU of these pods, in millicores.
    pub fn millicores_per_pod(&self) -> Option<f64> {
        let count = self.millicores().count();
        (count > 0).then(|| self.millicores().sum::<f64>() / count as f64)
    }

    /// How the pods are counted for CPU.
    pub fn classify_pods(&self, now: Timestamp) -> Pods {
        let window = |pod: &Pod| Some(self.usage.get(&pod.name)?.window);
        let pods = self.pods.values();
        pods.map(|pod| (Class::of(pod.state, window(pod), true, now), 1))
            .collect()
    }

    /// The average usage that is the target for a pod, in millicores. A percentage is one of the
    /// requests of the newest pod, or else of the template of the Deployment.
    pub fn target_millicores(&self) -> Option<f64> {
        let cpu = self.autoscaler()?.cpu()?;
        let pods = self.pods.values().filter(|pod| !pod.state.leaving);
        let newest = pods.max_by_key(|pod| pod.created).map(|pod| &pod.requests);
        let requests = newest.or(self.deployment.as_ref().map(|one| &one.requests))?;
        let of_one = match cpu.unit {
            Unit::Percent => total(requests, "cpu", cpu.container.as_deref())? as f64 / 100.0,
            _ => 1.0,
        };
        Some(cpu.target as f64 * of_one)
    }
}

//! The observations in their order; everything else is computed from them.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::MetricValueStatus;
use serde::{Deserialize, Serialize};

use crate::{
    rules::{Class, Flags, MetricsWindow, PodState, Pods, Readiness, Reading, Rules, Unit},
    traffic::TrafficResult,
};

#[derive(Clone, Debug)]
pub enum ObservationKind {
    Deployment(Deployment),
    DeploymentGone,
    Autoscaler(Autoscaler),
    /// Its name, unless there is only one.
    AutoscalerGone(String),
    Pod(Pod),
    PodGone(String),
    /// The usage of every pod in the metrics API.
    Usage(BTreeMap<String, Usage>),
    Response(Response),
    /// A Kubernetes event about the Deployment, its autoscaler or one of its pods.
    Event(KubeEvent),
    /// A label of the traffic, such as `40 connections`.
    TrafficStarted(String),
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

#[derive(Clone, Debug)]
pub struct Observation {
    /// Seconds since the recording began.
    pub at: f64,
    pub kind: ObservationKind,
}

/// Resources in thousandths (millicores, thousandths of a byte), by container and by name.
pub type Resources = BTreeMap<String, BTreeMap<String, i64>>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deployment {
    /// The number that the autoscaler set.
    pub desired: u32,
    /// The number of pods that exist.
    pub existing: u32,
    /// Those of the current template.
    pub updated: u32,
    pub ready: u32,
    /// The requests in its template.
    pub requests: Resources,
    /// Why pods are not created, as a message of the API.
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Autoscaler {
    pub name: String,
    pub rules: Rules,
    /// In the order of its specification.
    pub metrics: Vec<Metric>,
    /// The name of KEDA's ScaledObject that owns it.
    pub scaled_object: Option<String>,
    /// The replicas before its last computation, and the number that it set.
    pub from: u32,
    pub to: u32,
    pub last_scaled: Option<Timestamp>,
    pub conditions: Vec<Condition>,
    /// The status of each metric of the specification by which it computed last.
    pub statuses: Vec<(Source, MetricValueStatus)>,
}

/// A metric with its target; its status is unknown until it was read, and while it fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub source: Source,
    /// Above 0.
    pub target: i64,
    pub unit: Unit,
    pub current: Option<i64>,
    /// The average value, in thousandths, which is there beside a percentage too.
    pub average: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The usage of the pods, or of one of their containers.
    Resource {
        name: String,
        container: Option<String>,
    },
    /// A value that is divided by the number of pods.
    PerPod(String),
    /// Any other value.
    Value(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub kind: String,
    pub is_true: bool,
    pub reason: String,
    pub message: String,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl Source {
    /// Whether both are the same metric, with or without an average.
    pub fn is_metric_of(&self, other: &Self) -> bool {
        let is_resource = |one: &Self| matches!(one, Self::Resource { .. });
        is_resource(self) == is_resource(other) && self.to_string() == other.to_string()
    }

    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Resource { name, .. } if name == "cpu")
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Resource {
                name,
                container: Some(container),
            } => write!(f, "{name} of {container}"),
            Self::Resource { name, .. } | Self::PerPod(name) | Self::Value(name) => {
                f.write_str(name)
            }
        }
    }
}

impl Metric {
    pub fn reading(&self) -> Option<Reading> {
        self.current.map(|current| Reading {
            current,
            target: self.target,
            unit: self.unit,
        })
    }
}

impl Autoscaler {
    /// Its CPU metric, of the whole pod or of one container.
    pub fn cpu(&self) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.source.is_cpu())
    }

    /// Whether KEDA may scale its target to zero, which needs a metric that is not of the pods.
    pub fn may_scale_to_zero(&self) -> bool {
        let is_resource = |one: &Metric| matches!(one.source, Source::Resource { .. });
        !self.metrics.iter().all(is_resource)
    }

    pub fn reading(&self) -> Option<Reading> {
        self.cpu()?.reading()
    }

    /// The average usage that is the target for pods with these requests, in millicores.
    pub fn target_millicores(&self, requests: &Resources) -> Option<f64> {
        let cpu = self.cpu()?;
        let of_one = match (cpu.unit, &cpu.source) {
            (Unit::Percent, Source::Resource { container, .. }) => {
                total(requests, "cpu", container.as_deref())? as f64 / 100.0
            }
            _ => 1.0,
        };
        Some(cpu.target as f64 * of_one)
    }

    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }

    /// Whether the status is the same, so that only the specification may have changed.
    pub fn has_status_of(&self, other: &Self) -> bool {
        (self.from, self.to, self.last_scaled) == (other.from, other.to, other.last_scaled)
            && (&self.conditions, &self.statuses) == (&other.conditions, &other.statuses)
    }

    /// The name of the metric that decided, by the message of a condition.
    fn name_in_message(&self) -> Option<&str> {
        let active = self.condition("ScalingActive").filter(|one| one.is_true)?;
        let (_, name) = active.message.split_once("a replica count from ")?;
        // The selector of an external metric follows without a space.
        Some(
            name.split_once('(')
                .map_or(name, |(name, _)| name.trim_end()),
        )
    }

    /// The metric that decided, if the autoscaler names it.
    pub fn named_metric(&self) -> Option<&Metric> {
        let name = self.name_in_message()?;
        let is_named = |metric: &Metric| match &metric.source {
            Source::Resource {
                name: resource,
                container,
            } => name.strip_prefix(&**resource).is_some_and(|rest| {
                // The average of a container is named as that of the pods is.
                let is_container = container.is_some() && rest.starts_with(" container resource");
                is_container || rest.starts_with(" resource")
            }),
            Source::PerPod(metric) | Source::Value(metric) => {
                name.ends_with(&format!(" metric {metric}"))
            }
        };
        let mut named = self.metrics.iter().filter(|one| is_named(one));
        let first = named.next()?;
        named.next().is_none().then_some(first)
    }

    /// The metric that decided, as the autoscaler names it, or else the one that the rules give.
    pub fn deciding_metric(&self, metric: &Metric) -> String {
        let name = self.name_in_message();
        name.map_or_else(|| metric.source.to_string(), Into::into)
    }

    /// The condition that explains its behaviour best.
    pub fn complaint(&self) -> Option<&Condition> {
        let complaints = [
            ("AbleToScale", false),
            ("ScalingActive", false),
            ("ScalingLimited", true),
        ];
        complaints.into_iter().find_map(|(kind, is_true)| {
            let condition = self.condition(kind);
            condition.filter(|condition| condition.is_true == is_true)
        })
    }

    /// Whether its status is that of a decision. A new autoscaler has 0 replicas in its status, and
    /// one that fails keeps its earlier status.
    pub fn has_decided(&self) -> bool {
        let able = self.condition("AbleToScale");
        let rescaled = able.is_some_and(|able| able.reason == "SucceededRescale");
        let active = self.condition("ScalingActive");
        able.is_some_and(|able| able.is_true) && (rescaled || active.is_some_and(|one| one.is_true))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub name: String,
    pub created: Option<Timestamp>,
    /// Why it has no node, as a message of the scheduler.
    pub unscheduled: Option<String>,
    pub state: PodState,
    pub requests: Resources,
}

impl Pod {
    pub fn is_ready(&self) -> bool {
        matches!(self.state.readiness, Some((Readiness::Ready, _)))
    }
}

/// The usage of a pod, averaged over a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    pub window: MetricsWindow,
    pub containers: Resources,
}

/// The sum over all containers, or the value of one; `None` unless each of them has a value.
pub fn total(resources: &Resources, name: &str, container: Option<&str>) -> Option<i64> {
    if let Some(container) = container {
        return resources.get(container)?.get(name).copied();
    }
    // The pod's own request.
    if let Some(own) = resources.get("") {
        return own.get(name).copied();
    }
    let mut values = resources.values().map(|resources| resources.get(name));
    let first = *values.next()??;
    values.try_fold(first, |sum, value| Some(sum.saturating_add(*value?)))
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Response {
    /// From sending the request until the whole response was received.
    #[serde(rename = "seconds", with = "seconds")]
    pub took: Duration,
    /// Why it counts as failed.
    #[serde(default)]
    pub failed: Option<String>,
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct KubeEvent {
    /// When it last happened, by the clock of the cluster.
    pub time: Option<Timestamp>,
    /// The kind and the name of the object.
    pub kind: String,
    pub about: String,
    pub reason: String,
    pub message: String,
}

impl KubeEvent {
    /// The number of replicas that an autoscaler set, if the event says so.
    pub fn new_size(&self) -> Option<u32> {
        // Similar events are combined, and their message begins with that.
        let (_, size) = self.message.split_once("New size: ")?;
        let size = size.split(';').next()?;
        let is_rescale = self.reason == "SuccessfulRescale";
        size.parse().ok().filter(|_| is_rescale)
    }
}

/// All observations, and the state that follows from them.
#[derive(Clone, Debug)]
pub struct Record {
    pub began: Timestamp,
    /// The flags of the controller manager, for all autoscalers that are added from now on.
    pub flags: Flags,
    pub observations: Vec<Observation>,
    pub state: State,
    traffic_started: Option<f64>,
    /// Unless it is still running.
    traffic_ended: Option<f64>,
}

/// A span of traffic, in seconds since the first one started.
pub struct TrafficRun<'a> {
    /// Such as `40 connections`.
    pub label: &'a str,
    pub start: f64,
    /// Unless it is still running.
    pub end: Option<f64>,
    pub result: Option<&'a TrafficResult>,
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
    pub fn new(began: Timestamp) -> Self {
        Self {
            began,
            flags: Flags::default(),
            observations: Vec::new(),
            state: State::default(),
            traffic_started: None,
            traffic_ended: None,
        }
    }

    pub fn add(&mut self, at: f64, mut kind: ObservationKind) {
        if let ObservationKind::Autoscaler(autoscaler) = &mut kind {
            autoscaler.rules.flags = self.flags;
        }
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
        let end = self.traffic_ended.unwrap_or(self.end());
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

    pub fn traffic_runs(&self) -> Vec<TrafficRun<'_>> {
        let mut runs: Vec<TrafficRun> = Vec::new();
        for observation in &self.observations {
            let at = observation.at - self.time_origin();
            match (&observation.kind, runs.last_mut()) {
                (ObservationKind::TrafficStarted(label), _) => runs.push(TrafficRun {
                    label,
                    start: at,
                    end: None,
                    result: None,
                }),
                (ObservationKind::TrafficEnded(result), Some(last)) => {
                    (last.end, last.result) = (Some(at), Some(result));
                }
                _ => {}
            }
        }
        runs
    }

    pub fn traffic_result(&self) -> Option<&TrafficResult> {
        self.traffic_ended?;
        let mut kinds = self.observations.iter().rev().map(|one| &one.kind);
        kinds.find_map(|kind| match kind {
            ObservationKind::TrafficEnded(result) => Some(result),
            _ => None,
        })
    }
}

impl State {
    pub fn apply(&mut self, kind: &ObservationKind) {
        match kind {
            ObservationKind::Deployment(deployment) => self.deployment = Some(deployment.clone()),
            ObservationKind::DeploymentGone => self.deployment = None,
            ObservationKind::Autoscaler(autoscaler) => {
                let name = autoscaler.name.clone();
                self.autoscalers.insert(name, autoscaler.clone());
            }
            ObservationKind::AutoscalerGone(name) => {
                if self.autoscalers.remove(name).is_none() && self.autoscalers.len() == 1 {
                    self.autoscalers.clear();
                }
            }
            ObservationKind::Pod(pod) => {
                self.pods.insert(pod.name.clone(), pod.clone());
            }
            ObservationKind::PodGone(name) => {
                self.pods.remove(name);
            }
            ObservationKind::Usage(usage) => self.usage = usage.clone(),
            ObservationKind::Response(response) => self.response = Some(response.clone()),
            ObservationKind::Event(_)
            | ObservationKind::TrafficStarted(_)
            | ObservationKind::TrafficEnded(_)
            | ObservationKind::Lost { .. }
            | ObservationKind::Regained { .. } => {}
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

    /// The requests of the newest pod, or else of the template of the Deployment.
    pub fn requests(&self) -> Option<&Resources> {
        let pods = self.pods.values().filter(|pod| !pod.state.leaving);
        let newest = pods.max_by_key(|pod| pod.created).map(|pod| &pod.requests);
        newest.or(self.deployment.as_ref().map(|one| &one.requests))
    }

    /// The average usage that is the target for a pod, in millicores.
    pub fn target_millicores(&self) -> Option<f64> {
        self.autoscaler()?.target_millicores(self.requests()?)
    }
}

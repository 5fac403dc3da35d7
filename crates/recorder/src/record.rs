//! The observations in their order; everything else is computed from them.

use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1 as apps,
        autoscaling::v2::{
            HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition as Condition,
            HorizontalPodAutoscalerStatus,
        },
        core::v1 as core,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::Value;

use crate::{
    quantity::thousandths,
    rules::{Class, Flags, MetricsWindow, PodState, Pods, Readiness, Reading, Rules, Unit},
    traffic::{Traffic, TrafficResult},
};

/// The key and the value in a line of `observations.jsonl`, in which objects are those of the API.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservationKind {
    Deployment(Deployment),
    #[serde(deserialize_with = "anything")]
    DeploymentGone,
    #[serde(rename = "hpa")]
    Autoscaler(Autoscaler),
    /// Its name, unless there is only one.
    #[serde(rename = "hpa_gone", deserialize_with = "text_or_nothing")]
    AutoscalerGone(String),
    Pod(Pod),
    PodGone(String),
    /// The usage of every pod in the metrics API.
    Usage(Vec<Usage>),
    #[serde(alias = "answer")]
    Response(Response),
    Event(KubeEvent),
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

fn anything<'de, D: Deserializer<'de>>(value: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(value).map(|_| ())
}

/// Anything but a text is none.
fn text_or_nothing<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let value = Value::deserialize(value)?;
    Ok(value.as_str().unwrap_or_default().into())
}

#[derive(Clone, Debug, Deserialize)]
pub struct Observation {
    /// Seconds since the recording began.
    pub at: f64,
    #[serde(flatten)]
    pub kind: ObservationKind,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(from = "apps::Deployment")]
pub struct Deployment {
    /// The number that the autoscaler set.
    pub desired: u32,
    /// The number of pods that exist.
    pub existing: u32,
    /// Those of the current template.
    pub updated: u32,
    pub ready: u32,
    /// The requests in its template.
    pub requests: Vec<Container>,
    /// Why pods are not created, as a message of the API.
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "HorizontalPodAutoscaler")]
pub struct Autoscaler {
    pub name: String,
    pub rules: Rules,
    /// In the order of its specification.
    pub metrics: Vec<Metric>,
    /// Whether it is that of a ScaledObject.
    pub is_of_keda: bool,
    /// The replicas before its last computation, and the number that it set.
    pub from: u32,
    pub to: u32,
    pub status: HorizontalPodAutoscalerStatus,
}

/// A metric with its target; its status is unknown until it was read, and while it fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub kind: MetricKind,
    pub name: String,
    /// The container whose usage it is, unless it is that of whole pods.
    pub container: Option<String>,
    /// Above 0.
    pub target: i64,
    pub unit: Unit,
    pub current: Option<i64>,
    /// The average value, in thousandths, which is there beside a percentage too.
    pub average: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// The usage of the pods, or of one of their containers.
    Resource,
    /// A value that is divided by the number of pods.
    PerPod,
    /// Any other value.
    Value,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)?;
        let mut container = self.container.iter();
        container.try_for_each(|container| write!(f, " of {container}"))
    }
}

impl Metric {
    pub fn is_resource(&self) -> bool {
        self.kind == MetricKind::Resource
    }

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
        let mut resources = self.metrics.iter().filter(|one| one.is_resource());
        resources.find(|metric| metric.name == "cpu")
    }

    /// Whether KEDA may scale its target to zero, which needs a metric that is not of the pods.
    pub fn may_scale_to_zero(&self) -> bool {
        !self.metrics.iter().all(Metric::is_resource)
    }

    pub fn reading(&self) -> Option<Reading> {
        self.cpu()?.reading()
    }

    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == kind)
    }

    /// A condition, if this is its status.
    pub fn condition_with(&self, kind: &str, status: &str) -> Option<&Condition> {
        self.condition(kind).filter(|one| one.status == status)
    }

    /// The name of the metric that decided, by the message of a condition.
    fn name_in_message(&self) -> Option<&str> {
        let active = self.condition_with("ScalingActive", "True")?;
        let message = active.message.as_deref()?;
        let (_, name) = message.split_once("a replica count from ")?;
        // The selector of an external metric follows without a space.
        name.split('(').next().map(str::trim_end)
    }

    /// The metric that decided, if the autoscaler names it.
    pub fn named_metric(&self) -> Option<&Metric> {
        let name = self.name_in_message()?;
        let is_named = |metric: &&Metric| {
            if !metric.is_resource() {
                return name.ends_with(&format!(" metric {}", metric.name));
            }
            let rest = name.strip_prefix(&*metric.name).unwrap_or_default();
            // The average of a container is named as that of the pods is.
            let is_container = rest.starts_with(" container resource");
            is_container && metric.container.is_some() || rest.starts_with(" resource")
        };
        let mut named = self.metrics.iter().filter(is_named);
        let first = named.next()?;
        named.next().is_none().then_some(first)
    }

    /// The metric that decided, as the autoscaler names it, or else the one that the rules give.
    pub fn deciding_metric(&self, metric: &Metric) -> String {
        let name = self.name_in_message();
        name.map_or_else(|| metric.to_string(), Into::into)
    }

    /// The condition that explains its behaviour best.
    pub fn complaint(&self) -> Option<&Condition> {
        let complaints = [
            ("AbleToScale", "False"),
            ("ScalingActive", "False"),
            ("ScalingLimited", "True"),
        ];
        let mut complaints = complaints.into_iter();
        complaints.find_map(|(kind, status)| self.condition_with(kind, status))
    }

    /// Whether its status is that of a decision. A new autoscaler has 0 replicas in its status, and
    /// one that fails keeps its earlier status.
    pub fn has_decided(&self) -> bool {
        let able = self.condition_with("AbleToScale", "True");
        able.is_some_and(|able| {
            able.reason.as_deref() == Some("SucceededRescale")
                || self.condition_with("ScalingActive", "True").is_some()
        })
    }

    /// When it last changed the replicas, in whole seconds.
    pub fn last_scaled(&self) -> Option<Timestamp> {
        self.status.last_scale_time.as_ref().map(|time| time.0)
    }
}

/// The reason and the message of a condition.
pub fn quote(condition: &Condition) -> String {
    let [reason, message] = [&condition.reason, &condition.message];
    let [reason, message] = [reason, message].map(|text| text.as_deref().unwrap_or_default());
    format!("{reason}: {message}")
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "core::Pod")]
pub struct Pod {
    pub name: String,
    pub created: Option<Timestamp>,
    /// Why it has no node, as a message of the scheduler.
    pub unscheduled: Option<String>,
    pub state: PodState,
    pub requests: Vec<Container>,
}

impl Pod {
    pub fn is_ready(&self) -> bool {
        matches!(self.state.readiness, Some((Readiness::Ready, _)))
    }
}

/// The usage of a pod in the metrics API, averaged over a window.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Usage {
    pub metadata: ObjectMeta,
    #[serde(flatten)]
    pub window: MetricsWindow,
    pub containers: Vec<Container>,
}

impl Usage {
    pub fn pod(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

/// The usage or the requests of a container; the name is empty for those of a whole pod.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Container {
    pub name: String,
    #[serde(rename = "usage")]
    pub resources: BTreeMap<String, Quantity>,
}

/// The sum over all containers or the value of one, in thousandths (millicores, thousandths of a
/// byte); `None` unless each of them has a value.
pub fn total(containers: &[Container], resource: &str, container: Option<&str>) -> Option<i64> {
    let value = |one: &Container| thousandths(one.resources.get(resource)?);
    let name = container.unwrap_or_default();
    // Those of the whole pod take precedence.
    let own = containers.iter().find(|one| one.name == name);
    if own.is_some() || container.is_some() {
        return value(own?);
    }
    let mut values = containers.iter().map(value);
    let first = values.next()??;
    values.try_fold(first, |sum, value| Some(sum.saturating_add(value?)))
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Response {
    /// From sending the request until the whole response was received.
    pub seconds: f64,
    /// Why it counts as failed.
    #[serde(default)]
    pub failed: Option<String>,
}

/// A Kubernetes event about the Deployment, its autoscaler or one of its pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KubeEvent {
    pub involved_object: core::ObjectReference,
    pub reason: String,
    pub message: String,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
    first_timestamp: Option<Timestamp>,
}

impl KubeEvent {
    /// The name of the object.
    pub fn about(&self) -> &str {
        self.involved_object.name.as_deref().unwrap_or_default()
    }

    /// When it last happened, by the clock of the cluster.
    pub fn time(&self) -> Option<Timestamp> {
        let once = self.event_time.or(self.first_timestamp);
        self.last_timestamp.or(once)
    }

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
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub began: Timestamp,
    /// The flags of the controller manager, for all autoscalers that are added from now on.
    pub flags: Flags,
    pub observations: Vec<Observation>,
    pub state: State,
    traffic_started: Option<f64>,
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
        let end = self.traffic_ended().map_or(self.end(), |(end, _)| end);
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

    /// When the last traffic ended, and its result, unless it is still running.
    fn traffic_ended(&self) -> Option<(f64, &TrafficResult)> {
        let mut latest = self.observations.iter().rev();
        let ended = latest.find_map(|Observation { at, kind }| match kind {
            ObservationKind::TrafficStarted(_) => Some(None),
            ObservationKind::TrafficEnded(result) => Some(Some((*at, result))),
            _ => None,
        });
        ended.flatten()
    }

    pub fn traffic_result(&self) -> Option<&TrafficResult> {
        self.traffic_ended().map(|(_, result)| result)
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

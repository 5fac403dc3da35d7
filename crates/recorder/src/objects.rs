//! The objects of the API that are observed, as far as they matter for an autoscaler.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1 as apps,
        autoscaling::v2::{
            HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition as Condition,
            HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec, MetricValueStatus,
        },
        core::v1 as core,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde::{Deserialize, Serialize};

use crate::{
    quantity::thousandths,
    rules::{Flags, MetricsWindow, PodState, Readiness, Reading, Rules, Unit},
};

#[derive(Clone, Debug, Deserialize)]
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

impl From<apps::Deployment> for Deployment {
    fn from(object: apps::Deployment) -> Self {
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let template = spec.template.spec.unwrap_or_default();
        let failure = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        Self {
            desired: count(spec.replicas.or(Some(1))),
            existing: count(status.replicas),
            updated: count(status.updated_replicas),
            ready: count(status.ready_replicas),
            requests: requests(&template),
            failure: failure.map(|failure| failure.message.unwrap_or_default()),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
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

impl From<core::Pod> for Pod {
    fn from(object: core::Pod) -> Self {
        let status = object.status.unwrap_or_default();
        let phase = status.phase.as_deref();
        let conditions = status.conditions.iter().flatten();
        let condition = |kind| conditions.clone().find(|condition| condition.type_ == kind);
        let unscheduled = condition("PodScheduled").filter(|condition| condition.status == "False");
        let readiness = condition("Ready").and_then(|condition| {
            let readiness = match condition.status.as_str() {
                "True" => Readiness::Ready,
                "False" => Readiness::NotReady,
                _ => Readiness::Unknown,
            };
            Some((readiness, condition.last_transition_time.as_ref()?.0))
        });
        Self {
            created: object.metadata.creation_timestamp.map(|time| time.0),
            unscheduled: unscheduled.map(|why| why.message.clone().unwrap_or_default()),
            state: PodState {
                started: status.start_time.as_ref().map(|time| time.0),
                readiness,
                pending: phase == Some("Pending"),
                leaving: phase == Some("Failed") || object.metadata.deletion_timestamp.is_some(),
            },
            requests: requests(&object.spec.unwrap_or_default()),
            name: object.metadata.name.unwrap_or_default(),
        }
    }
}

/// The requests of each container; a container without a request gets its limit, as the API server
/// sets it for a pod. The empty name is the pod's own request, which takes precedence.
fn requests(pod: &core::PodSpec) -> Vec<Container> {
    let requests = |name: &str, resources: Option<&core::ResourceRequirements>| {
        let resources = resources.cloned().unwrap_or_default();
        let mut requests = resources.limits.unwrap_or_default();
        requests.extend(resources.requests.unwrap_or_default());
        Container {
            name: name.into(),
            resources: requests,
        }
    };
    let init_containers = pod.init_containers.iter().flatten();
    let sidecars = init_containers.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let containers = pod.containers.iter().chain(sidecars);
    let containers = containers.map(|one| requests(&one.name, one.resources.as_ref()));
    let own = pod.resources.iter().map(|own| requests("", Some(own)));
    containers.chain(own).collect()
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

#[derive(Clone, Debug, Deserialize)]
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

impl From<HorizontalPodAutoscaler> for Autoscaler {
    fn from(object: HorizontalPodAutoscaler) -> Self {
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let statuses = status.current_metrics.iter().flatten();
        // After an edit they are still those of the old metrics.
        let mut statuses = statuses.filter_map(source).collect();
        let metrics = spec.metrics.iter().flatten();
        let metrics = metrics.filter_map(|spec| metric(spec, &mut statuses));
        let owners = object.metadata.owner_references.unwrap_or_default();
        Self {
            name: object.metadata.name.unwrap_or_default(),
            rules: Rules {
                min: count(spec.min_replicas.or(Some(1))),
                max: count(Some(spec.max_replicas)),
                behavior: spec.behavior,
                flags: Flags::default(),
            },
            metrics: metrics.collect(),
            is_of_keda: owners.iter().any(|owner| owner.kind == "ScaledObject"),
            from: count(status.current_replicas),
            to: count(Some(status.desired_replicas)),
            status,
        }
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
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}: {}", text(&condition.reason), text(&condition.message))
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

/// A metric of the specification with its target, or of the status with its current value.
#[derive(Deserialize)]
struct Source {
    /// That of a resource; all other sources have a metric.
    #[serde(default)]
    name: String,
    container: Option<String>,
    metric: Option<MetricIdentifier>,
    #[serde(rename = "target", alias = "current")]
    value: MetricValueStatus,
}

/// Nothing if the metric fails.
fn source(metric: impl Serialize) -> Option<Source> {
    let metric = serde_json::to_value(metric).ok()?;
    // The other field is the type.
    let source = metric
        .as_object()?
        .values()
        .find(|value| value.is_object())?;
    Source::deserialize(source).ok()
}

impl Source {
    fn name(&self) -> &str {
        let metric = self.metric.as_ref().map(|metric| &metric.name);
        metric.unwrap_or(&self.name)
    }

    /// Whether it is the same metric, with or without an average.
    fn is_metric_of(&self, other: &Self) -> bool {
        self.metric.is_some() == other.metric.is_some()
            && (self.name(), &self.container) == (other.name(), &other.container)
    }
}

/// Nothing unless the specification has a target, above 0 as the API server demands. Takes the
/// status of the metric out of `statuses`.
fn metric(spec: &MetricSpec, statuses: &mut Vec<Source>) -> Option<Metric> {
    let source = source(spec)?;
    let place = statuses
        .iter()
        .position(|status| source.is_metric_of(status));
    let status = place.map_or_else(Default::default, |place| statuses.remove(place).value);
    // If it is divided by 0 pods, an autoscaler writes infinity as an integer.
    let average = value(&status).filter(|value| !matches!(*value, i64::MIN | i64::MAX));
    let is_average = source.value.average_value.is_some() && spec.type_ != "Pods";
    let kind = match source.metric {
        None => MetricKind::Resource,
        Some(_) if is_average => MetricKind::PerPod,
        Some(_) => MetricKind::Value,
    };
    let (target, unit, current) = match source.value.average_utilization {
        Some(target) => {
            let current = status.average_utilization.map(i64::from);
            (target.into(), Unit::Percent, current)
        }
        None if kind == MetricKind::Resource && source.name == "cpu" => {
            (value(&source.value)?, Unit::Millicores, average)
        }
        None => (value(&source.value)?, Unit::Thousandths, average),
    };
    (target > 0).then(|| Metric {
        kind,
        name: source.name().into(),
        container: source.container.clone(),
        target,
        unit,
        current,
        average,
    })
}

fn value(status: &MetricValueStatus) -> Option<i64> {
    let value = status.average_value.as_ref().or(status.value.as_ref());
    value.and_then(thousandths)
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

fn count(number: Option<i32>) -> u32 {
    number.unwrap_or_default().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::common;

    #[test]
    fn a_metric_without_a_target_is_left_out() {
        let mut object = common::hpa(1, 1, 7);
        let cpu = object["spec"]["metrics"][0].clone();
        let metric = |name: &str, target: Value| {
            let resource = json!({"name": name, "target": target});
            json!({"type": "Resource", "resource": resource})
        };
        let none = json!({"type": "AverageValue"});
        let zero = json!({"type": "AverageValue", "averageValue": "0"});
        object["spec"]["metrics"] = json!([metric("memory", none), metric("storage", zero), cpu]);
        let object: Autoscaler = serde_json::from_value(object).expect("it is an HPA");
        let metrics = object.metrics.iter();
        let short: Vec<_> = metrics.map(|one| (one.target, one.current)).collect();
        assert_eq!(short, [(50, Some(7))]);
    }
}

//! Observations of a cluster, as objects of its API, and their file `observations.jsonl`.
//!
//! The first line of the file says when the recording began and how it ended, each other line is one
//! observation: `{"at": 12.5, "pod": {…}}`. From here on, a live recording and one that is read from
//! such a file are handled alike.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1 as apps,
        autoscaling::v2::{self as autoscaling, HorizontalPodAutoscaler},
        core::v1 as core,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::{
    expectation::Verdict,
    record::{
        Autoscaler, Condition, Deployment, KubeEvent, Metric, MetricStatus, ObservationKind, Pod,
        Readiness, Record, Resources, Response, Source, Usage, Window,
    },
    rules::{Amount, Behavior, Direction, Flags, Policy, Rules, Select, Unit},
    traffic::TrafficResult,
};

/// The name of the watch of autoscalers, in `lost` and `regained`.
pub const AUTOSCALERS: &str = "autoscalers";

/// An observation as the API returned it: its key and its value in a line of the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RawObservation {
    Hpa(Box<HorizontalPodAutoscaler>),
    /// Its name, or `true` if there is only one.
    HpaGone(Value),
    Deployment(Box<apps::Deployment>),
    DeploymentGone(Value),
    Pod(Box<core::Pod>),
    PodGone(String),
    /// A Kubernetes event about the Deployment, its autoscaler or one of its pods.
    Event(Box<core::Event>),
    /// The usage of all pods in the metrics API.
    Usage(Vec<PodMetrics>),
    #[serde(alias = "answer")]
    Response(Response),
    /// A label of the traffic.
    #[serde(alias = "load_started")]
    TrafficStarted(Value),
    #[serde(alias = "load_ended")]
    TrafficEnded(Box<TrafficResult>),
    /// A watch or poll that failed, and why.
    Lost {
        what: String,
        why: String,
    },
    Regained {
        what: String,
    },
}

/// The usage of a pod in the metrics API.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PodMetrics {
    pub metadata: ObjectMeta,
    pub timestamp: Timestamp,
    pub window: SignedDuration,
    pub containers: Vec<ContainerMetrics>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ContainerMetrics {
    pub name: String,
    pub usage: BTreeMap<String, Quantity>,
}

#[derive(Debug, Error)]
pub enum Error {
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{path}: the first line must be {{\"began\": \"<RFC 3339>\", \"deployment\": \"<name>\"}}: {why}"
    )]
    Header { path: PathBuf, why: String },
    #[error("{path}, line {line}: not an observation: {why}")]
    Line {
        path: PathBuf,
        line: usize,
        why: serde_json::Error,
    },
}

/// The first line of the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Header {
    pub began: Timestamp,
    /// The name of the Deployment.
    pub deployment: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The flags of the controller manager that the explanation assumes.
    #[serde(default)]
    pub flags: Flags,
    /// How the recording ended.
    #[serde(default)]
    pub verdict: Verdict,
}

/// Any other line.
#[derive(Debug, Deserialize, Serialize)]
pub struct Line<S = RawObservation> {
    /// Seconds since the recording began.
    pub at: f64,
    #[serde(flatten)]
    pub seen: S,
}

/// The file of a running recording. It has each line as soon as it is added, so that nothing is lost if the recorder
/// is killed or fails.
pub struct Log(fs::File);

impl Log {
    /// The header is the one that a recording has that never finishes.
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let mut log = Self(fs::File::create(path)?);
        log.write(header)?;
        Ok(log)
    }

    pub fn add(&mut self, at: f64, seen: &RawObservation) -> io::Result<()> {
        self.write(&Line { at, seen })
    }

    /// Replaces the header; the old file stays until the new one is complete.
    pub fn finish(self, path: &Path, header: &Header) -> io::Result<()> {
        let new_path = path.with_extension("jsonl.new");
        let mut old = io::BufReader::new(fs::File::open(path)?);
        old.skip_until(b'\n')?;
        let mut new = Self::create(&new_path, header)?;
        io::copy(&mut old, &mut new.0)?;
        fs::rename(new_path, path)
    }

    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.0.write_all(&bytes)
    }
}

/// Reads a recording from the file of its observations.
///
/// `flags` changes those that the recording assumed.
pub fn read(path: &Path, flags: impl Fn(&mut Flags)) -> Result<(Header, Record), Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.into(),
        source,
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut lines = io::BufReader::new(file).lines().peekable();
    let first = lines.next().transpose().map_err(unreadable)?;
    let mut header: Header =
        serde_json::from_str(&first.unwrap_or_default()).map_err(|error| Error::Header {
            path: path.into(),
            why: error.to_string(),
        })?;
    flags(&mut header.flags);
    let mut record = Record::new(header.began);
    record.flags = header.flags;
    let mut number = 1;
    while let Some(line) = lines.next() {
        number += 1;
        let line = line.map_err(unreadable)?;
        match serde_json::from_str::<Line>(&line) {
            Ok(Line { at, seen }) => record.add(at, seen.into()),
            // The disk was full, or the machine was turned off.
            Err(why) if why.is_eof() && lines.peek().is_none() => {}
            Err(why) => {
                return Err(Error::Line {
                    path: path.into(),
                    line: number,
                    why,
                });
            }
        }
    }
    Ok((header, record))
}

/// Removes the fields that the explanation does not need. Above all no secret may get into a file:
/// no environment, no command, no annotations (kubectl keeps whole objects there).
pub trait Reduced {
    fn reduced(self) -> Self;
}

impl Reduced for ObjectMeta {
    fn reduced(self) -> Self {
        Self {
            annotations: None,
            managed_fields: None,
            ..self
        }
    }
}

impl Reduced for core::PodSpec {
    fn reduced(self) -> Self {
        let reduced = |containers: Vec<core::Container>| -> Vec<_> {
            let containers = containers.into_iter();
            containers
                .map(|container| core::Container {
                    name: container.name,
                    image: container.image,
                    resources: container.resources,
                    restart_policy: container.restart_policy,
                    ..Default::default()
                })
                .collect()
        };
        Self {
            containers: reduced(self.containers),
            init_containers: self.init_containers.map(reduced),
            resources: self.resources,
            overhead: self.overhead,
            ..Default::default()
        }
    }
}

impl Reduced for core::Pod {
    fn reduced(self) -> Self {
        Self {
            metadata: self.metadata.reduced(),
            spec: self.spec.map(Reduced::reduced),
            // The states of containers include the last output of the app.
            status: self.status.map(|status| core::PodStatus {
                phase: status.phase,
                conditions: status.conditions,
                start_time: status.start_time,
                reason: status.reason,
                message: status.message,
                ..Default::default()
            }),
        }
    }
}

impl Reduced for apps::Deployment {
    fn reduced(self) -> Self {
        let spec = self.spec.map(|spec| apps::DeploymentSpec {
            template: core::PodTemplateSpec {
                metadata: spec.template.metadata.map(Reduced::reduced),
                spec: spec.template.spec.map(Reduced::reduced),
            },
            ..spec
        });
        Self {
            metadata: self.metadata.reduced(),
            spec,
            status: self.status,
        }
    }
}

impl Reduced for HorizontalPodAutoscaler {
    fn reduced(self) -> Self {
        Self {
            metadata: self.metadata.reduced(),
            ..self
        }
    }
}

impl Reduced for PodMetrics {
    fn reduced(self) -> Self {
        Self {
            metadata: self.metadata.reduced(),
            ..self
        }
    }
}

impl Reduced for core::Event {
    fn reduced(self) -> Self {
        Self {
            metadata: self.metadata.reduced(),
            ..self
        }
    }
}

impl From<RawObservation> for ObservationKind {
    fn from(seen: RawObservation) -> Self {
        let name = |value: Value| value.as_str().unwrap_or_default().to_string();
        match seen {
            RawObservation::Hpa(object) => Self::Autoscaler((*object).into()),
            RawObservation::HpaGone(value) => Self::AutoscalerGone(name(value)),
            RawObservation::Deployment(object) => Self::Deployment((*object).into()),
            RawObservation::DeploymentGone(_) => Self::DeploymentGone,
            RawObservation::Pod(object) => Self::Pod((*object).into()),
            RawObservation::PodGone(name) => Self::PodGone(name),
            RawObservation::Event(object) => Self::Event((*object).into()),
            RawObservation::Usage(pods) => {
                let pods = pods.into_iter();
                Self::Usage(
                    pods.map(|pod| (pod.metadata.name.clone().unwrap_or_default(), pod.into()))
                        .collect(),
                )
            }
            RawObservation::Response(response) => Self::Response(response),
            RawObservation::TrafficStarted(label) => Self::TrafficStarted(name(label)),
            RawObservation::TrafficEnded(result) => Self::TrafficEnded(*result),
            RawObservation::Lost { what, why } => Self::Lost { what, why },
            RawObservation::Regained { what } => Self::Regained { what },
        }
    }
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
            started: status.start_time.as_ref().map(|time| time.0),
            readiness,
            pending: phase == Some("Pending"),
            unscheduled: unscheduled.map(|why| why.message.clone().unwrap_or_default()),
            leaving: phase == Some("Failed") || object.metadata.deletion_timestamp.is_some(),
            requests: requests(&object.spec.unwrap_or_default()),
            name: object.metadata.name.unwrap_or_default(),
        }
    }
}

/// The requests of each container; a container without a request gets its limit, as the API server
/// sets it for a pod. The empty name is the pod's own request, which takes precedence.
fn requests(pod: &core::PodSpec) -> Resources {
    let requests = |resources: Option<&core::ResourceRequirements>| {
        let Some(resources) = resources else {
            return BTreeMap::new();
        };
        let mut requests = resources.limits.clone().unwrap_or_default();
        requests.extend(resources.requests.clone().unwrap_or_default());
        quantities(&requests)
    };
    let sidecars = pod
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = pod.containers.iter().chain(sidecars);
    let mut all: Resources = containers
        .map(|container| {
            (
                container.name.clone(),
                requests(container.resources.as_ref()),
            )
        })
        .collect();
    if pod.resources.is_some() {
        all.insert(String::new(), requests(pod.resources.as_ref()));
    }
    all
}

impl From<PodMetrics> for Usage {
    fn from(metrics: PodMetrics) -> Self {
        let containers = metrics.containers.into_iter();
        Self {
            window: Window {
                ended: metrics.timestamp,
                length: metrics.window,
            },
            containers: containers
                .map(|container| (container.name, quantities(&container.usage)))
                .collect(),
        }
    }
}

impl From<core::Event> for KubeEvent {
    fn from(object: core::Event) -> Self {
        Self {
            kind: object.involved_object.kind.unwrap_or_default(),
            about: object.involved_object.name.unwrap_or_default(),
            reason: object.reason.unwrap_or_default(),
            message: object.message.unwrap_or_default(),
        }
    }
}

impl From<HorizontalPodAutoscaler> for Autoscaler {
    fn from(object: HorizontalPodAutoscaler) -> Self {
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let statuses = status.current_metrics.unwrap_or_default();
        let statuses: Vec<_> = statuses.iter().filter_map(metric_status).collect();
        // After an edit the status is still that of the old metrics.
        let mut unused = statuses.clone();
        let metrics = spec.metrics.iter().flatten();
        let metrics = metrics
            .filter_map(|spec| metric(spec, &mut unused))
            .collect();
        let owners = object.metadata.owner_references.unwrap_or_default();
        let scaled_object = owners
            .into_iter()
            .find(|owner| owner.kind == "ScaledObject");
        let conditions = status.conditions.unwrap_or_default().into_iter();
        Self {
            name: object.metadata.name.unwrap_or_default(),
            rules: Rules {
                min: count(spec.min_replicas.or(Some(1))),
                max: count(Some(spec.max_replicas)),
                behavior: spec.behavior.as_ref().map(behavior),
                flags: Flags::default(),
            },
            metrics,
            scaled_object: scaled_object.map(|owner| owner.name),
            from: count(status.current_replicas),
            to: count(Some(status.desired_replicas)),
            last_scaled: status.last_scale_time.map(|time| time.0),
            conditions: conditions
                .map(|condition| Condition {
                    kind: condition.type_,
                    is_true: condition.status == "True",
                    reason: condition.reason.unwrap_or_default(),
                    message: condition.message.unwrap_or_default(),
                })
                .collect(),
            statuses,
        }
    }
}

/// Nothing unless the specification has a target, above 0 as the API server demands. Takes the status
/// of the metric out of `statuses`.
fn metric(spec: &autoscaling::MetricSpec, statuses: &mut Vec<MetricStatus>) -> Option<Metric> {
    let (source, target) = if let Some(resource) = &spec.resource {
        (Source::resource(&resource.name, None), &resource.target)
    } else if let Some(resource) = &spec.container_resource {
        let source = Source::resource(&resource.name, Some(&resource.container));
        (source, &resource.target)
    } else if let Some(external) = &spec.external {
        let per_pod = external.target.average_value.is_some();
        (
            Source::other(&external.metric.name, per_pod),
            &external.target,
        )
    } else if let Some(object) = &spec.object {
        let per_pod = object.target.average_value.is_some();
        (Source::other(&object.metric.name, per_pod), &object.target)
    } else if let Some(pods) = &spec.pods {
        (Source::other(&pods.metric.name, false), &pods.target)
    } else {
        return None;
    };
    let place = statuses
        .iter()
        .position(|(other, ..)| source.is_metric_of(other));
    let (percent, average) = place.map_or((None, None), |place| {
        let (_, percent, average) = statuses.remove(place);
        (percent, average.filter(|value| is_value(*value)))
    });
    let (target, unit, current) = match target.average_utilization {
        Some(target) => (i64::from(target), Unit::Percent, percent),
        None => {
            let unit = if source.is_cpu() {
                Unit::Millicores
            } else {
                Unit::Thousandths
            };
            (value(&target.average_value, &target.value)?, unit, average)
        }
    };
    (target > 0).then_some(Metric {
        source,
        target,
        unit,
        current,
        average,
    })
}

/// Not what an autoscaler writes if it divides by 0 pods: infinity as an integer.
fn is_value(value: i64) -> bool {
    !matches!(value, i64::MIN | i64::MAX)
}

/// The place of a metric that fails is empty.
fn metric_status(status: &autoscaling::MetricStatus) -> Option<MetricStatus> {
    let (source, current) = if let Some(resource) = &status.resource {
        (Source::resource(&resource.name, None), &resource.current)
    } else if let Some(resource) = &status.container_resource {
        let source = Source::resource(&resource.name, Some(&resource.container));
        (source, &resource.current)
    } else if let Some(external) = &status.external {
        (
            Source::other(&external.metric.name, true),
            &external.current,
        )
    } else if let Some(object) = &status.object {
        (Source::other(&object.metric.name, true), &object.current)
    } else if let Some(pods) = &status.pods {
        (Source::other(&pods.metric.name, true), &pods.current)
    } else {
        return None;
    };
    let percent = current.average_utilization.map(i64::from);
    Some((
        source,
        percent,
        value(&current.average_value, &current.value),
    ))
}

fn value(average: &Option<Quantity>, value: &Option<Quantity>) -> Option<i64> {
    average.as_ref().or(value.as_ref()).and_then(thousandths)
}

fn behavior(behavior: &autoscaling::HorizontalPodAutoscalerBehavior) -> Behavior {
    let none = autoscaling::HPAScalingRules::default();
    let up = behavior.scale_up.as_ref().unwrap_or(&none);
    let down = behavior.scale_down.as_ref().unwrap_or(&none);
    Behavior {
        up: direction(up),
        down: direction(down),
    }
}

fn direction(rules: &autoscaling::HPAScalingRules) -> Direction {
    let policy = |policy: &autoscaling::HPAScalingPolicy| {
        let value = count(Some(policy.value));
        Policy {
            amount: if policy.type_ == "Percent" {
                Amount::Percent(value)
            } else {
                Amount::Pods(value)
            },
            period: count(Some(policy.period_seconds)),
        }
    };
    Direction {
        window: rules
            .stabilization_window_seconds
            .map(|seconds| count(Some(seconds))),
        tolerance: rules
            .tolerance
            .as_ref()
            .and_then(thousandths)
            .map(|tolerance| tolerance as f64 / 1000.0),
        select: match rules.select_policy.as_deref() {
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            _ => Select::Max,
        },
        policies: rules.policies.iter().flatten().map(policy).collect(),
    }
}

fn count(number: Option<i32>) -> u32 {
    number.unwrap_or_default().try_into().unwrap_or_default()
}

fn quantities(quantities: &BTreeMap<String, Quantity>) -> BTreeMap<String, i64> {
    let quantities = quantities.iter();
    quantities
        .filter_map(|(resource, quantity)| Some((resource.clone(), thousandths(quantity)?)))
        .collect()
}

/// A quantity in thousandths (millicores, thousandths of a byte), rounded up: `0.1`, `100m`, `24756128n`, `64Mi`.
/// Too large ones are the largest integer.
// By hand: kube_quantity brings a decimal library and counts bytes, k8s_quantity_parser knows no nanocores.
fn thousandths(Quantity(quantity): &Quantity) -> Option<i64> {
    let number = quantity.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &quantity[number.len()..] {
        "n" => 1e-6,
        "u" => 1e-3,
        "m" => 1.0,
        "" => 1e3,
        "k" => 1e6,
        "M" => 1e9,
        "G" => 1e12,
        "T" => 1e15,
        "P" => 1e18,
        "E" => 1e21,
        "Ki" => 1024e3,
        "Mi" => 1024e3 * 1024f64,
        "Gi" => 1024e3 * 1024f64.powi(2),
        "Ti" => 1024e3 * 1024f64.powi(3),
        "Pi" => 1024e3 * 1024f64.powi(4),
        "Ei" => 1024e3 * 1024f64.powi(5),
        _ => return None,
    };
    let thousandths = number.parse::<f64>().ok()? * factor;
    // The error of a binary fraction must not round a whole number up.
    Some(((thousandths * 1e6).round() / 1e6).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_with_every_suffix() {
        for (quantity, expected) in [
            ("24756128n", 25),
            ("7u", 1),
            ("100m", 100),
            ("0.1", 100),
            ("1e3", 1_000_000),
            ("2k", 2_000_000),
            ("2P", 2_000_000_000_000_000_000),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("2Gi", 2000 << 30),
            ("2Ti", 2000 << 40),
            ("2Pi", 2000 << 50),
            ("1E", i64::MAX),
            ("1Ei", i64::MAX),
        ] {
            assert_eq!(
                thousandths(&Quantity(quantity.into())),
                Some(expected),
                "{quantity}"
            );
        }
        for quantity in ["", "m", "1x", "1mi"] {
            assert_eq!(thousandths(&Quantity(quantity.into())), None, "{quantity}");
        }
    }

    #[test]
    fn a_metric_without_a_target_is_left_out() {
        let metric = |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
        let current = |name: &str, value: &str| json!({"type": "Resource", "resource": {"name": name, "current": {"averageValue": value}}});
        let object: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "spec": {
                "maxReplicas": 4, "scaleTargetRef": {"kind": "Deployment", "name": "a"},
                "metrics": [
                    metric("memory", json!({"type": "AverageValue"})),
                    metric("storage", json!({"type": "AverageValue", "averageValue": "0"})),
                    metric("cpu", json!({"type": "AverageValue", "averageValue": "50m"})),
                ],
            },
            "status": {"desiredReplicas": 1, "currentMetrics": [current("memory", "1Mi"), current("storage", "1"), current("cpu", "7m")]},
        }))
        .expect("an autoscaler");
        let metrics = Autoscaler::from(object).metrics;
        let short: Vec<_> = metrics
            .iter()
            .map(|one| (one.target, one.current))
            .collect();
        assert_eq!(short, [(50, Some(7))]);
    }
}

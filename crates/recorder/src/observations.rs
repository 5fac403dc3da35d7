//! Observations of a cluster, as objects of its API, and their file `observations.jsonl`.
//!
//! The first line of the file says when the recording began and how it ended, each other line is
//! one observation: `{"at": 12.5, "pod": {…}}`. From here on, a live recording and one that is read
//! from such a file are handled alike.

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
        autoscaling::v2::{self as autoscaling, HorizontalPodAutoscaler, MetricValueStatus},
        core::v1 as core,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::{
    quantity::thousandths,
    record::{
        Autoscaler, Condition, Deployment, KubeEvent, Metric, ObservationKind, Pod, Record,
        Resources, Response, Source, Usage,
    },
    rules::{Flags, MetricsWindow, PodState, Readiness, Rules, Unit},
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
    #[error("{path} cannot be read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{path}: the first line must be \
         {{\"began\": \"<RFC 3339>\", \"deployment\": \"<name>\"}}: {why}"
    )]
    Header {
        path: PathBuf,
        why: serde_json::Error,
    },
    #[error("{path}, line {}: not an observation: {why}", .why.line())]
    Line {
        path: PathBuf,
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

/// The result of a recording; the exit status is its place in this list.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Verdict {
    /// The expectation, and when it was met; `None` without an expectation.
    AsExpected(Option<String>),
    Unexpected(String),
    Unobserved(String),
}

impl Default for Verdict {
    fn default() -> Self {
        Self::AsExpected(None)
    }
}

impl Verdict {
    pub fn status(&self) -> u8 {
        match self {
            Self::AsExpected(_) => 0,
            Self::Unexpected(_) => 1,
            Self::Unobserved(_) => 2,
        }
    }
}

/// Any other line.
#[derive(Debug, Deserialize, Serialize)]
pub struct Line<S = RawObservation> {
    /// Seconds since the recording began.
    pub at: f64,
    #[serde(flatten)]
    pub seen: S,
}

/// The file of a running recording. It has each line as soon as it is added, so that nothing is
/// lost if the recorder is killed or fails.
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
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let mut lines = serde_json::Deserializer::from_str(&text);
    let header = Header::deserialize(&mut lines);
    let mut header = header.map_err(|why| Error::Header {
        path: path.into(),
        why,
    })?;
    flags(&mut header.flags);
    let mut record = Record::new(header.began);
    record.flags = header.flags;
    for line in lines.into_iter::<Line>() {
        match line {
            Ok(Line { at, seen }) => record.add(at, seen.into()),
            // The disk was full, or the machine was turned off.
            Err(why) if why.is_eof() => {}
            Err(why) => {
                return Err(Error::Line {
                    path: path.into(),
                    why,
                });
            }
        }
    }
    Ok((header, record))
}

impl RawObservation {
    /// Removes the fields that the explanation does not need. Above all no secret may get into a
    /// file: no environment, no command, no annotations (kubectl keeps whole objects there).
    pub fn reduced(mut self) -> Self {
        match &mut self {
            Self::Hpa(object) => reduce(&mut object.metadata),
            Self::Event(object) => reduce(&mut object.metadata),
            Self::Usage(pods) => pods.iter_mut().for_each(|pod| reduce(&mut pod.metadata)),
            Self::Deployment(object) => {
                reduce(&mut object.metadata);
                if let Some(apps::DeploymentSpec { template, .. }) = &mut object.spec {
                    template.metadata.iter_mut().for_each(reduce);
                    template.spec = template.spec.as_ref().map(reduced_spec);
                }
            }
            Self::Pod(object) => {
                reduce(&mut object.metadata);
                object.spec = object.spec.as_ref().map(reduced_spec);
                // The states of containers include the last output of the app.
                object.status = object.status.take().map(|status| core::PodStatus {
                    phase: status.phase,
                    conditions: status.conditions,
                    start_time: status.start_time,
                    reason: status.reason,
                    message: status.message,
                    ..Default::default()
                });
            }
            _ => {}
        }
        self
    }
}

fn reduce(metadata: &mut ObjectMeta) {
    metadata.annotations = None;
    metadata.managed_fields = None;
}

fn reduced_spec(spec: &core::PodSpec) -> core::PodSpec {
    let reduced = |container: &core::Container| core::Container {
        name: container.name.clone(),
        image: container.image.clone(),
        resources: container.resources.clone(),
        restart_policy: container.restart_policy.clone(),
        ..Default::default()
    };
    let init_containers = spec.init_containers.as_ref();
    core::PodSpec {
        containers: spec.containers.iter().map(reduced).collect(),
        init_containers: init_containers.map(|all| all.iter().map(reduced).collect()),
        resources: spec.resources.clone(),
        overhead: spec.overhead.clone(),
        ..Default::default()
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
                let named = |pod: PodMetrics| {
                    let name = pod.metadata.name.clone();
                    (name.unwrap_or_default(), pod.into())
                };
                Self::Usage(pods.into_iter().map(named).collect())
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
fn requests(pod: &core::PodSpec) -> Resources {
    let requests = |resources: Option<&core::ResourceRequirements>| {
        let resources = resources.cloned().unwrap_or_default();
        let mut requests = resources.limits.unwrap_or_default();
        requests.extend(resources.requests.unwrap_or_default());
        quantities(&requests)
    };
    let init_containers = pod.init_containers.iter().flatten();
    let sidecars = init_containers.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let containers = pod.containers.iter().chain(sidecars);
    let mut all: Resources = containers
        .map(|one| (one.name.clone(), requests(one.resources.as_ref())))
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
            window: MetricsWindow {
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
        let last = object.last_timestamp.map(|time| time.0);
        let only = object.event_time.map(|time| time.0);
        Self {
            time: last.or(only).or(object.first_timestamp.map(|time| time.0)),
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
        let statuses = status.current_metrics.iter().flatten();
        let statuses: Vec<_> = statuses.filter_map(source_and_value).collect();
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
                behavior: spec.behavior,
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

/// The source of a metric of the specification or of the status, in the API's field for its type.
#[derive(Deserialize)]
struct AnySource {
    /// That of a resource; the other sources have a metric.
    #[serde(default)]
    name: String,
    container: Option<String>,
    metric: Option<autoscaling::MetricIdentifier>,
    #[serde(rename = "target", alias = "current")]
    value: MetricValueStatus,
}

/// The source of a metric with its target or its current value; nothing if the metric fails.
fn source_and_value(metric: &impl Serialize) -> Option<(Source, MetricValueStatus)> {
    let metric = serde_json::to_value(metric).ok()?;
    let fields = metric.as_object()?;
    // The other field is the type.
    let (kind, source) = fields.iter().find(|(_, value)| value.is_object())?;
    let source = AnySource::deserialize(source).ok()?;
    let is_average = source.value.average_value.is_some();
    let name = match source.metric {
        Some(metric) if is_average && kind != "pods" => Source::PerPod(metric.name),
        Some(metric) => Source::Value(metric.name),
        None => Source::Resource {
            name: source.name,
            container: source.container,
        },
    };
    Some((name, source.value))
}

/// Nothing unless the specification has a target, above 0 as the API server demands. Takes the
/// status of the metric out of `statuses`.
fn metric(
    spec: &autoscaling::MetricSpec,
    statuses: &mut Vec<(Source, MetricValueStatus)>,
) -> Option<Metric> {
    let (source, target) = source_and_value(spec)?;
    let mut statuses_of = statuses.iter();
    let place = statuses_of.position(|(other, _)| source.is_metric_of(other));
    let status = place.map_or_else(Default::default, |place| statuses.remove(place).1);
    let average = value(&status).filter(|value| is_value(*value));
    let (target, unit, current) = if let Some(target) = target.average_utilization {
        let current = status.average_utilization.map(i64::from);
        (target.into(), Unit::Percent, current)
    } else if source.is_cpu() {
        (value(&target)?, Unit::Millicores, average)
    } else {
        (value(&target)?, Unit::Thousandths, average)
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

fn value(status: &MetricValueStatus) -> Option<i64> {
    let value = status.average_value.as_ref().or(status.value.as_ref());
    value.and_then(thousandths)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::common;

    #[test]
    fn a_metric_without_a_target_is_left_out() {
        let mut object = common::hpa(1, 1, 7);
        let cpu = object["spec"]["metrics"][0].clone();
        let metric = |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
        object["spec"]["metrics"] = json!([
            metric("memory", json!({"type": "AverageValue"})),
            metric(
                "storage",
                json!({"type": "AverageValue", "averageValue": "0"})
            ),
            cpu,
        ]);
        let object: HorizontalPodAutoscaler = serde_json::from_value(object).expect("it is an HPA");
        let metrics = Autoscaler::from(object).metrics.into_iter();
        let short: Vec<_> = metrics.map(|one| (one.target, one.current)).collect();
        assert_eq!(short, [(50, Some(7))]);
    }
}

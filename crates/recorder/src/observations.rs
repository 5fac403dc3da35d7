//! Observations of a cluster, as objects of its API, and their file `observations.jsonl`.
//!
//! The first line of the file says when the recording began and how it ended, each other line is
//! one observation: `{"at": 12.5, "pod": {…}}`. A live recording reads its own lines, so that one
//! that is read from such a file is the same.

use std::{
    fs,
    io::{self, BufRead, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1 as apps,
    autoscaling::v2::{HorizontalPodAutoscaler, MetricIdentifier, MetricSpec, MetricValueStatus},
    core::v1 as core,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    quantity::thousandths,
    record::{
        Autoscaler, Container, Deployment, Metric, MetricKind, Observation, ObservationKind, Pod,
        Record,
    },
    rules::{Flags, PodState, Readiness, Rules, Unit},
};

/// The name of the watch of autoscalers, in `lost` and `regained`.
pub const AUTOSCALERS: &str = "autoscalers";

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
#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since the recording began.
    at: f64,
    #[serde(flatten)]
    seen: &'a Value,
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

    /// Adds what was seen to the file, such as `{"pod": {…}}`, and returns what its line says.
    pub fn add(&mut self, at: f64, mut seen: Value) -> io::Result<ObservationKind> {
        reduce(&mut seen);
        self.write(&Line { at, seen: &seen })?;
        Ok(ObservationKind::deserialize(seen)?)
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

/// Reads a recording from the file of its observations. `flags` changes those that the recording
/// assumed.
///
/// # Errors
/// If the file cannot be read, or if a line of it is not an observation.
pub fn read(path: &Path, flags: impl Fn(&mut Flags)) -> Result<(Header, Record)> {
    let file = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("{file} cannot be read"))?;
    let mut lines = serde_json::Deserializer::from_str(&text);
    let mut header = Header::deserialize(&mut lines).with_context(|| {
        format!(
            "{file}: the first line must be \
             {{\"began\": \"<RFC 3339>\", \"deployment\": \"<name>\"}}"
        )
    })?;
    flags(&mut header.flags);
    let mut record = Record::new(header.began, header.flags);
    for line in lines.into_iter::<Observation>() {
        match line {
            Ok(Observation { at, kind }) => record.add(at, kind),
            // The disk was full, or the machine was turned off.
            Err(why) if why.is_eof() => {}
            Err(why) => bail!("{file}, line {}: not an observation: {why}", why.line()),
        }
    }
    Ok((header, record))
}

/// Removes the fields that the explanation does not need. Above all no secret may get into a file:
/// no environment, no command, no annotations (kubectl keeps whole objects there).
fn reduce(seen: &mut Value) {
    for spec in ["/pod/spec", "/deployment/spec/template/spec"] {
        let fields = ["containers", "initContainers", "overhead", "resources"];
        keep(seen.pointer_mut(spec), &fields);
        for containers in ["containers", "initContainers"] {
            let containers = seen.pointer_mut(&format!("{spec}/{containers}"));
            let containers = containers.and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let fields = ["image", "name", "resources", "restartPolicy"];
                keep(Some(container), &fields);
            }
        }
    }
    // The states of containers include the last output of the app.
    let fields = ["conditions", "message", "phase", "reason", "startTime"];
    keep(seen.pointer_mut("/pod/status"), &fields);
    remove_annotations(seen);
}

fn keep(object: Option<&mut Value>, fields: &[&str]) {
    if let Some(object) = object.and_then(Value::as_object_mut) {
        object.retain(|field, _| fields.contains(&&**field));
    }
}

fn remove_annotations(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(remove_annotations),
        Value::Object(fields) => {
            fields.retain(|field, _| field != "annotations" && field != "managedFields");
            fields.values_mut().for_each(remove_annotations);
        }
        _ => {}
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

fn count(number: Option<i32>) -> u32 {
    number.unwrap_or_default().try_into().unwrap_or_default()
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
        let object: Autoscaler = serde_json::from_value(object).expect("it is an HPA");
        let metrics = object.metrics.iter();
        let short: Vec<_> = metrics.map(|one| (one.target, one.current)).collect();
        assert_eq!(short, [(50, Some(7))]);
    }
}

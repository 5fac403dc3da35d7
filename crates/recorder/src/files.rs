//! The files of a report: autoscale.json, by autoscale.schema.json, replicas.csv and the chart.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    analysis::{Milestones, Phase},
    chart,
    decisions::Decision,
    expectation::Verdict,
    format::describe,
    notes::Note,
    record::{Autoscaler, ObservationKind, Record, State, TrafficRun},
    report::Report,
    rules::Unit,
};

/// The `version` of autoscale.json.
const VERSION: u32 = 1;

/// What an autoscaler did with a Deployment. Times are in seconds since the traffic started, or since the recording
/// began if there was no traffic.
#[derive(JsonSchema, Serialize)]
#[schemars(title = "autoscale.json")]
pub struct Document<'a> {
    /// The version of this format. It rises when a field changes its meaning or is removed.
    version: u32,
    /// The name of the Deployment.
    deployment: &'a str,
    /// When the recording began.
    began: Timestamp,
    /// The outcomes are the exit statuses 0, 1 and 2.
    verdict: &'a Verdict,
    /// The expectation in words.
    expected: Option<&'a str>,
    decisions: &'a [Decision],
    /// Other events that belong beside the decisions.
    notes: &'a [Note],
    milestones: &'a Milestones,
    /// The latency of one request a second, by phase.
    latency: &'a [Phase],
    /// When each pod was first seen to be ready.
    pods_ready_seconds: &'a BTreeMap<String, f64>,
    traffic: Vec<Traffic<'a>>,
}

#[derive(JsonSchema, Serialize)]
struct Traffic<'a> {
    /// Such as `40 connections`.
    label: &'a str,
    start_seconds: f64,
    end_seconds: Option<f64>,
    /// Why it did not succeed.
    failed: Option<&'a str>,
    /// The standard output of its command, unless it is bombardier's JSON.
    output: Option<&'a str>,
    bombardier: Option<Bombardier<'a>>,
}

#[derive(JsonSchema, Serialize)]
struct Bombardier<'a> {
    duration_seconds: f64,
    requests: u64,
    requests_2xx: u64,
    mean_seconds: f64,
    p50_seconds: Option<f64>,
    p95_seconds: Option<f64>,
    max_seconds: f64,
    errors: Vec<Failure<'a>>,
}

#[derive(JsonSchema, Serialize)]
struct Failure<'a> {
    description: &'a str,
    count: u64,
}

/// The content of autoscale.json.
pub fn document<'a>(report: &'a Report) -> Document<'a> {
    let header = report.header;
    Document {
        version: VERSION,
        deployment: &header.deployment,
        began: header.began,
        verdict: &header.verdict,
        expected: header.expected.as_deref(),
        decisions: &report.decisions,
        notes: &report.notes,
        milestones: &report.milestones,
        latency: &report.phases,
        pods_ready_seconds: &report.pods_ready,
        traffic: report
            .record
            .traffic_runs()
            .into_iter()
            .map(Into::into)
            .collect(),
    }
}

impl<'a> From<TrafficRun<'a>> for Traffic<'a> {
    fn from(load: TrafficRun<'a>) -> Self {
        let result = load.result;
        let output = result.map(|result| result.output.as_str());
        Self {
            label: load.label,
            start_seconds: load.start,
            end_seconds: load.end,
            failed: result.and_then(|result| result.failed.as_deref()),
            output: output.filter(|output| !output.is_empty()),
            bombardier: result.and_then(|result| Some(result.bombardier.as_ref()?.into())),
        }
    }
}

impl<'a> From<&'a bombardier::Report> for Bombardier<'a> {
    fn from(counted: &'a bombardier::Report) -> Self {
        let seconds = |micros: f64| micros / 1e6;
        let percentiles = counted.latency.percentiles.as_ref();
        Self {
            duration_seconds: counted.seconds,
            requests: counted.requests(),
            requests_2xx: counted.req2xx,
            mean_seconds: seconds(counted.latency.mean),
            p50_seconds: percentiles.map(|one| seconds(one.p50)),
            p95_seconds: percentiles.map(|one| seconds(one.p95)),
            max_seconds: seconds(counted.latency.max),
            errors: counted.errors.iter().map(Failure::from).collect(),
        }
    }
}

impl<'a> From<&'a bombardier::Failure> for Failure<'a> {
    fn from(failure: &'a bombardier::Failure) -> Self {
        Self {
            description: &failure.description,
            count: failure.count,
        }
    }
}

/// Writes `replicas.csv`, `autoscale.json` and the chart.
///
/// # Errors
/// If a file cannot be written.
pub fn write(report: &Report, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("the folder {} cannot be created", folder.display()))?;
    for (name, content) in [
        ("replicas.csv", csv(report.record)?),
        (
            "autoscale.json",
            serde_json::to_vec_pretty(&document(report))?,
        ),
        ("autoscale.svg", chart::draw(report)?.into()),
    ] {
        let path = folder.join(name);
        fs::write(&path, content)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

const COLUMNS: [&str; 11] = [
    "seconds",
    "observation",
    "desired_replicas",
    "existing_replicas",
    "ready_replicas",
    "hpa_cpu_percent",
    "hpa_target_percent",
    "hpa_cpu_millicores",
    "hpa_target_millicores",
    "pod_cpu_millicores",
    "latency_seconds",
];

/// A row for each observation, with the state after it.
fn csv(record: &Record) -> anyhow::Result<Vec<u8>> {
    let mut rows = Vec::new();
    record.replay(|observation, state| {
        let deployment = state.deployment.as_ref();
        let count = |count: Option<u32>| count.map_or(String::new(), |count| count.to_string());
        let number = |number: Option<f64>| number.map_or(String::new(), |one| format!("{one:.3}"));
        let latency = match &observation.kind {
            ObservationKind::Response(response) if response.failed.is_none() => {
                Some(response.took.as_secs_f64())
            }
            _ => None,
        };
        let [percent, percent_target] = reading(state, Unit::Percent);
        let [millicores, millicores_target] = reading(state, Unit::Millicores);
        rows.push([
            number(Some(observation.at - record.time_origin())),
            describe(&observation.kind),
            count(deployment.map(|one| one.desired)),
            count(deployment.map(|one| one.existing)),
            count(deployment.map(|one| one.ready)),
            percent,
            percent_target,
            millicores,
            millicores_target,
            number(state.millicores_per_pod()),
            number(latency),
        ]);
    });
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for row in rows {
        csv.write_record(row)?;
    }
    Ok(csv.into_inner()?)
}

/// The CPU that the autoscaler read, and its target, if they are in this unit.
fn reading(state: &State, unit: Unit) -> [String; 2] {
    let reading = state.autoscaler().and_then(Autoscaler::reading);
    match reading.filter(|reading| reading.unit == unit) {
        Some(reading) => [reading.current.to_string(), reading.target.to_string()],
        None => Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use schemars::generate::SchemaSettings;

    use super::*;

    /// `UPDATE_SCHEMA=1 cargo test --package recorder schema` writes the file again.
    #[test]
    fn the_schema_describes_the_types() {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let schema = settings.into_generator().into_root_schema_for::<Document>();
        let schema = format!("{:#}\n", schema.to_value());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("autoscale.schema.json");
        if env::var_os("UPDATE_SCHEMA").is_some() {
            fs::write(&path, &schema).expect("it can be written");
        }
        let committed = fs::read_to_string(path).expect("it is there");
        assert!(
            committed == schema,
            "autoscale.schema.json is out of date: run UPDATE_SCHEMA=1 cargo test --package recorder schema"
        );
    }
}

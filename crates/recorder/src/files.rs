//! The files of a report: autoscale.json, by autoscale.schema.json, replicas.csv and the chart.

use std::{fs, path::Path};

use anyhow::Context;
use serde::Serialize;

use crate::{
    chart,
    format::describe,
    record::{Observation, ObservationKind, Record},
    report::Report,
    rules::Unit,
};

/// Writes `replicas.csv`, `autoscale.json` and the chart.
///
/// # Errors
/// If a file cannot be written.
pub fn write(report: &Report, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("the folder {folder:?} cannot be created"))?;
    for (name, content) in [
        ("replicas.csv", csv(report.record)?),
        ("autoscale.json", serde_json::to_vec_pretty(report)?),
        ("autoscale.svg", chart::draw(report)?.into()),
    ] {
        let path = folder.join(name);
        fs::write(&path, content).with_context(|| format!("{path:?} cannot be written"))?;
    }
    Ok(())
}

/// A row of replicas.csv.
#[derive(Serialize)]
struct Row {
    seconds: f64,
    observation: String,
    desired_replicas: Option<u32>,
    existing_replicas: Option<u32>,
    ready_replicas: Option<u32>,
    hpa_cpu_percent: Option<i64>,
    hpa_target_percent: Option<i64>,
    hpa_cpu_millicores: Option<i64>,
    hpa_target_millicores: Option<i64>,
    pod_cpu_millicores: Option<f64>,
    latency_seconds: Option<f64>,
}

/// A row for each observation, with the state after it.
fn csv(record: &Record) -> anyhow::Result<Vec<u8>> {
    let rounded = |number: f64| (number * 1000.0).round() / 1000.0;
    let mut rows = Vec::new();
    record.for_each(|Observation { at, kind }, state| {
        let deployment = state.deployment.as_ref();
        let latency = match kind {
            ObservationKind::Response(response) if response.failed.is_none() => {
                Some(response.seconds)
            }
            _ => None,
        };
        let reading = state.autoscaler().and_then(|one| one.cpu()?.reading());
        let percent = reading.filter(|reading| reading.unit == Unit::Percent);
        let millicores = reading.filter(|reading| reading.unit == Unit::Millicores);
        rows.push(Row {
            seconds: rounded(at - record.time_origin()),
            observation: describe(kind),
            desired_replicas: deployment.map(|one| one.desired),
            existing_replicas: deployment.map(|one| one.existing),
            ready_replicas: deployment.map(|one| one.ready),
            hpa_cpu_percent: percent.map(|one| one.current),
            hpa_target_percent: percent.map(|one| one.target),
            hpa_cpu_millicores: millicores.map(|one| one.current),
            hpa_target_millicores: millicores.map(|one| one.target),
            pod_cpu_millicores: state.millicores_per_pod().map(rounded),
            latency_seconds: latency.map(rounded),
        });
    });
    let mut csv = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| csv.serialize(row))?;
    Ok(csv.into_inner()?)
}

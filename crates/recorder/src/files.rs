//! The files of a report for other programs: autoscale.json, by autoscale.schema.json, and replicas.csv.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    analysis::Phase,
    decisions::Decision,
    format::describe,
    record::{Autoscaler, ObservationKind, Record, State},
    report::Report,
    rules::{Constraint, Unit},
};

/// The `version` of autoscale.json, which rises when a field changes its meaning or is removed.
const VERSION: u32 = 1;

pub fn json(report: &Report) -> Value {
    let milestones = &report.milestones;
    let notes = report.notes.iter();
    json!({
        "version": VERSION,
        "deployment": report.header.deployment,
        "began": report.header.began,
        "verdict": report.header.verdict,
        "expected": report.header.expected,
        "decisions": report.decisions.iter().map(decision).collect::<Vec<_>>(),
        "notes": notes.map(|note| json!({"seconds": note.at, "text": note.text})).collect::<Vec<_>>(),
        "milestones": {
            "first_decision_seconds": milestones.first_decision,
            "first_new_pod_ready_seconds": milestones.first_new_pod_ready,
            "last_new_pod_ready_seconds": milestones.last_new_pod_ready,
            "traffic_ended_seconds": milestones.traffic_ended,
            "idle_after_traffic_seconds": milestones.back_at_minimum,
        },
        "latency": report.phases.iter().map(latency).collect::<Vec<_>>(),
        "pods_ready_seconds": report.pods_ready,
        "traffic": traffic(report.record),
    })
}

fn decision(decision: &Decision) -> Value {
    json!({
        "seconds": decision.at,
        "last_seconds": decision.until,
        "count": decision.times,
        "from_replicas": decision.from,
        "to_replicas": decision.to,
        "metric": decision.metric,
        "reading": decision.reading,
        "computed_replicas": decision.computed,
        "recommended_replicas": decision.recommended,
        "expected_replicas": decision.expected,
        "constraints": decision.constraints.iter().map(constraint).collect::<Vec<_>>(),
        "remark": decision.remark,
    })
}

fn constraint(constraint: &Constraint) -> Value {
    match constraint {
        Constraint::Tolerance(percent) => json!({"kind": "tolerance", "percent": percent}),
        Constraint::NotReady(pods) => json!({"kind": "not_ready", "pods": pods}),
        Constraint::Missing(pods) => json!({"kind": "without_metrics", "pods": pods}),
        Constraint::Counted(pods) => json!({"kind": "counted", "pods": pods}),
        Constraint::Stabilisation(seconds) => json!({"kind": "window", "seconds": seconds}),
        Constraint::Step(replicas) => json!({"kind": "largest_step", "replicas": replicas}),
        Constraint::Disabled => json!({"kind": "disabled"}),
        Constraint::Maximum(replicas) => json!({"kind": "maximum", "replicas": replicas}),
        Constraint::Minimum(replicas) => json!({"kind": "minimum", "replicas": replicas}),
    }
}

fn latency(phase: &Phase) -> Value {
    json!({
        "phase": phase.name,
        "answered": phase.succeeded,
        "failed": phase.failed,
        "p50_seconds": phase.p50,
        "p95_seconds": phase.p95,
        "max_seconds": phase.max,
    })
}

fn traffic(record: &Record) -> Value {
    let loads = record.traffic_runs().into_iter().map(|load| {
        let result = load.result;
        json!({
            "label": load.label,
            "start_seconds": load.start,
            "end_seconds": load.end,
            "failed": result.and_then(|result| result.failed.as_ref()),
            "output": result.map(|result| &result.output).filter(|output| !output.is_empty()),
            "bombardier": result.and_then(|result| result.bombardier.as_ref()).map(bombardier),
        })
    });
    loads.collect()
}

fn bombardier(counted: &bombardier::Report) -> Value {
    let seconds = |micros: f64| micros / 1e6;
    let percentiles = counted.latency.percentiles.as_ref();
    json!({
        "duration_seconds": counted.seconds,
        "requests": counted.requests(),
        "requests_2xx": counted.req2xx,
        "mean_seconds": seconds(counted.latency.mean),
        "p50_seconds": percentiles.map(|one| seconds(one.p50)),
        "p95_seconds": percentiles.map(|one| seconds(one.p95)),
        "max_seconds": seconds(counted.latency.max),
        "errors": counted.errors,
    })
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
pub fn csv(record: &Record) -> Result<Vec<u8>> {
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

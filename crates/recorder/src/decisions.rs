//! The decisions of the autoscalers and their reasons, as rows. Like ones in succession are one
//! row.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    computation::Computation,
    evidence::Sightings,
    follower::{Explained, Follower},
    notes::{Note, notes},
    record::{Autoscaler, ObservationKind, Record, Source},
    rules::{Constraint, Flags, Reading},
};

const RESTARTED: &str = "assuming that the controller manager was restarted";

/// A change of the number of replicas, or a computation that made none although the formula asked
/// for one.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Serialize)]
pub struct Decision {
    /// In seconds since the traffic started.
    #[serde(rename = "seconds")]
    pub at: f64,
    /// When it was last made, and how often in succession.
    #[serde(rename = "last_seconds")]
    pub until: f64,
    #[serde(rename = "count")]
    pub times: u32,
    #[serde(rename = "from_replicas")]
    pub from: u32,
    #[serde(rename = "to_replicas")]
    pub to: u32,
    /// The metric that decided, as the autoscaler names it, if it has several.
    pub metric: Option<String>,
    /// The reading of that metric; there is none if a bound alone decided.
    pub reading: Option<Reading>,
    /// `ceil(from × current ÷ target)`.
    #[serde(rename = "computed_replicas")]
    pub computed: Option<u32>,
    /// The recommendation of the metrics, before the windows and the limits, unless it rests on
    /// what the remark assumes.
    #[serde(rename = "recommended_replicas")]
    pub recommended: Option<u32>,
    /// The rules that led to another number than the computed one.
    pub constraints: Vec<Constraint>,
    /// The result of the rules, if it differs from the decision.
    #[serde(rename = "expected_replicas")]
    pub by_rules: Option<u32>,
    /// What is assumed, or else what the autoscaler says if the rules do not explain the decision.
    pub remark: Option<String>,
}

/// The decisions of a record, and what else happened; times in seconds since the traffic started.
pub fn decisions(record: &Record) -> (Vec<Decision>, Vec<Note>) {
    let sightings = Sightings::new(record);
    let mut rows: Vec<Decision> = Vec::new();
    let mut notes = notes(record);
    for name in autoscalers(record) {
        let (results, own_notes) = Follower::new(record, &sightings, name).follow();
        rows.extend(results.into_iter().filter_map(Decision::of));
        notes.extend(own_notes);
    }
    rows.sort_by(|one, other| one.at.total_cmp(&other.at));
    notes.extend(doubt(&rows, record.flags));
    notes.sort_by(|one, other| one.at.total_cmp(&other.at));
    rows.dedup_by(|row, last| {
        let is_like = last.is_like(row);
        if is_like {
            last.until = row.at;
            last.times += 1;
        }
        is_like
    });
    let origin = record.time_origin();
    for row in &mut rows {
        row.at -= origin;
        row.until -= origin;
    }
    for note in &mut notes {
        note.at -= origin;
    }
    (rows, notes)
}

/// The names of all autoscalers that were seen.
fn autoscalers(record: &Record) -> BTreeSet<&str> {
    let kinds = record.observations.iter().map(|one| &one.kind);
    kinds
        .filter_map(|kind| match kind {
            ObservationKind::Autoscaler(autoscaler) => Some(autoscaler.name.as_str()),
            _ => None,
        })
        .collect()
}

impl Decision {
    /// The row of a result, if it is worth one.
    fn of(result: Explained) -> Option<Self> {
        let Explained {
            at,
            from,
            to,
            autoscaler,
            computation,
        } = result;
        let mut row = Self {
            at,
            until: at,
            times: 1,
            from,
            to,
            ..Self::default()
        };
        if let Some(autoscaler) = autoscaler {
            row.explain(autoscaler, computation);
        }
        let is_noteworthy = from != to || row.computed.is_some_and(|computed| computed != to);
        is_noteworthy.then_some(row)
    }

    fn explain(&mut self, autoscaler: &Autoscaler, computation: Option<Computation>) {
        if let Some((bound, constraint)) = autoscaler.rules.bound(self.from) {
            self.constraints = vec![constraint];
            self.by_rules = Some(bound).filter(|bound| *bound != self.to);
        } else if let Some(computation) = computation {
            self.fill(autoscaler, computation);
        }
        if self.by_rules.is_some() && self.remark.is_none() {
            let able = autoscaler.condition("AbleToScale");
            self.remark = autoscaler.complaint().or(able).map(ToString::to_string);
        }
    }

    fn fill(&mut self, autoscaler: &Autoscaler, computation: Computation) {
        let candidate = computation.candidate;
        let assumption = candidate.assumption;
        self.recommended = Some(candidate.recommended).filter(|_| assumption.is_none());
        let restarted = computation.is_restarted.then_some(RESTARTED);
        self.remark = restarted.or(assumption).map(Into::into);
        self.constraints = computation.constraints;
        if let Some(metric) = candidate.metric {
            let several = autoscaler.metrics.len() > 1;
            self.metric = several.then(|| autoscaler.deciding_metric(metric));
            self.reading = metric.reading();
            self.computed = self.reading.map(|reading| reading.formula(self.from));
            // Only the autoscaler knows the inputs of a value that is not about the pods.
            let is_checked = matches!(metric.source, Source::Resource { .. });
            let is_other = !computation.agrees && computation.result != self.to;
            self.by_rules = (is_other && is_checked).then_some(computation.result);
        }
    }

    /// Whether both changed nothing, for the same reasons.
    fn is_like(&self, other: &Self) -> bool {
        let reasons = |row: &Self| row.constraints.iter().map(discriminant).collect::<Vec<_>>();
        self.from == self.to
            && (self.from, self.to) == (other.from, other.to)
            && self.metric == other.metric
            && reasons(self) == reasons(other)
            && self.by_rules.is_some() == other.by_rules.is_some()
    }
}

/// A note that the flags may differ, if many decisions contradict the rules.
fn doubt(rows: &[Decision], flags: Flags) -> Option<Note> {
    let doubtful: Vec<_> = rows.iter().filter(|row| row.by_rules.is_some()).collect();
    if doubtful.len() < 3 || doubtful.len() * 20 < rows.len() {
        return None;
    }
    let mut said: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &doubtful {
        let remark = row.remark.as_deref().unwrap_or_default();
        let reason = remark.split_once(':').map_or(remark, |(reason, _)| reason);
        *said.entry(reason).or_default() += 1;
    }
    let said: Vec<_> = said
        .iter()
        .map(|(said, count)| format!("{said} × {count}"))
        .collect();
    let Flags {
        sync_period,
        tolerance,
        downscale_stabilisation,
    } = flags;
    Some(Note {
        at: doubtful[0].at,
        text: format!(
            "{} of {} decisions contradict the rules ({}); the flags of the controller manager may \
             differ from those that are assumed: --sync-period {sync_period}s, --tolerance \
             {tolerance}, --downscale-stabilization {downscale_stabilisation}s",
            doubtful.len(),
            rows.len(),
            said.join(", ")
        ),
    })
}

//! The report of a recording: its JSON, and its Markdown with tables.

use std::{collections::BTreeMap, fmt::Write};

use comfy_table::{Cell, CellAlignment, Table, presets::ASCII_MARKDOWN};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    analysis::{Milestones, Phase, phases, pods_ready},
    computation::Decision,
    decisions::decisions,
    format::latency,
    notes::Note,
    observations::{Header, Verdict},
    record::Record,
    traffic::Traffic,
};

/// The `version` of autoscale.json.
const VERSION: u32 = 1;

/// What an autoscaler did with a Deployment. Times are in seconds since the traffic started, or
/// since the recording began if there was no traffic.
#[derive(JsonSchema, Serialize)]
#[schemars(title = "autoscale.json")]
pub struct Report<'a> {
    /// The version of this format. It rises when a field changes its meaning or is removed.
    version: u32,
    /// The name of the Deployment.
    pub deployment: &'a str,
    /// When the recording began.
    began: Timestamp,
    /// The outcomes are the exit statuses 0, 1 and 2.
    verdict: &'a Verdict,
    /// The expectation in words.
    expected: Option<&'a str>,
    pub decisions: Vec<Decision>,
    /// Other events that belong beside the decisions.
    notes: Vec<Note>,
    milestones: Milestones,
    /// The latency of one request a second, by phase.
    latency: Vec<Phase>,
    /// When each pod was first seen to be ready.
    pods_ready_seconds: BTreeMap<&'a str, f64>,
    traffic: Vec<Traffic<'a>>,
    #[serde(skip)]
    pub record: &'a Record,
}

impl<'a> Report<'a> {
    pub fn new(header: &'a Header, record: &'a Record) -> Self {
        let (decisions, notes) = decisions(record);
        let milestones = Milestones::of(record, &decisions);
        Self {
            version: VERSION,
            deployment: &header.deployment,
            began: header.began,
            verdict: &header.verdict,
            expected: header.expected.as_deref(),
            decisions,
            notes,
            latency: phases(record, &milestones),
            milestones,
            pods_ready_seconds: pods_ready(record),
            traffic: record.traffic(),
            record,
        }
    }

    pub fn markdown(&self) -> String {
        let sections = [
            format!("## Scaling of {}", self.deployment),
            self.decided(),
            self.noted(),
            self.reached(),
            self.probed(),
            self.sent(),
            conclusion(self.verdict).unwrap_or_default(),
        ];
        let sections = sections.iter().filter(|section| !section.is_empty());
        sections.map(|section| format!("{section}\n\n")).collect()
    }

    fn decided(&self) -> String {
        if self.decisions.is_empty() {
            return "The autoscaler decided nothing.".into();
        }
        let rows = self.decisions.iter().map(cells);
        let header = "seconds | from | to | CPU / target | computed | reason";
        table(header, rows)
    }

    fn noted(&self) -> String {
        let notes = self.notes.iter();
        let lines = notes.map(|note| format!("- {:.0} s: {}", note.at, note.text));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn reached(&self) -> String {
        let it = &self.milestones;
        let back = "from there to the minimum number of replicas";
        let rows = [
            ("the first decision", it.first_decision_seconds),
            ("the first new pod ready", it.first_new_pod_ready_seconds),
            ("the last new pod ready", it.last_new_pod_ready_seconds),
            ("the end of the traffic", it.traffic_ended_seconds),
            (back, it.idle_after_traffic_seconds),
        ];
        let rows = rows.into_iter();
        let rows = rows.filter_map(|(what, when)| Some([what.into(), format!("{:.1}", when?)]));
        let from = match self.record.traffic_span() {
            Some(_) => "from the start of the traffic to",
            None => "from the start of the recording to",
        };
        table(&format!("{from} | seconds"), rows)
    }

    fn probed(&self) -> String {
        let took = |seconds: Option<f64>| seconds.map_or("none".into(), latency);
        let rows = self.latency.iter().map(|phase| {
            [
                phase.phase.into(),
                phase.answered.to_string(),
                phase.failed.to_string(),
                took(phase.p50_seconds),
                took(phase.p95_seconds),
                took(phase.max_seconds),
            ]
        });
        let header = "one request a second | answered | failed | p50 | p95 | max";
        table(header, rows)
    }

    fn sent(&self) -> String {
        let lines = self.traffic.iter().filter_map(|load| {
            let counted = load.bombardier.as_ref().map(|one| format!(" {one}"));
            let output = load.output.map(|it| format!("\n\n```text\n{it}\n```"));
            Some(format!("{}:{}", load.label, counted.or(output)?))
        });
        lines.collect::<Vec<_>>().join("\n\n")
    }
}

/// The row of a decision.
fn cells(row: &Decision) -> [String; 6] {
    let mut when = format!("{:.0}", row.at);
    if row.times > 1 {
        let _ = write!(when, " to {:.0}", row.until);
    }
    let reading = row.reading.map(|reading| {
        let both = [reading.current, reading.target];
        both.map(|value| reading.unit.format(value)).join(" / ")
    });
    let computed = row.computed.map(|computed| computed.to_string());
    let metric = row.metric.iter().map(|one| format!("decided by {one}"));
    let by_rules = row.by_rules.iter().map(|one| format!("by the rules {one}"));
    let reasons: Vec<_> = metric
        .chain(row.constraints.iter().map(ToString::to_string))
        .chain(by_rules)
        .chain(row.remark.clone())
        .collect();
    [
        when,
        row.from.to_string(),
        row.to.to_string(),
        reading.unwrap_or_default(),
        computed.unwrap_or_default(),
        reasons.join("; "),
    ]
}

/// The verdict in a sentence; `None` without an expectation.
pub fn conclusion(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::AsExpected(what) => what.as_ref().map(|what| format!("As expected: {what}")),
        Verdict::Unexpected(why) => Some(format!("Not as expected: {why}")),
        Verdict::Unobserved(why) => Some(format!("Not observed: {why}")),
    }
}

/// The header is a row of Markdown. Empty without rows.
fn table<const N: usize>(header: &str, rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header.split(" | ").map(Cell::new));
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    match table.is_empty() {
        true => String::new(),
        false => table.to_string(),
    }
}

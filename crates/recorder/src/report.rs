//! The report of a recording, and its Markdown with tables.

use std::{collections::BTreeMap, fmt::Write};

use comfy_table::{Cell, CellAlignment, Table, presets::ASCII_MARKDOWN};

use crate::{
    analysis::{Milestones, Phase, phases, pods_ready},
    decisions::{Decision, decisions},
    expectation::Verdict,
    format::latency,
    notes::Note,
    observations::Header,
    record::Record,
};

/// The header of the table of decisions.
const DECISION: [&str; 6] = [
    "seconds",
    "from",
    "to",
    "CPU / target",
    "computed",
    "reason",
];

pub struct Report<'a> {
    pub header: &'a Header,
    pub record: &'a Record,
    pub decisions: Vec<Decision>,
    /// Other events.
    pub notes: Vec<Note>,
    pub milestones: Milestones,
    /// The latency of the probes.
    pub phases: Vec<Phase>,
    /// When each pod was first seen to be ready, in seconds since the traffic started.
    pub pods_ready: BTreeMap<String, f64>,
}

impl<'a> Report<'a> {
    pub fn new(header: &'a Header, record: &'a Record) -> Self {
        let (decisions, notes) = decisions(record);
        let milestones = Milestones::of(record, &decisions);
        let mut pods_ready = pods_ready(record);
        pods_ready
            .values_mut()
            .for_each(|at| *at -= record.time_origin());
        Self {
            header,
            record,
            notes,
            phases: phases(record, &milestones),
            decisions,
            milestones,
            pods_ready,
        }
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("## Scaling of {}\n\n", self.header.deployment);
        let sections = [
            Some(self.decided()),
            self.noted(),
            self.reached(),
            self.probed(),
            self.sent(),
            conclusion(&self.header.verdict),
        ];
        for section in sections.into_iter().flatten() {
            let _ = writeln!(text, "{section}\n");
        }
        text
    }

    fn decided(&self) -> String {
        if self.decisions.is_empty() {
            return "The autoscaler decided nothing.".into();
        }
        let mut table = table(&DECISION);
        table.add_rows(self.decisions.iter().map(cells));
        table.to_string()
    }

    fn noted(&self) -> Option<String> {
        let notes = self.notes.iter();
        let lines: Vec<_> = notes
            .map(|note| format!("- {:.0} s: {}", note.at, note.text))
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn reached(&self) -> Option<String> {
        let Milestones {
            first_decision,
            first_new_pod_ready,
            last_new_pod_ready,
            back_at_minimum,
            traffic_ended,
        } = self.milestones;
        let rows = [
            ("the first decision", first_decision),
            ("the first new pod ready", first_new_pod_ready),
            ("the last new pod ready", last_new_pod_ready),
            ("the end of the traffic", traffic_ended),
            (
                "from there to the minimum number of replicas",
                back_at_minimum,
            ),
        ];
        let from = match self.record.traffic_span() {
            Some(_) => "from the start of the traffic to",
            None => "from the start of the recording to",
        };
        let mut table = table(&[from, "seconds"]);
        for (what, when) in rows {
            if let Some(when) = when {
                table.add_row([what.to_string(), format!("{when:.1}")]);
            }
        }
        (!table.is_empty()).then(|| table.to_string())
    }

    fn probed(&self) -> Option<String> {
        let mut table = table(&[
            "one request a second",
            "answered",
            "failed",
            "p50",
            "p95",
            "max",
        ]);
        for phase in &self.phases {
            let took = |seconds: Option<f64>| seconds.map_or("none".into(), latency);
            table.add_row([
                phase.name.to_string(),
                phase.succeeded.to_string(),
                phase.failed.to_string(),
                took(phase.p50),
                took(phase.p95),
                took(phase.max),
            ]);
        }
        (!table.is_empty()).then(|| table.to_string())
    }

    fn sent(&self) -> Option<String> {
        let lines = self.record.traffic_runs().into_iter().filter_map(|load| {
            let result = load.result?;
            match &result.bombardier {
                Some(counted) => Some(format!("{}: {}", load.label, summary(counted))),
                None if result.output.is_empty() => None,
                None => Some(format!(
                    "{}:\n\n```text\n{}\n```",
                    load.label, result.output
                )),
            }
        });
        let lines: Vec<_> = lines.collect();
        (!lines.is_empty()).then(|| lines.join("\n\n"))
    }
}

/// The row of a decision.
fn cells(row: &Decision) -> [String; 6] {
    let when = if row.times > 1 {
        format!("{:.0} to {:.0}", row.at, row.until)
    } else {
        format!("{:.0}", row.at)
    };
    let reading = row.reading.map_or(String::new(), |reading| {
        let [current, target] =
            [reading.current, reading.target].map(|value| reading.unit.format(value));
        format!("{current} / {target}")
    });
    let computed = row
        .computed
        .map_or(String::new(), |computed| computed.to_string());
    let metric = row
        .metric
        .as_ref()
        .map(|metric| format!("decided by {metric}"));
    let constraints = row.constraints.iter().map(ToString::to_string);
    let by_rules = row
        .by_rules
        .map(|replicas| format!("by the rules {replicas}"));
    let reasons: Vec<_> = metric
        .into_iter()
        .chain(constraints)
        .chain(by_rules)
        .chain(row.remark.clone())
        .collect();
    [
        when,
        row.from.to_string(),
        row.to.to_string(),
        reading,
        computed,
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

/// bombardier's result in a line.
fn summary(counted: &bombardier::Report) -> String {
    let mut line = format!(
        "{} responses in {:.0} s, {} of them 2xx; mean {}",
        counted.requests(),
        counted.seconds,
        counted.req2xx,
        latency(counted.latency.mean / 1e6),
    );
    if let Some(percentiles) = &counted.latency.percentiles {
        let _ = write!(
            line,
            ", p50 {}, p95 {}",
            latency(percentiles.p50 / 1e6),
            latency(percentiles.p95 / 1e6)
        );
    }
    let _ = write!(line, ", max {}", latency(counted.latency.max / 1e6));
    for failure in &counted.errors {
        let _ = write!(line, "\n- {} × {}", failure.count, failure.description);
    }
    line
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header.iter().map(Cell::new));
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

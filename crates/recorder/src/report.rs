//! What is said of a recording: tables in the end, and files for scripts and people.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use crate::{
    analysis::{Milestones, Phase, phases, pods_ready},
    chart::{self, Theme},
    decisions::{Decision, Note, decisions},
    format::{describe, duration},
    observations::Header,
    record::{Autoscaler, ObservationKind, Record},
    traffic::Bombardier,
};

#[derive(Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    header: &'a Header,
    pub decisions: Vec<Decision>,
    /// What else is to be known about them.
    notes: Vec<Note>,
    milestones: Milestones,
    /// How long the answers to the probes took.
    phases: Vec<Phase>,
    /// When each pod was first seen to be ready, in seconds since the traffic started.
    pods_ready: std::collections::BTreeMap<String, f64>,
    #[serde(skip)]
    record: &'a Record,
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
            notes,
            phases: phases(record, &milestones),
            decisions,
            milestones,
            pods_ready,
            record,
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let sections = [
            self.decided(),
            self.noted(),
            self.reached(),
            self.probed(),
            self.loaded(),
        ];
        for section in sections.into_iter().flatten() {
            let _ = writeln!(text, "{section}\n");
        }
        text
    }

    fn decided(&self) -> Option<String> {
        if self.decisions.is_empty() {
            return Some("The autoscaler decided nothing.".into());
        }
        let mut table = table(&[
            "seconds",
            "from",
            "to",
            "CPU / target",
            "computed",
            "held back by",
        ]);
        for row in &self.decisions {
            let when = if row.times > 1 {
                format!("{:.0} to {:.0}", row.at, row.until)
            } else {
                format!("{:.0}", row.at)
            };
            let reading = row.reading.map_or("-".into(), |reading| {
                let [current, target] =
                    [reading.current, reading.target].map(|value| reading.unit.format(value));
                format!("{current} / {target}")
            });
            let computed = row
                .computed
                .map_or("-".into(), |computed| computed.to_string());
            let metric = row.metric.as_ref();
            let constraints = row.constraints.iter().map(ToString::to_string);
            let expected = row.expected;
            let reasons = constraints
                .chain(expected.map(|expected| format!("by the rules {expected}")))
                .chain(row.remark.clone())
                .chain(metric.map(|metric| format!("decided by {metric}")));
            table.add_row([
                when,
                row.from.to_string(),
                row.to.to_string(),
                reading,
                computed,
                reasons.collect::<Vec<_>>().join("; "),
            ]);
        }
        Some(table.to_string())
    }

    fn noted(&self) -> Option<String> {
        let notes = self.notes.iter();
        let lines = notes.map(|note| format!("{:.0} s: {}", note.at, note.text));
        let text = lines.collect::<Vec<_>>().join("\n");
        (!text.is_empty()).then_some(text)
    }

    fn reached(&self) -> Option<String> {
        let Milestones {
            first_decision,
            first_new_pod_ready,
            last_new_pod_ready,
            back_at_minimum,
            traffic_ended,
        } = self.milestones;
        let mut table = table(&["from the start of the traffic to", "seconds"]);
        let rows = [
            ("the first decision", first_decision),
            ("the first new pod ready", first_new_pod_ready),
            ("the last new pod ready", last_new_pod_ready),
            ("the end of the traffic", traffic_ended),
            (
                "as few replicas as before, from the end of the traffic",
                back_at_minimum,
            ),
        ];
        let mut any = false;
        for (what, when) in rows {
            if let Some(when) = when {
                table.add_row([what.to_string(), format!("{when:.1}")]);
                any = true;
            }
        }
        any.then(|| table.to_string())
    }

    fn probed(&self) -> Option<String> {
        let mut table = table(&[
            "one cheap request a second",
            "answers",
            "failed",
            "p50",
            "p95",
            "worst",
        ]);
        for phase in &self.phases {
            let took = |seconds: Option<f64>| seconds.map_or("-".into(), duration);
            table.add_row([
                phase.name.to_string(),
                phase.answers.to_string(),
                phase.failed.to_string(),
                took(phase.p50),
                took(phase.p95),
                took(phase.worst),
            ]);
        }
        let any = self
            .phases
            .iter()
            .any(|phase| phase.answers + phase.failed > 0);
        any.then(|| table.to_string())
    }

    fn loaded(&self) -> Option<String> {
        let report = self.record.traffic_result()?;
        let Some(counted) = &report.bombardier else {
            return (!report.output.is_empty())
                .then(|| format!("The traffic reports:\n{}", report.output));
        };
        Some(traffic_line(counted))
    }

    /// `replicas.csv`, `autoscale.json` and `autoscale.svg`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)
            .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        let write = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, content)
                .with_context(|| format!("{} cannot be written", path.display()))
        };
        write("replicas.csv", &self.csv()?)?;
        write("autoscale.json", &serde_json::to_vec_pretty(self)?)?;
        for (name, theme) in [
            ("autoscale.svg", Theme::Light),
            ("autoscale-dark.svg", Theme::Dark),
        ] {
            let svg = chart::draw(&self.header.deployment, self.record, &self.decisions, theme)?;
            write(name, svg.as_bytes())?;
        }
        Ok(())
    }

    /// A row for each observation: what was known once it was made.
    fn csv(&self) -> Result<Vec<u8>> {
        let mut rows = csv::Writer::from_writer(Vec::new());
        rows.write_record([
            "seconds",
            "seen",
            "desired",
            "existing",
            "ready",
            "cpu",
            "target",
            "millicores_per_pod",
            "answer_seconds",
        ])?;
        let origin = self.record.time_origin();
        let mut result = Ok(());
        self.record.replay(|observation, state| {
            let number =
                |number: Option<f64>| number.map_or(String::new(), |one| format!("{one:.3}"));
            let count = |count: Option<u32>| count.map_or(String::new(), |one| one.to_string());
            let deployment = state.deployment.as_ref();
            let reading = state.autoscaler().and_then(Autoscaler::reading);
            let value = |value: Option<i64>| value.map_or(String::new(), |one| one.to_string());
            let answer = match &observation.kind {
                ObservationKind::Answer(answer) if answer.failed.is_none() => {
                    Some(answer.took.as_secs_f64())
                }
                _ => None,
            };
            let written = rows.write_record([
                number(Some(observation.at - origin)),
                describe(&observation.kind),
                count(deployment.map(|one| one.desired)),
                count(deployment.map(|one| one.existing)),
                count(deployment.map(|one| one.ready)),
                value(reading.map(|one| one.current)),
                value(reading.map(|one| one.target)),
                number(state.millicores_per_pod()),
                number(answer),
            ]);
            if let (Ok(()), Err(error)) = (&result, written) {
                result = Err(error);
            }
        });
        result?;
        Ok(rows.into_inner()?)
    }
}

/// What bombardier counted, in a line.
fn traffic_line(counted: &Bombardier) -> String {
    let mut line = format!(
        "The traffic: {} answers in {:.0} s, {} of them 2xx; mean {}",
        counted.answers(),
        counted.seconds,
        counted.req2xx,
        duration(counted.latency.mean / 1e6),
    );
    if let Some(percentiles) = &counted.latency.percentiles {
        let _ = write!(
            line,
            ", p50 {}, p95 {}",
            duration(percentiles.p50 / 1e6),
            duration(percentiles.p95 / 1e6)
        );
    }
    let _ = write!(line, ", worst {}", duration(counted.latency.max / 1e6));
    for failure in &counted.errors {
        let _ = write!(line, "\n{} × {}", failure.count, failure.description);
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

//! The table: what is measured, what it must reach, and what it should.

use std::fmt;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::{
    lab::Lab,
    measure,
    report::{Figure, Goal, Line, Unit},
};

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Accuracy,
    Pacing,
    Alone,
    Saturated,
    Tutorial,
    Overload,
    Leaving,
    NoLimit,
    Overhead,
    HashRate,
    Size,
    Growth,
}

pub struct Row {
    pub part: Part,
    pub measure: &'static str,
    pub unit: Unit,
    pub must: Option<Goal>,
    pub aim: Goal,
}

#[rustfmt::skip]
pub const ROWS: [Row; 22] = {
    use {Part::*, Unit::*};
    [
        at_most(Accuracy, "CPU per request off `cpu_time=50ms` and `200ms`, c=1 and c=8", Percent, 5.0, 2.0),
        at_most(Accuracy, "CPU per request off `cpu_time=20ms`, c=1 and c=8", Percent, 8.0, 3.0),
        at_most(Accuracy, "CPU per request off `cpu_time=50ms`, c=8, limited to 500m", Percent, 8.0, 3.0),
        at_most(Accuracy, "`cpu_time_ms` off CPU per request less that of `iterations=0`", Percent, 5.0, 2.0),
        at_most(Pacing, "mean CPU, less that of the idle server, off Q: `cpu=Q&duration=5s`", Percent, 5.0, 2.0),
        at_most(Pacing, "end off 5 s", Milliseconds, 50.0, 20.0),
        at_least(Alone, "cores used by `cpu_time=50ms`, c=1", Cores, 0.90, 0.97),
        at_least(Saturated, "cores used of 2, default load, c=40", Cores, 1.90, 1.97),
        at_most(Tutorial, "requests that time out: default load, c=40, 5 s, limited to 500m", Count, 0.0, 0.0),
        at_most(Tutorial, "health p99 meanwhile", Milliseconds, 300.0, 150.0),
        at_least(Tutorial, "CPU used, of the limit", Percent, 95.0, 98.0),
        at_least(Tutorial, "whole answers, of what the limit allows", Ratio, 0.88, 0.95),
        reported(Overload, "whole answers, of what the limit allows: `cpu_time=100ms`, c=40, 5 s, limited to 500m", Ratio, Goal::AtLeast(0.5)),
        at_most(Overload, "health p99 meanwhile", Milliseconds, 500.0, 150.0),
        at_most(Overload, "time until the CPU is idle once the load is gone", Seconds, 2.0, 1.2),
        at_most(Leaving, "CPU used after the client of a long burn left at 2 s", Milliseconds, 50.0, 10.0),
        at_most(NoLimit, "health p99, default load, c=40", Milliseconds, 100.0, 30.0),
        at_least(Overhead, "requests per second of `iterations=0` against hello-world, c=8", Ratio, 0.95, 0.98),
        at_least(HashRate, "hashes per CPU second against the usual loop of native `sha2` in software", Ratio, 0.95, 1.0),
        at_most(Size, "`.wasm` against that of hello-world", Ratio, 1.25, 1.1),
        at_most(Growth, "spread of CPU per request, default load, c=1, 4, 16, 64", Percent, 5.0, 5.0),
        reported(Growth, "growth of health p99 against that of c", Ratio, Goal::AtMost(1.0)),
    ]
};

impl Part {
    /// Measures its rows. What cannot be measured is a row that says why.
    pub async fn measure(self, lab: &Lab) -> Vec<Line> {
        let rows: Vec<_> = ROWS.iter().filter(|row| row.part == self).collect();
        let outcomes = self.outcomes(lab).await.and_then(|outcomes| {
            ensure!(
                outcomes.len() == rows.len(),
                "{} figures for {} rows",
                outcomes.len(),
                rows.len()
            );
            Ok(outcomes)
        });
        let outcomes = outcomes.unwrap_or_else(|error| {
            let why = format!("{error:#}");
            rows.iter()
                .map(|_| Err(anyhow::Error::msg(why.clone())))
                .collect()
        });
        let lines = rows.into_iter().zip(outcomes);
        lines
            .map(|(row, outcome)| Line::new(row, outcome.map_err(|error| format!("{error:#}"))))
            .collect()
    }

    /// One outcome for each of its rows, in their order.
    async fn outcomes(self, lab: &Lab) -> Result<Vec<Result<Figure>>> {
        let figures = match self {
            Self::Accuracy => return measure::accuracy(lab).await,
            Self::Pacing => measure::pacing(lab).await,
            Self::Alone => measure::alone(lab).await,
            Self::Saturated => measure::saturated(lab).await,
            Self::Tutorial => measure::tutorial(lab).await,
            Self::Overload => measure::overload(lab).await,
            Self::Leaving => measure::leaving(lab).await,
            Self::NoLimit => measure::no_limit(lab).await,
            Self::Overhead => measure::overhead(lab).await,
            Self::HashRate => measure::hash_rate(lab).await,
            Self::Size => measure::size(lab),
            Self::Growth => measure::growth(lab).await,
        };
        Ok(figures?.into_iter().map(Ok).collect())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no part is skipped");
        f.pad(value.get_name())
    }
}

const fn at_most(part: Part, measure: &'static str, unit: Unit, must: f64, aim: f64) -> Row {
    let must = Some(Goal::AtMost(must));
    Row {
        must,
        ..reported(part, measure, unit, Goal::AtMost(aim))
    }
}

const fn at_least(part: Part, measure: &'static str, unit: Unit, must: f64, aim: f64) -> Row {
    let must = Some(Goal::AtLeast(must));
    Row {
        must,
        ..reported(part, measure, unit, Goal::AtLeast(aim))
    }
}

/// A row with an aim only.
const fn reported(part: Part, measure: &'static str, unit: Unit, aim: Goal) -> Row {
    Row {
        part,
        measure,
        unit,
        must: None,
        aim,
    }
}

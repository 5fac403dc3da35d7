//! How each row came out, as a table for people and as JSON for programs.

use std::{env, fmt, fs, path::Path, thread::available_parallelism, time::SystemTime};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets::ASCII_MARKDOWN};
use procfs::Current;
use serde::Serialize;

use crate::{
    rows::{Part, Row},
    server::Runner,
};

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Percent,
    Milliseconds,
    Seconds,
    Cores,
    Ratio,
    Count,
    Bytes,
    PerSecond,
    MillionPerSecond,
}

/// A number with its unit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantity {
    pub value: f64,
    pub unit: Unit,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        match self.unit {
            Unit::Percent => write!(f, "{value:.1} %"),
            Unit::Milliseconds if value.abs() >= 100.0 => write!(f, "{value:.0} ms"),
            Unit::Milliseconds if value.abs() >= 1.0 => write!(f, "{value:.1} ms"),
            Unit::Milliseconds => write!(f, "{value:.3} ms"),
            Unit::Seconds => write!(f, "{value:.2} s"),
            Unit::Cores | Unit::Ratio => write!(f, "{value:.3}"),
            Unit::Count => write!(f, "{value:.0}"),
            Unit::Bytes => write!(f, "{value:.0} B"),
            Unit::PerSecond => write!(f, "{value:.1}/s"),
            Unit::MillionPerSecond => write!(f, "{value:.3} M/s"),
        }
    }
}

/// What a figure has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    fn text(self, unit: Unit) -> String {
        let (sign, value) = match self {
            Self::AtMost(bound) => ("≤", bound),
            Self::AtLeast(bound) => ("≥", bound),
        };
        match unit {
            Unit::Percent => format!("{sign} {value} %"),
            Unit::Milliseconds => format!("{sign} {value} ms"),
            Unit::Seconds => format!("{sign} {value} s"),
            _ => format!("{sign} {value}"),
        }
    }
}

/// What was measured for a row: the figure that is judged, and those behind it.
#[derive(Clone, Debug)]
pub struct Figure {
    value: f64,
    beside: Vec<Beside>,
}

#[derive(Clone, Debug, Serialize)]
struct Beside {
    name: String,
    #[serde(flatten)]
    quantity: Quantity,
}

impl Figure {
    pub fn new(value: f64) -> Self {
        Self {
            value,
            beside: Vec::new(),
        }
    }

    /// The largest of some deviations in either direction.
    pub fn largest(deviations: impl IntoIterator<Item = f64>) -> Self {
        let sizes = deviations.into_iter().map(f64::abs);
        // In this order what is no number is the largest, and so falls short.
        Self::new(sizes.max_by(f64::total_cmp).unwrap_or(f64::NAN))
    }

    /// Adds a figure that stands beside the judged one.
    pub fn beside(mut self, name: impl Into<String>, value: f64, unit: Unit) -> Self {
        self.beside.push(Beside {
            name: name.into(),
            quantity: Quantity { value, unit },
        });
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    Aim,
    Must,
    Short,
    /// The row has an aim only, which is not reached.
    Reported,
    NotMeasured,
}

impl Mark {
    fn of(value: f64, must: Option<Goal>, aim: Goal) -> Self {
        match must {
            _ if aim.reached(value) => Self::Aim,
            Some(must) if must.reached(value) => Self::Must,
            Some(_) => Self::Short,
            None => Self::Reported,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aim => "aim",
            Self::Must => "must",
            Self::Short => "SHORT",
            Self::Reported => "reported",
            Self::NotMeasured => "not measured",
        })
    }
}

/// A row with its outcome.
#[derive(Debug, Serialize)]
pub struct Line {
    row: Part,
    measure: &'static str,
    unit: Unit,
    figure: Option<f64>,
    beside: Vec<Beside>,
    not_measured: Option<String>,
    must: Option<Goal>,
    aim: Goal,
    mark: Mark,
}

impl Line {
    /// Judges a row; an outcome without a figure says why there is none.
    pub fn new(row: &Row, outcome: Result<Figure, String>) -> Self {
        let mark = outcome.as_ref().map_or(Mark::NotMeasured, |figure| {
            Mark::of(figure.value, row.must, row.aim)
        });
        let (figure, beside, not_measured) = match outcome {
            Ok(figure) => (Some(figure.value), figure.beside, None),
            Err(why) => (None, Vec::new(), Some(why)),
        };
        let &Row {
            part,
            measure,
            unit,
            must,
            aim,
        } = row;
        Self {
            row: part,
            measure,
            unit,
            figure,
            beside,
            not_measured,
            must,
            aim,
            mark,
        }
    }

    /// The figure with those beside it, or why there is none.
    fn result(&self) -> String {
        let Some(value) = self.figure else {
            return format!(
                "not measured: {}",
                self.not_measured.as_deref().unwrap_or("no reason given")
            );
        };
        let judged = Quantity {
            value,
            unit: self.unit,
        };
        if self.beside.is_empty() {
            return judged.to_string();
        }
        let beside: Vec<_> = self
            .beside
            .iter()
            .map(|beside| format!("{} {}", beside.name, beside.quantity))
            .collect();
        format!("{judged} ({})", beside.join(", "))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}: {}",
            self.row,
            self.measure,
            self.result(),
            self.mark
        )
    }
}

/// The benchmark's result.
#[derive(Serialize)]
pub struct Report {
    date: String,
    server: &'static str,
    version: String,
    machine: Machine,
    /// The Spin variables in the environment, which change what is measured.
    variables: Vec<String>,
    rows: Vec<Line>,
}

#[derive(Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

impl Report {
    pub fn new(runner: &Runner) -> Result<Self> {
        let cpus = procfs::CpuInfo::current()?;
        let machine = Machine {
            cpu: cpus.model_name(0).unwrap_or("unknown CPU").to_owned(),
            cores: available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
        };
        let variables = env::vars().filter(|(name, _)| name.starts_with("SPIN_VARIABLE_"));
        Ok(Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            server: runner.name(),
            version: runner.version()?,
            machine,
            variables: variables
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            rows: Vec::new(),
        })
    }

    pub fn add(&mut self, line: Line) {
        self.rows.push(line);
    }

    /// 0 where every must is reached, 1 where one falls short, 2 where one was not measured.
    pub fn exit_status(&self) -> u8 {
        let any = |mark| self.rows.iter().any(|line| line.mark == mark);
        match (any(Mark::Short), any(Mark::NotMeasured)) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        }
    }

    pub fn write_json(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// What was measured, where and when, in one line.
    pub fn heading(&self) -> String {
        let Machine { cpu, cores, kernel } = &self.machine;
        let mut heading = format!(
            "{} ({}), {cpu}, {cores} cores, Linux {kernel}, {}",
            self.server, self.version, self.date
        );
        for variable in &self.variables {
            heading += &format!(", {variable}");
        }
        heading
    }

    /// The table in Markdown.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table
            .load_style(ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(["row", "measure", "figure", "must", "aim", "mark"]);
        for line in &self.rows {
            table.add_row([
                line.row.to_string(),
                line.measure.to_owned(),
                line.result(),
                line.must
                    .map_or_else(|| "reported".to_owned(), |must| must.text(line.unit)),
                line.aim.text(line.unit),
                line.mark.to_string(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let (must, aim) = (Some(Goal::AtMost(5.0)), Goal::AtMost(2.0));
        assert_eq!(Mark::of(2.0, must, aim), Mark::Aim);
        assert_eq!(Mark::of(2.1, must, aim), Mark::Must);
        assert_eq!(Mark::of(5.0, must, aim), Mark::Must);
        assert_eq!(Mark::of(5.1, must, aim), Mark::Short);
        assert_eq!(Mark::of(f64::NAN, must, aim), Mark::Short);
        assert_eq!(
            Mark::of(0.9, Some(Goal::AtLeast(0.9)), Goal::AtLeast(0.97)),
            Mark::Must
        );
        assert_eq!(Mark::of(0.4, None, Goal::AtLeast(0.5)), Mark::Reported);
    }

    #[test]
    fn the_largest_deviation_is_judged() {
        assert_eq!(Figure::largest([1.0, -3.0, 2.0]).value, 3.0);
        assert!(Figure::largest([1.0, f64::NAN, 2.0]).value.is_nan());
    }

    const ROW: Row = Row {
        part: Part::Alone,
        measure: "cores used",
        unit: Unit::Cores,
        must: Some(Goal::AtLeast(0.9)),
        aim: Goal::AtLeast(0.97),
    };

    fn report(outcomes: &[Result<f64, &str>]) -> Report {
        let mut report = Report::new(&Runner::Host("/bin/true".into())).unwrap();
        for outcome in outcomes {
            report.add(Line::new(
                &ROW,
                outcome.map(Figure::new).map_err(str::to_owned),
            ));
        }
        report
    }

    #[test]
    fn exit_status() {
        assert_eq!(report(&[Ok(0.99), Ok(0.93)]).exit_status(), 0);
        assert_eq!(report(&[Ok(0.99), Err("no rights")]).exit_status(), 2);
        assert_eq!(report(&[Err("no rights"), Ok(0.5)]).exit_status(), 1);
    }

    #[test]
    fn table_in_markdown() {
        let mut report = report(&[Err("no rights")]);
        report.add(Line::new(
            &ROW,
            Ok(Figure::new(0.95).beside("answers", 19.0, Unit::PerSecond)),
        ));
        let table = report.table().to_string();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("|---"), "{table}");
        assert!(lines[2].contains("not measured: no rights"), "{table}");
        assert!(lines[3].contains("0.950 (answers 19.0/s)"), "{table}");
        assert!(lines[3].contains("≥ 0.9 "), "{table}");
    }
}

//! The report: where and when it was measured, a table in Markdown for each case, and a CSV file.

use std::{env, fs, path::Path, thread::available_parallelism, time::SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use testkit::Runner;

use crate::{testbed::COMPONENT, value::Value};

/// A measure and its value.
pub type Figure = (&'static str, Value);

/// The figure of this measure.
///
/// # Panics
/// If it is not among the figures.
pub fn figure(figures: &[Figure], measure: &str) -> Figure {
    let found = figures.iter().find(|(name, _)| *name == measure);
    *found.unwrap_or_else(|| panic!("no figure `{measure}`"))
}

/// A line of the CSV file.
#[derive(Clone, Default, Deserialize, Serialize)]
pub struct Row {
    /// The output of `--version`.
    pub server: String,
    pub component: String,
    pub case: String,
    /// What was measured, such as a load.
    pub subject: String,
    pub measure: String,
    /// Empty if there is none, such as a latency without a response.
    pub value: Option<f64>,
    pub unit: String,
    pub bound: String,
}

impl Row {
    /// Rows with the same source are measured, and replaced, together.
    fn source(&self) -> [&str; 3] {
        [&self.server, &self.component, &self.case]
    }
}

#[derive(Default)]
pub struct Report {
    /// Of the rows of the case under way: the server, the component and the case.
    row: Row,
    /// The case, and the component if it is another than that of this repository.
    title: String,
    /// The measures in the head of the table under way.
    columns: Vec<&'static str>,
    rows: Vec<Row>,
    /// The values that miss their bounds, and the cases that could not be measured.
    failures: Vec<String>,
    /// The exit status: 0 if all values meet their bounds, 1 if one misses it, 2 if one was not
    /// measured.
    status: u8,
}

impl Report {
    /// Prints the conditions of the measurement.
    pub fn begin(runner: &Runner) -> Result<Self> {
        let mut report = Self::default();
        report.row.server = runner.version()?;
        println!("{}", conditions(&report.row.server)?);
        Ok(report)
    }

    pub fn begin_case(&mut self, case: &str, component: &Path) {
        self.row.case = case.to_owned();
        self.row.component = component.display().to_string();
        self.title = match self.row.component.as_str() {
            COMPONENT => case.to_owned(),
            other => format!("{case}, {other}"),
        };
        self.columns.clear();
    }

    /// Prints the figures of `subject`; values that miss their bounds are bold.
    pub fn add(&mut self, subject: impl Into<String>, figures: &[Figure]) {
        let subject = subject.into();
        let columns: Vec<_> = figures.iter().map(|(measure, _)| *measure).collect();
        if self.columns != columns {
            println!("\n| {} | {} |", self.title, columns.join(" | "));
            println!("| --- |{}", " --- |".repeat(columns.len()));
            self.columns = columns;
        }
        let mut line = format!("| {subject} |");
        for &(measure, value) in figures {
            if value.meets_bound() {
                line += &format!(" {value} |");
            } else {
                line += &format!(" **{value}** |");
                let missed = format!("missed: {}: {subject}: {measure}: {value}", self.title);
                self.failures.push(missed);
                self.status = 1;
            }
            self.rows.push(Row {
                subject: subject.clone(),
                measure: measure.to_owned(),
                value: Some(value.number).filter(|it| it.is_finite()),
                unit: value.unit.to_owned(),
                bound: value.bound(),
                ..self.row.clone()
            });
        }
        println!("{line}");
    }

    /// Prints why values of the case under way are missing, if some are.
    pub fn check(&mut self, measured: Result<()>) {
        let Err(why) = measured else { return };
        let failed = format!("{}: {why:#}", self.title);
        println!("\n{failed}");
        self.failures.push(format!("not measured: {failed}"));
        if self.status == 0 {
            self.status = 2;
        }
    }

    /// Writes the values to `csv`, in place of the rows there that have the same server, component
    /// and case. Prints all failures, and returns the exit status.
    pub fn end(self, csv: Option<&Path>) -> Result<u8> {
        if let Some(path) = csv {
            let mut rows = if path.exists() {
                read(path)?
            } else {
                Vec::new()
            };
            rows.retain(|old| self.rows.iter().all(|new| new.source() != old.source()));
            rows.extend(self.rows);
            write(&rows, path)?;
        }
        for failure in &self.failures {
            eprintln!("{failure}");
        }
        Ok(self.status)
    }
}

/// Reads a file that [`Report::end`] wrote.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let read = || csv::Reader::from_path(path)?.deserialize().collect();
    let rows: csv::Result<_> = read();
    rows.with_context(|| format!("cannot read {}", path.display()))
}

fn write(rows: &[Row], path: &Path) -> Result<()> {
    let write = || {
        let mut data = csv::Writer::from_path(path)?;
        rows.iter().try_for_each(|row| data.serialize(row))?;
        Ok::<_, csv::Error>(data.flush()?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The server, the machine, the time, and everything else that may change the values.
fn conditions(server: &str) -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let mut models = cpus.lines().filter(|line| line.starts_with("model name"));
    let model = models.next().and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let cores = available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel = kernel.trim();
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let mut text = format!("{server}, {model}, {cores} cores, Linux {kernel}, {time}");
    for (name, value) in env::vars() {
        if name.starts_with("SPIN_VARIABLE_") {
            text += &format!(", {name}={value}");
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::plain;

    fn report(case: &str, value: f64) -> Report {
        let mut report = Report::default();
        report.begin_case(case, Path::new("a.wasm"));
        report.add("c=1", &[("cores used", plain(value).at_least(0.9))]);
        report
    }

    #[test]
    fn exit_status() {
        assert_eq!(report("alone", 0.95).end(None).unwrap(), 0);
        assert_eq!(report("alone", 0.5).end(None).unwrap(), 1);
        let mut incomplete = report("alone", 0.95);
        incomplete.check(Err(anyhow::anyhow!("no rights")));
        assert_eq!(incomplete.end(None).unwrap(), 2);
    }

    #[test]
    fn a_run_replaces_the_rows_of_its_cases() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values.csv");
        for (case, value) in [
            ("alone", 0.5),
            ("crowd", 0.7),
            ("alone", 0.9),
            ("crowd", f64::NAN),
        ] {
            report(case, value).end(Some(&path)).unwrap();
        }
        let rows = read(&path).unwrap();
        let values: Vec<_> = rows.iter().map(|it| (it.case.as_str(), it.value)).collect();
        assert_eq!(values, [("alone", Some(0.9)), ("crowd", None)]);
        assert_eq!(rows[0].bound, "≥ 0.9");
    }
}

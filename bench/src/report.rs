//! What was measured, where and when: a table in Markdown that grows row by row, and JSON for programs.

use std::{env, fs, path::Path, thread::available_parallelism, time::SystemTime};

use anyhow::Result;
use serde::Serialize;

use crate::{
    figure::{Figure, Mark},
    server::Runner,
};

#[derive(Serialize)]
pub struct Report {
    date: String,
    server: &'static str,
    version: String,
    machine: Machine,
    /// What changes what is measured: another build of the component, Spin variables.
    settings: Vec<String>,
    /// The name of the row under way.
    #[serde(skip)]
    row: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

#[derive(Serialize)]
struct Row {
    row: String,
    measure: String,
    #[serde(flatten)]
    figure: Option<Figure>,
    mark: Mark,
}

impl Report {
    /// Begins the report, and prints the head of its table.
    pub fn begin(runner: &Runner, wasm: Option<&Path>) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let name = |line: &str| {
            Some(
                line.strip_prefix("model name")?
                    .split_once(": ")?
                    .1
                    .to_owned(),
            )
        };
        let machine = Machine {
            cpu: cpus.lines().find_map(name).unwrap_or("unknown CPU".into()),
            cores: available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
        };
        let wasm = wasm.map(|path| format!("WASM={}", path.display()));
        let variables = env::vars().filter(|(name, _)| name.starts_with("SPIN_VARIABLE_"));
        let variables = variables.map(|(name, value)| format!("{name}={value}"));
        let report = Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            server: runner.name(),
            version: runner.version()?,
            machine,
            settings: wasm.into_iter().chain(variables).collect(),
            row: String::new(),
            rows: Vec::new(),
        };
        println!("{}\n", report.heading());
        println!("| row | measure | figure | must | aim | mark |");
        println!("| --- | --- | --- | --- | --- | --- |");
        Ok(report)
    }

    pub fn begin_row(&mut self, name: &str) {
        self.row = name.to_owned();
    }

    /// Adds a figure to the row under way, and prints it.
    pub fn add(&mut self, measure: impl Into<String>, figure: Figure) {
        let (measure, [must, aim], mark) = (measure.into(), figure.goals_text(), figure.mark());
        println!(
            "| {} | {measure} | {figure} | {must} | {aim} | {mark} |",
            self.row
        );
        self.push(measure, Some(figure), mark);
    }

    /// Tells why figures of the row under way are missing.
    pub fn not_measured(&mut self, why: &anyhow::Error) {
        let (measure, mark) = (format!("{why:#}"), Mark::NotMeasured);
        println!("| {} | {measure} | – | – | – | {mark} |", self.row);
        self.push(measure, None, mark);
    }

    fn push(&mut self, measure: String, figure: Option<Figure>, mark: Mark) {
        self.rows.push(Row {
            row: self.row.clone(),
            measure,
            figure,
            mark,
        });
    }

    /// 0 where every must is reached, 1 where one falls short, 2 where one was not measured.
    pub fn exit_status(&self) -> u8 {
        let any = |mark| self.rows.iter().any(|row| row.mark == mark);
        match (any(Mark::Short), any(Mark::NotMeasured)) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        }
    }

    pub fn write_json(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    fn heading(&self) -> String {
        let Machine { cpu, cores, kernel } = &self.machine;
        let mut heading = format!(
            "{} ({}), {cpu}, {cores} cores, Linux {kernel}, {}",
            self.server, self.version, self.date
        );
        for setting in &self.settings {
            heading += &format!(", {setting}");
        }
        heading
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Unit;

    #[test]
    fn exit_status() {
        let mut report = Report::begin(&Runner::Host("/bin/true".into()), None).unwrap();
        report.add("cores used", Unit::Cores.of(0.95).at_least(0.9, 1.0));
        assert_eq!(report.exit_status(), 0);
        report.not_measured(&anyhow::anyhow!("no rights"));
        assert_eq!(report.exit_status(), 2);
        report.add("cores used", Unit::Cores.of(0.5).at_least(0.9, 1.0));
        assert_eq!(report.exit_status(), 1);
    }
}

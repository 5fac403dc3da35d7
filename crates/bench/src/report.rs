//! The report: where and when it was measured, and a table in Markdown that grows row by row.

use std::{env, fs, path::Path, thread::available_parallelism, time::SystemTime};

use anyhow::Result;
use testkit::Runner;

use crate::value::{Goal, Value, Verdict};

#[derive(Default)]
pub struct Report {
    /// The name of the case under way.
    case: String,
    missed: bool,
    missing: bool,
}

impl Report {
    /// Prints the conditions of the measurement and the head of the table.
    pub fn begin(runner: &Runner, wasm: Option<&Path>) -> Result<Self> {
        println!("{}\n", conditions(runner, wasm)?);
        println!("| case | measure | value | required | target | verdict |");
        println!("| --- | --- | --- | --- | --- | --- |");
        Ok(Self::default())
    }

    pub fn begin_case(&mut self, name: &str) {
        self.case = name.to_owned();
    }

    /// Prints a value of the case under way.
    pub fn add(&mut self, measure: impl AsRef<str>, value: Value, goal: Goal) {
        let (case, measure) = (&self.case, measure.as_ref());
        let (required, target) = (goal.required(value), goal.target(value));
        let verdict = goal.evaluate(value);
        println!("| {case} | {measure} | {value} | {required} | {target} | {verdict} |");
        self.missed |= verdict == Verdict::Missed;
    }

    /// Prints why values of the case under way are missing.
    pub fn not_measured(&mut self, why: &anyhow::Error) {
        println!("| {} | {why:#} | | | | not measured |", self.case);
        self.missing = true;
    }

    /// 0 if all values reach their required bounds, 1 if one misses it, 2 if one was not measured.
    pub fn exit_status(&self) -> u8 {
        match (self.missed, self.missing) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        }
    }
}

/// The server, the machine, the time, and everything else that may change the values.
pub fn conditions(runner: &Runner, wasm: Option<&Path>) -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let mut models = cpus.lines().filter(|line| line.starts_with("model name"));
    let model = models.next().and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let cores = available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel = kernel.trim();
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let (name, version) = (runner.name(), runner.version()?);
    let mut text = format!("{name} ({version}), {model}, {cores} cores, Linux {kernel}, {time}");
    if let Some(wasm) = wasm {
        text += &format!(", WASM={}", wasm.display());
    }
    for (name, value) in env::vars().filter(|(name, _)| name.starts_with("SPIN_VARIABLE_")) {
        text += &format!(", {name}={value}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status() {
        let mut report = Report::default();
        report.add("cores used", Value::Plain(0.95), Goal::at_least(0.9, 1.0));
        assert_eq!(report.exit_status(), 0);
        report.not_measured(&anyhow::anyhow!("no rights"));
        assert_eq!(report.exit_status(), 2);
        report.add("cores used", Value::Plain(0.5), Goal::at_least(0.9, 1.0));
        assert_eq!(report.exit_status(), 1);
    }
}

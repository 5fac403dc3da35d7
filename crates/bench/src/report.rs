//! What was measured, where and when: a table in Markdown that grows row by row.

use std::{env, fs, path::Path, thread::available_parallelism, time::SystemTime};

use anyhow::Result;
use testkit::Runner;

use crate::figure::{Figure, Goal, SHORT};

#[derive(Default)]
pub struct Report {
    /// The name of the row under way.
    row: String,
    short: bool,
    missing: bool,
}

impl Report {
    /// Begins the report: prints where and when it is made, and the head of its table.
    pub fn begin(runner: &Runner, wasm: Option<&Path>) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let mut names = cpus.lines().filter(|line| line.starts_with("model name"));
        let cpu = names.next().and_then(|line| line.split_once(": "));
        print!(
            "{} ({}), {}, {} cores, Linux {}, {}",
            runner.name(),
            runner.version()?,
            cpu.map_or("unknown CPU", |(_, name)| name),
            available_parallelism()?,
            fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
            humantime::format_rfc3339_seconds(SystemTime::now()),
        );
        // What changes what is measured: another build of the component, Spin variables.
        if let Some(wasm) = wasm {
            print!(", WASM={}", wasm.display());
        }
        for (name, value) in env::vars().filter(|(name, _)| name.starts_with("SPIN_VARIABLE_")) {
            print!(", {name}={value}");
        }
        println!("\n\n| row | measure | figure | must | aim | mark |");
        println!("| --- | --- | --- | --- | --- | --- |");
        Ok(Self::default())
    }

    pub fn begin_row(&mut self, name: &str) {
        self.row = name.to_owned();
    }

    /// Prints a figure of the row under way.
    pub fn add(&mut self, measure: impl AsRef<str>, figure: Figure, goal: Goal) {
        let (row, measure) = (&self.row, measure.as_ref());
        let (must, aim, mark) = figure.judge(goal);
        println!("| {row} | {measure} | {figure} | {must} | {aim} | {mark} |");
        self.short |= mark == SHORT;
    }

    /// Tells why figures of the row under way are missing.
    pub fn not_measured(&mut self, why: &anyhow::Error) {
        println!("| {} | {why:#} | – | – | – | not measured |", self.row);
        self.missing = true;
    }

    /// 0 where every must is reached, 1 where one falls short, 2 where one was not measured.
    pub fn exit_status(&self) -> u8 {
        match (self.short, self.missing) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Figure::Plain, Goal::AtLeast};

    #[test]
    fn exit_status() {
        let mut report = Report::default();
        report.add("cores used", Plain(0.95), AtLeast(0.9, 1.0));
        assert_eq!(report.exit_status(), 0);
        report.not_measured(&anyhow::anyhow!("no rights"));
        assert_eq!(report.exit_status(), 2);
        report.add("cores used", Plain(0.5), AtLeast(0.9, 1.0));
        assert_eq!(report.exit_status(), 1);
    }
}

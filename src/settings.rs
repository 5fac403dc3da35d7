//! The default load and the limits, read from Spin variables when a request needs them.

use std::time::Duration;

use thiserror::Error;

use crate::load::{self, Load, LoadError};

/// The Spin variables, each read by its name.
/// <https://spinframework.dev/variables>
pub struct Settings<F>(pub F);

/// Why a load is not run.
#[derive(Debug, Error)]
pub enum Rejection {
    /// The query is no load.
    #[error(transparent)]
    Query(#[from] LoadError),
    /// The load that the query asks for is above a limit.
    #[error("{0}; ask for less")]
    AboveLimit(AboveLimit),
    /// A variable that this request needs cannot be used.
    #[error("the variable `{variable}` cannot be used: {reason}")]
    Variable {
        variable: &'static str,
        reason: String,
    },
}

/// A load that is larger than a variable allows.
#[derive(Debug, Error)]
#[error(
    "`{load}` asks for {asked} {unit}, above the limit of {limit}, which the variable \
    `{variable}` sets"
)]
pub struct AboveLimit {
    load: Load,
    /// The key of the load that is too large; none where two are so together.
    pub parameter: Option<&'static str>,
    asked: String,
    unit: &'static str,
    limit: String,
    variable: &'static str,
}

/// What a variable bounds: what it counts, and how that is read and written.
struct Limit<T> {
    variable: &'static str,
    unit: &'static str,
    read: fn(&'static str, &str) -> Result<T, LoadError>,
    write: fn(T) -> String,
}

const ITERATIONS: Limit<u64> = Limit {
    variable: "max_iterations",
    unit: "iterations",
    read: load::iterations,
    write: |n| n.to_string(),
};
const CPU_TIME: Limit<Duration> = Limit {
    variable: "max_cpu_time",
    unit: "of CPU time",
    read: load::duration,
    write: load::written,
};
const DURATION: Limit<Duration> = Limit {
    variable: "max_duration",
    unit: "of wall-clock time",
    read: load::duration,
    write: load::written,
};

impl<F: Fn(&str) -> anyhow::Result<String>> Settings<F> {
    /// The load that `query` asks for, the default load where it is empty, within the limits.
    pub fn load(&self, query: &str) -> Result<Load, Rejection> {
        if query.is_empty() {
            let load = self.read("load", |_, text| text.parse())?;
            self.judge(load).map_err(|rejection| match rejection {
                Rejection::AboveLimit(above) => unusable("load", above.to_string()),
                other => other,
            })?;
            return Ok(load);
        }
        let load = query.parse()?;
        self.judge(load)?;
        Ok(load)
    }

    /// The name of this replica, where it has one.
    pub fn replica(&self) -> Result<Option<String>, Rejection> {
        let name = self.text("replica")?;
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    /// Refuses a load that is above a limit.
    fn judge(&self, load: Load) -> Result<(), Rejection> {
        match load {
            // No work is above no limit.
            Load::Iterations(0) => Ok(()),
            Load::Iterations(n) => self.bound(&ITERATIONS, load, Some("iterations"), n),
            Load::CpuTime(d) => self.bound(&CPU_TIME, load, Some("cpu_time"), d),
            Load::Paced { cpu, duration } => {
                self.bound(&DURATION, load, Some("duration"), duration)?;
                self.bound(&CPU_TIME, load, None, cpu.over(duration))
            }
        }
    }

    fn bound<T: Copy + PartialOrd>(
        &self,
        limit: &Limit<T>,
        load: Load,
        parameter: Option<&'static str>,
        asked: T,
    ) -> Result<(), Rejection> {
        let most = self.read(limit.variable, limit.read)?;
        if asked <= most {
            return Ok(());
        }
        Err(Rejection::AboveLimit(AboveLimit {
            load,
            parameter,
            asked: (limit.write)(asked),
            unit: limit.unit,
            limit: (limit.write)(most),
            variable: limit.variable,
        }))
    }

    fn read<T>(
        &self,
        variable: &'static str,
        read: impl FnOnce(&'static str, &str) -> Result<T, LoadError>,
    ) -> Result<T, Rejection> {
        read(variable, &self.text(variable)?).map_err(|error| unusable(variable, error.to_string()))
    }

    fn text(&self, variable: &'static str) -> Result<String, Rejection> {
        (self.0)(variable).map_err(|error| unusable(variable, error.to_string()))
    }
}

fn unusable(variable: &'static str, reason: String) -> Rejection {
    Rejection::Variable { variable, reason }
}

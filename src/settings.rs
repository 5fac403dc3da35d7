//! The default load and the limits: Spin variables, read when a request needs them.
//! <https://spinframework.dev/variables>

use std::time::Duration;

use spin_sdk::variables;
use thiserror::Error;

use crate::load::{self, Load, LoadError};

/// Why a load is not run.
#[derive(Debug, Error)]
pub enum Rejection {
    /// The query is not a load.
    #[error(transparent)]
    Query(#[from] LoadError),
    /// The query asks for more than a limit allows.
    #[error("{0}; ask for less")]
    AboveLimit(AboveLimit),
    /// A variable that the request needs cannot be used.
    #[error("the variable `{variable}` cannot be used: {reason}")]
    Variable {
        variable: &'static str,
        reason: String,
    },
}

/// A load that is larger than a variable allows.
#[derive(Debug, Error)]
#[error(
    "`{load}` asks for {asked}, above the limit of {limit}, which the variable `{variable}` sets"
)]
pub struct AboveLimit {
    load: Load,
    /// The key of the load that is too large; none if two are together.
    pub parameter: Option<&'static str>,
    asked: String,
    limit: String,
    variable: &'static str,
}

/// The load that `query` asks for, or the default load if it is empty.
///
/// # Errors
///
/// If that is not a load, or above a limit, or if a variable that tells cannot be used.
pub fn load(query: &str) -> Result<Load, Rejection> {
    if query.is_empty() {
        return default_load();
    }
    let load = query.parse()?;
    validate(load)?;
    Ok(load)
}

/// The name of this replica, if it has one.
pub fn replica() -> Result<Option<String>, Rejection> {
    let name = text("replica")?;
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn default_load() -> Result<Load, Rejection> {
    let load = read("load", |_, text| text.parse())?;
    match validate(load) {
        // The client has not asked for it: the variable is at fault.
        Err(Rejection::AboveLimit(above)) => Err(unusable("load", &above)),
        result => result.map(|()| load),
    }
}

/// Rejects a load that is above a limit.
fn validate(load: Load) -> Result<(), Rejection> {
    match load {
        // No work is within every limit.
        Load::Iterations(0) => Ok(()),
        Load::Iterations(asked) => {
            let limit = read("max_iterations", load::iterations)?;
            if asked <= limit {
                return Ok(());
            }
            Err(Rejection::AboveLimit(AboveLimit {
                load,
                parameter: Some("iterations"),
                asked: format!("{asked} iterations"),
                limit: limit.to_string(),
                variable: "max_iterations",
            }))
        }
        Load::CpuTime(asked) => validate_cpu_time(load, Some("cpu_time"), asked),
        Load::Paced { cpu, duration } => {
            validate_time(
                load,
                Some("duration"),
                duration,
                "wall-clock time",
                "max_duration",
            )?;
            validate_cpu_time(load, None, cpu.over(duration))
        }
    }
}

fn validate_cpu_time(
    load: Load,
    parameter: Option<&'static str>,
    asked: Duration,
) -> Result<(), Rejection> {
    validate_time(load, parameter, asked, "CPU time", "max_cpu_time")
}

fn validate_time(
    load: Load,
    parameter: Option<&'static str>,
    asked: Duration,
    kind: &str,
    variable: &'static str,
) -> Result<(), Rejection> {
    let limit = read(variable, load::duration)?;
    if asked <= limit {
        return Ok(());
    }
    Err(Rejection::AboveLimit(AboveLimit {
        load,
        parameter,
        asked: format!("{} of {kind}", load::format_duration(asked)),
        limit: load::format_duration(limit),
        variable,
    }))
}

fn read<T>(
    variable: &'static str,
    parse: impl FnOnce(&'static str, &str) -> Result<T, LoadError>,
) -> Result<T, Rejection> {
    parse(variable, &text(variable)?).map_err(|error| unusable(variable, &error))
}

fn text(variable: &'static str) -> Result<String, Rejection> {
    variables::get(variable).map_err(|error| unusable(variable, &error))
}

fn unusable(variable: &'static str, reason: &dyn ToString) -> Rejection {
    Rejection::Variable {
        variable,
        reason: reason.to_string(),
    }
}

//! The default load and the limits: Spin variables, read when a request needs them.
//! <https://spinframework.dev/variables>
//!
//! A variable that the app does not have takes its default of `spin.toml`.

use spin_sdk::variables;
use thiserror::Error;

use crate::load::{self, Load, LoadError};
use crate::overhead::{self, Overhead};

/// The variables of `spin.toml` and their defaults.
const DEFAULTS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/defaults.rs"));

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
    "{} of `{load}` is above the limit of {limit}, which the variable `{variable}` sets",
    .parameter.map_or("the CPU time".into(), |parameter| format!("`{parameter}`"))
)]
pub struct AboveLimit {
    load: Load,
    /// The key of the load that is too large; none if two together are.
    pub parameter: Option<&'static str>,
    limit: String,
    variable: &'static str,
}

/// The load that `query` asks for, or the default load if it is empty.
///
/// # Errors
///
/// If that is not a load or above a limit, or if a variable that is needed cannot be used.
pub fn load(query: &str) -> Result<Load, Rejection> {
    if query.is_empty() {
        return default_load();
    }
    let load = query.parse()?;
    check(load)?;
    Ok(load)
}

/// The name of this replica, if it has one.
pub fn replica() -> Result<Option<String>, Rejection> {
    let name = text("replica")?;
    Ok(Some(name).filter(|name| !name.is_empty()))
}

/// What the host is assumed to use in addition to a burn, if `load` includes it.
pub fn overhead(load: Load) -> Result<Overhead, Rejection> {
    let cost = |name| read(name, overhead::cost).map(|variable| variable.value);
    if let Load::Iterations(_) = load {
        return Ok(Overhead::default());
    }
    Ok(Overhead {
        per_request: cost("request_overhead")?,
        per_pause: cost("pause_overhead")?,
        per_yield: cost("yield_overhead")?,
    })
}

/// The limits in force, as header fields.
pub fn limits() -> Result<[(&'static str, String); 4], Rejection> {
    let iterations = read("max_iterations", load::iterations)?.text;
    let cpu_time = read("max_cpu_time", load::duration)?.text;
    let duration = read("max_duration", load::duration)?.text;
    let sustained_cpu = read("max_sustained_cpu", load::cpu)?.text;
    Ok([
        ("max-iterations", iterations),
        ("max-cpu-time", cpu_time),
        ("max-duration", duration),
        ("max-sustained-cpu", sustained_cpu),
    ])
}

fn default_load() -> Result<Load, Rejection> {
    let load = read("load", |_, text| text.parse())?.value;
    match check(load) {
        // The client has not asked for it: the variable is at fault.
        Err(Rejection::AboveLimit(above)) => Err(unusable("load", &above)),
        result => result.map(|()| load),
    }
}

/// Rejects a load that is above a limit.
fn check(load: Load) -> Result<(), Rejection> {
    match load {
        // No work, so no limit applies.
        Load::Iterations(0) => Ok(()),
        Load::Iterations(n) => {
            let limit = read("max_iterations", load::iterations)?;
            limit.check(n, load, Some("iterations"))
        }
        Load::CpuTime(d) => {
            let limit = read("max_cpu_time", load::duration)?;
            limit.check(d, load, Some("cpu_time"))
        }
        Load::Paced { cpu, duration } => {
            let limit = read("max_duration", load::duration)?;
            limit.check(duration, load, Some("duration"))?;
            if cpu <= read("max_sustained_cpu", load::cpu)?.value {
                return Ok(());
            }
            let limit = read("max_cpu_time", load::duration)?;
            limit.check(cpu.over(duration), load, None)
        }
    }
}

/// A variable as it is set and as it is understood.
struct Variable<T> {
    name: &'static str,
    text: String,
    value: T,
}

impl<T: PartialOrd> Variable<T> {
    /// Rejects `load` if `value`, which its `parameter` asks for, is above this limit.
    fn check(self, value: T, load: Load, parameter: Option<&'static str>) -> Result<(), Rejection> {
        if value <= self.value {
            return Ok(());
        }
        Err(Rejection::AboveLimit(AboveLimit {
            load,
            parameter,
            limit: self.text,
            variable: self.name,
        }))
    }
}

fn read<T>(
    name: &'static str,
    parse: fn(&'static str, &str) -> Result<T, LoadError>,
) -> Result<Variable<T>, Rejection> {
    let text = text(name)?;
    let value = parse(name, &text).map_err(|error| unusable(name, &error))?;
    Ok(Variable { name, text, value })
}

fn text(variable: &'static str) -> Result<String, Rejection> {
    match variables::get(variable) {
        Err(variables::Error::Undefined(_)) => Ok(default(variable).into()),
        result => result.map_err(|error| unusable(variable, &error)),
    }
}

fn default(variable: &str) -> &'static str {
    let mut defaults = DEFAULTS.iter();
    let found = defaults.find(|(name, _)| *name == variable);
    found.expect("a variable of spin.toml").1
}

fn unusable(variable: &'static str, reason: &dyn ToString) -> Rejection {
    Rejection::Variable {
        variable,
        reason: reason.to_string(),
    }
}

//! The default load and the limits, read from Spin variables when a request needs them.

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
#[error("`{load}` is above the limit of {limit}, which the variable `{variable}` sets")]
pub struct AboveLimit {
    load: Load,
    /// The key of the load that is too large.
    pub parameter: &'static str,
    limit: String,
    variable: &'static str,
}

impl<F: Fn(&str) -> anyhow::Result<String>> Settings<F> {
    /// The load that `query` asks for, the default load where it is empty, within the limits.
    pub fn load(&self, query: &str) -> Result<Load, Rejection> {
        let default = query.is_empty();
        let load = if default {
            self.read("load", str::parse)?
        } else {
            query.parse()?
        };
        match self.above_limit(load)? {
            None => Ok(load),
            Some(above) if default => Err(unusable("load", above.to_string())),
            Some(above) => Err(Rejection::AboveLimit(above)),
        }
    }

    /// The name of this replica, where it has one.
    pub fn replica(&self) -> Result<Option<String>, Rejection> {
        let name = self.text("replica")?;
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    fn above_limit(&self, load: Load) -> Result<Option<AboveLimit>, Rejection> {
        let (parameter, variable, above, limit) = match load {
            // No work is above no limit.
            Load::Iterations(0) => return Ok(None),
            Load::Iterations(n) => {
                let variable = "max_iterations";
                let max = self.read(variable, |text| load::iterations(variable, text))?;
                ("iterations", variable, n > max, max.to_string())
            }
            Load::CpuTime(d) => {
                let variable = "max_cpu_time";
                let max = self.read(variable, |text| load::duration(variable, text))?;
                ("cpu_time", variable, d > max, load::written(max))
            }
            Load::Paced { duration, .. } => {
                let variable = "max_duration";
                let max = self.read(variable, |text| load::duration(variable, text))?;
                ("duration", variable, duration > max, load::written(max))
            }
        };
        Ok(above.then_some(AboveLimit {
            load,
            parameter,
            limit,
            variable,
        }))
    }

    fn read<T>(
        &self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, LoadError>,
    ) -> Result<T, Rejection> {
        parse(&self.text(variable)?).map_err(|error| unusable(variable, error.to_string()))
    }

    fn text(&self, variable: &'static str) -> Result<String, Rejection> {
        (self.0)(variable).map_err(|error| unusable(variable, error.to_string()))
    }
}

fn unusable(variable: &'static str, reason: String) -> Rejection {
    Rejection::Variable { variable, reason }
}

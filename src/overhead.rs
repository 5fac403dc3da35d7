//! The CPU time that the host uses in addition to a burn. A guest cannot measure it, so it is assumed.

use std::time::Duration;

use crate::load::{self, LoadError};

/// What the host is assumed to use for a request.
#[derive(Clone, Copy, Default)]
pub struct Overhead {
    /// For the request as a whole.
    pub per_request: Cost,
    /// For each pause of a paced load, after which the server mostly wakes up from idle.
    pub per_pause: Cost,
    /// For each wait that lets other requests run, which mostly finds the server busy.
    pub per_yield: Cost,
}

/// An assumed cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cost {
    #[default]
    None,
    CpuTime(Duration),
    /// The CPU time of this number of iterations: a core that hashes slowly serves slowly too.
    Iterations(u64),
}

const COST: &str =
    "it must be a number of iterations, such as 5000, or a duration, such as 1ms; 0 for none";

/// Parses a cost, the value of `variable`.
pub fn cost(variable: &'static str, text: &str) -> Result<Cost, LoadError> {
    if let Ok(iterations) = load::iterations(variable, text) {
        return Ok(Cost::Iterations(iterations));
    }
    match load::nanoseconds(text) {
        Some(nanos) => Ok(Cost::CpuTime(Duration::from_nanos(nanos))),
        None => Err(load::value_error(variable, text, COST)),
    }
}

//! The CPU time that the host uses in addition to a burn. A guest cannot measure it, so it is
//! assumed.

use std::time::Duration;

use crate::load::{self, LoadError};

/// What the host is assumed to use for a request.
#[derive(Clone, Copy, Default)]
pub struct Overhead {
    /// For the request as a whole.
    pub per_request: Cost,
    /// For each time that the thread of the burn stops, and then continues with cold caches: a
    /// pause of a paced load, a yield while no other request runs, throttling.
    pub per_pause: Cost,
    /// For each other wait.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_a_number_of_iterations_or_a_duration() {
        let micros = |n| Some(Cost::CpuTime(Duration::from_micros(n)));
        for (text, expected) in [
            ("0", Some(Cost::Iterations(0))),
            ("5000", Some(Cost::Iterations(5000))),
            ("1ms", micros(1000)),
            ("1.5µs", Some(Cost::CpuTime(Duration::from_nanos(1500)))),
            ("0s", micros(0)),
            ("-5", None),
            ("1d", None),
            ("", None),
        ] {
            assert_eq!(cost("request_overhead", text).ok(), expected, "{text}");
        }
        let error = cost("yield_overhead", "1 ms").expect_err("a space");
        let expected = format!("`yield_overhead` is \"1 ms\"; {COST}");
        assert_eq!(error.to_string(), expected);
    }
}

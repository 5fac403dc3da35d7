//! What is answered when a load has run.

use std::time::Duration;

use serde::Serialize;

use crate::burn::Burnt;
use crate::load::Load;

/// The answer to a load that has run, as JSON.
#[derive(Serialize)]
pub struct Report {
    /// The load that ran, in the query's own grammar.
    load: String,
    iterations: u64,
    /// The end of the SHA-256 chain, in hexadecimal.
    digest: String,
    /// The CPU time that the burn used, in milliseconds to the microsecond.
    cpu_time_ms: f64,
    /// The wall-clock time that the burn waited of its own will, likewise: to pace itself, and to
    /// let others go first.
    waited_ms: f64,
    /// The wall-clock time of the whole burn, likewise. What the other two leave of it was taken
    /// away: by throttling, by neighbours, or by others that had the thread.
    elapsed_ms: f64,
    /// The name of the replica that ran it, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<String>,
}

impl Report {
    /// Says what `burnt` did to run `load`.
    pub fn new(load: Load, burnt: &Burnt, replica: Option<String>) -> Self {
        Self {
            load: load.to_string(),
            iterations: burnt.iterations,
            digest: burnt.digest.to_string(),
            cpu_time_ms: milliseconds(burnt.cpu_time),
            waited_ms: milliseconds(burnt.waited),
            elapsed_ms: milliseconds(burnt.elapsed),
            replica,
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

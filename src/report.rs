//! The report of a load that has run.

use std::time::Duration;

use serde::Serialize;

use crate::burn::Burnt;
use crate::load::Load;

/// The report of a load that has run, as JSON. Times are in milliseconds, to the microsecond.
#[derive(Serialize)]
pub struct Report {
    /// The load that ran, in the syntax of the query.
    load: String,
    iterations: u64,
    /// The end of the SHA-256 chain, in hexadecimal.
    digest: String,
    /// The CPU time that the burn used.
    cpu_time_ms: f64,
    /// The CPU time that the host is assumed to have used in addition: see `Overhead`. Not
    /// measured; none if it is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    overhead_ms: Option<f64>,
    /// The wall-clock time that the burn waited voluntarily: to pace itself, and to let others run.
    waited_ms: f64,
    /// The wall-clock time of the whole burn. The rest was lost to throttling or contention.
    elapsed_ms: f64,
    /// The name of the replica that ran it, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<String>,
}

impl Report {
    /// Reports what `burnt` did to run `load`.
    pub fn new(load: Load, burnt: &Burnt, replica: Option<String>) -> Self {
        Self {
            load: load.to_string(),
            iterations: burnt.iterations,
            digest: burnt.digest.to_string(),
            cpu_time_ms: milliseconds(burnt.cpu_time),
            overhead_ms: (!burnt.overhead.is_zero()).then(|| milliseconds(burnt.overhead)),
            waited_ms: milliseconds(burnt.waited),
            elapsed_ms: milliseconds(burnt.elapsed),
            replica,
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

//! Shared by the tests, the benchmark and the scripts: starts a server of the component, sends
//! requests to it, reads its CPU and memory, and stops it.
//!
//! The server is the embedded host, or the Spin that the environment variable `SPIN` names.

mod cgroup;
mod latencies;
mod process;
mod server;

use std::time::Duration;

use go_duration::GoDuration;
use sha2::{Digest, Sha256};

pub use latencies::Latencies;
pub use process::{Process, pinned};
pub use server::{Launch, Limits, Response, Runner, Server, Usage, manifest};
pub use ureq::http::Method;

/// The digest that a load of this many iterations reports, in hexadecimal, computed natively.
pub fn digest(iterations: u64) -> String {
    let chain = (0..iterations).fold([0; 32], |bytes, _| Sha256::digest(bytes).into());
    chain.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a duration as the component does: in the syntax of Go, such as `1m30s`.
///
/// # Errors
/// If `text` is not a duration, or a negative one; the message is for the command line.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let GoDuration(nanos) = text.parse().map_err(|error| format!("{error}"))?;
    let nanos = nanos.try_into().map_err(|_| "it is negative")?;
    Ok(Duration::from_nanos(nanos))
}

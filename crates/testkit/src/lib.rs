//! Shared by the tests, the benchmark and the scripts: starts a server of the component, sends
//! requests to it, reads its CPU and memory, and stops it.
//!
//! The server is the embedded host, or the Spin that the environment variable `SPIN` names.

mod cgroup;
mod process;
mod server;

use sha2::{Digest, Sha256};

pub use cgroup::Cgroup;
pub use process::Process;
pub use server::{Launch, Response, Runner, Server, Usage, manifest};
pub use ureq::http::Method;

/// The digest that a load of this many iterations reports, in hexadecimal, computed natively.
pub fn digest(iterations: u64) -> String {
    let chain = (0..iterations).fold([0; 32], |bytes, _| Sha256::digest(bytes).into());
    chain.iter().map(|byte| format!("{byte:02x}")).collect()
}

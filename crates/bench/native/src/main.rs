//! Baseline: the hash loop as a native program. Prints its hashes per second of CPU time.

use std::{env, hint::black_box};

use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

fn main() {
    let iterations: u32 = env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .expect("one argument: how many hashes to make, 0 to 4294967295");
    let mut digest = [0; 32];
    let started = cpu_seconds();
    for _ in 0..iterations {
        digest = Sha256::digest(digest).into();
    }
    black_box(digest);
    println!("{:.0}", f64::from(iterations) / (cpu_seconds() - started));
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

//! The monotonic clock that a burn reads and waits on; unit tests replace it.

use std::time::Duration;

/// A source of wall-clock time.
pub trait Clock {
    /// The time since a fixed but arbitrary start; it never goes backwards.
    fn now(&self) -> Duration;

    /// Returns the thread to the host for at least `pause`, which is at least 1 ns: a wait for zero
    /// returns at once and lets nobody else run.
    fn wait(&self, pause: Duration);
}

/// The clock of the host, `wasi:clocks/monotonic-clock@0.2.0`.
pub struct HostClock;

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "clock", generate_all });
}

impl Clock for HostClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(bindings::wasi::clocks::monotonic_clock::now())
    }

    fn wait(&self, pause: Duration) {
        let nanos = pause.as_nanos().try_into().unwrap_or(u64::MAX);
        bindings::wasi::clocks::monotonic_clock::subscribe_duration(nanos.max(1)).block();
    }
}

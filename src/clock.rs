//! The monotonic clock that a burn reads and waits on, replaceable in tests.

use std::time::Duration;

/// Time as the host tells it.
pub trait Clock {
    /// The wall clock: time since some start, never running backwards.
    fn now(&self) -> Duration;

    /// Hands the thread back to the host for at least `pause`, at least 1 ns: a wait for nothing
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

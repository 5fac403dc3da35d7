//! The monotonic clock that a burn reads and waits on; unit tests replace it.

use std::time::Duration;

/// A source of wall-clock time.
pub trait Clock {
    /// A wait that has begun.
    type Pollable;

    /// The time since a fixed but arbitrary start; it never goes backwards.
    fn now(&self) -> Duration;

    /// Begins a wait for `pause`, which is at least 1 ns.
    fn subscribe(&self, pause: Duration) -> Self::Pollable;

    /// Whether the host has noticed the end of the wait. If so, `block` returns at once and lets
    /// nobody else run.
    fn is_ready(&self, pollable: &Self::Pollable) -> bool;

    /// Returns the thread to the host until the wait is over.
    fn block(&self, pollable: Self::Pollable);
}

/// The clock of the host, `wasi:clocks/monotonic-clock@0.2.0`.
pub struct HostClock;

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "clock", generate_all });
}

impl Clock for HostClock {
    type Pollable = bindings::wasi::io::poll::Pollable;

    fn now(&self) -> Duration {
        Duration::from_nanos(bindings::wasi::clocks::monotonic_clock::now())
    }

    fn subscribe(&self, pause: Duration) -> Self::Pollable {
        let nanos = pause.as_nanos().try_into().unwrap_or(u64::MAX);
        bindings::wasi::clocks::monotonic_clock::subscribe_duration(nanos.max(1))
    }

    fn is_ready(&self, pollable: &Self::Pollable) -> bool {
        pollable.ready()
    }

    fn block(&self, pollable: Self::Pollable) {
        pollable.block();
    }
}

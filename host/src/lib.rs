//! Embedded host.

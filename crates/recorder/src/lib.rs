//! Records what an autoscaler does with a Deployment, explains each decision and evaluates the
//! result.
//!
//! Data flows one way: [`cluster`] → [`observations`] of [`objects`] of the API → [`record`] →
//! [`decisions`] and [`analysis`] → [`report`]. [`rules`], pure functions of numbers, compute the
//! right decision of an autoscaler from the inputs that [`follower`] and [`evidence`] find.

pub mod analysis;
pub mod chart;
pub mod cli;
pub mod cluster;
pub mod computation;
pub mod decisions;
pub mod evidence;
pub mod expectation;
pub mod files;
pub mod follower;
pub mod format;
pub mod hold;
pub mod notes;
pub mod objects;
pub mod observations;
pub mod probe;
pub mod progress;
pub mod quantity;
pub mod record;
pub mod recording;
pub mod report;
pub mod rules;
pub mod serve;
pub mod steady_load;
pub mod traffic;

// The name by which `common` knows this crate in unit tests too.
#[cfg(test)]
extern crate self as recorder;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

//! Records what an autoscaler does with a Deployment, explains each decision and evaluates the result.
//!
//! Data flows one way: [`cluster`] → [`observations`] → [`record`] → [`decisions`] and [`analysis`] → [`report`].
//! [`rules`], pure functions of numbers, compute the right decision of an autoscaler.

pub mod analysis;
pub mod chart;
pub mod cli;
pub mod cluster;
pub mod decisions;
pub mod expectation;
pub mod files;
pub mod format;
pub mod hold;
pub mod observations;
pub mod probe;
pub mod progress;
pub mod record;
pub mod recording;
pub mod report;
pub mod rules;
pub mod scaled_object;
pub mod serve;
pub mod steady_load;
pub mod traffic;

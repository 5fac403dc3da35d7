//! The load that leads to an exact number of replicas: connections and the CPU that each
//! requests. Paced loads (`cpu=Q&duration=D`) add up.

use std::{ffi::OsString, fmt, time::Duration};

use thiserror::Error;

use crate::{
    decision::{History, Pods, Reading, compute},
    record::{Autoscaler, Deployment},
};

/// How long each paced request lasts: after this long all replicas share the load.
const DURATION: &str = "10s";

/// A number of connections, of a number of millicores each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SteadyLoad {
    pub connections: u32,
    pub millicores: u32,
}

#[derive(Debug, Error, PartialEq)]
pub enum Error {
    #[error("no autoscaler with a CPU target was found, or the pods request no CPU")]
    NoTarget,
    #[error("the autoscaler has from {0} to {1} replicas; {2} are outside of that")]
    Range(u32, u32, u32),
    #[error(
        "no load leads to exactly {0} replicas with a margin: the steps lead past them, or to where what they need is tolerated"
    )]
    Missed(u32),
}

impl SteadyLoad {
    /// For an autoscaler at its minimum, whose replicas use `idle` millicores each by themselves.
    ///
    /// Of all loads that lead to so many replicas, whole steps and tolerance included, it is the middle
    /// one: readings stray. Where these loads span less than half a replica's target there is none.
    pub fn holding(
        replicas: u32,
        autoscaler: &Autoscaler,
        deployment: &Deployment,
        idle: f64,
    ) -> Result<Self, Error> {
        let rules = &autoscaler.rules;
        let target = autoscaler
            .target_millicores(deployment)
            .ok_or(Error::NoTarget)?;
        if !(rules.min..=rules.max).contains(&replicas) {
            return Err(Error::Range(rules.min, rules.max, replicas));
        }
        let most = (f64::from(replicas) * target) as u32;
        let loads: Vec<u32> = (1..=most)
            .filter(|load| steady(f64::from(*load), autoscaler, target, idle) == replicas)
            .collect();
        if (loads.len() as f64) < target / 2.0 {
            return Err(Error::Missed(replicas));
        }
        let load = loads[loads.len() / 2];
        // Two or three connections for each replica, whichever come closest in whole millicores.
        let split = |connections: u32| Self {
            connections,
            millicores: (load + connections / 2) / connections,
        };
        let splits = (2 * replicas..=3 * replicas).map(split);
        splits
            .filter(|split| split.millicores > 0)
            .min_by_key(|split| split.total().abs_diff(load))
            .ok_or(Error::Missed(replicas))
    }

    /// The CPU of all connections together, in millicores.
    pub fn total(self) -> u32 {
        self.connections * self.millicores
    }

    /// bombardier with this load; without its progress, which would fill a file.
    pub fn command(self, url: &str, length: Duration) -> Vec<OsString> {
        let fixed = ["bombardier", "-o", "json", "-p", "r", "-l", "-t", "60s"];
        let url = format!(
            "{}/?cpu={}m&duration={DURATION}",
            url.trim_end_matches('/'),
            self.millicores
        );
        let chosen = [
            format!("--connections={}", self.connections),
            format!("--duration={}s", length.as_secs()),
            url,
        ];
        fixed
            .map(OsString::from)
            .into_iter()
            .chain(chosen.map(OsString::from))
            .collect()
    }
}

impl fmt::Display for SteadyLoad {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            connections,
            millicores,
        } = self;
        write!(
            f,
            "{connections} connections of cpu={millicores}m&duration={DURATION} ({}m)",
            self.total()
        )
    }
}

/// The number of replicas that a load (in millicores) leads to.
fn steady(load: f64, autoscaler: &Autoscaler, target: f64, idle: f64) -> u32 {
    let Some((goal, unit)) = autoscaler.target else {
        return 0;
    };
    let step = |from: &u32| {
        let millicores = load / f64::from(*from) + idle;
        let current = (millicores * f64::from(goal) / target) as u32;
        let reading = Reading {
            current,
            target: goal,
            unit,
        };
        let pods = Pods {
            counted: *from,
            ..Pods::default()
        };
        let to = compute(
            &autoscaler.rules,
            *from,
            reading,
            pods,
            &History::default(),
            0.0,
        )
        .result;
        (to != *from).then_some(to)
    };
    // More than enough steps; it ends earlier unless a load makes it swing.
    std::iter::successors(Some(autoscaler.rules.min), step)
        .take(50)
        .last()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of 100m, a target of 50 %, 3m for an idle replica.
    fn holding(replicas: u32) -> Result<SteadyLoad, Error> {
        let autoscaler = Autoscaler::of_the_tutorial();
        let deployment = Deployment {
            request: Some(100),
            ..Deployment::default()
        };
        SteadyLoad::holding(replicas, &autoscaler, &deployment, 3.0)
    }

    #[test]
    fn the_load_is_near_the_middle_of_those_that_hold() {
        // Three are wanted from 101 % to 150 % of one replica that uses 3m by itself: 98m to 147m.
        assert_eq!(holding(3).map(SteadyLoad::total), Ok(126));
        // Seven from 76 % to 87 % of four: 292m to 339m.
        assert_eq!(holding(7).map(SteadyLoad::total), Ok(315));
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        assert_eq!(
            holding(9),
            Err(Error::Missed(9)),
            "8 tolerate almost all of it"
        );
        assert_eq!(holding(17), Err(Error::Missed(17)), "16 tolerate it");
        assert_eq!(holding(21), Err(Error::Range(1, 20, 21)));
    }

    #[test]
    fn the_documented_table_is_what_is_computed() {
        let documented = include_str!("../../../docs/autoscale.md");
        let row = |replicas| match holding(replicas) {
            Ok(load) => {
                let SteadyLoad {
                    connections,
                    millicores,
                } = load;
                format!(
                    "| {replicas} | {connections} | {millicores}m | {}m |",
                    load.total()
                )
            }
            Err(_) => format!("| {replicas} | not reached | | |"),
        };
        let rows: Vec<_> = (1..=20).map(row).collect();
        let table = rows.join("\n");
        assert!(
            documented.contains(&table),
            "docs/autoscale.md lacks:\n{table}"
        );
    }
}

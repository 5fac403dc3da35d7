//! The load that holds exactly so many replicas: how many connections, and how much of a core each
//! asks for. Paced loads (`cpu=Q&duration=D`) add up.

use std::{ffi::OsString, fmt, time::Duration};

use thiserror::Error;

use crate::decision::{History, Rules};

/// How long each paced request lasts: a scale-out has them on all replicas after this long.
const DURATION: &str = "10s";

/// So many connections of so many millicores each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub connections: u32,
    pub millicores: u32,
}

#[derive(Debug, Error, PartialEq)]
pub enum Error {
    #[error("the autoscaler has from {0} to {1} replicas; {2} are outside of that")]
    Range(u32, u32, u32),
    #[error(
        "no load leads to exactly {replicas} replicas: the largest step leads to {stop}, where what {replicas} need is within the tolerance"
    )]
    Tolerated { replicas: u32, stop: u32 },
    #[error(
        "{replicas} idle replicas use more than {replicas} of them should: is `idle` ({idle}m) right?"
    )]
    Idle { replicas: u32, idle: f64 },
}

impl Pace {
    /// For a target of so many millicores per pod, of which each uses `idle` by itself.
    ///
    /// N replicas are wanted where the CPU of all is above N − 1 and at most N targets. It has to lead
    /// there too: wherever the largest step stops on the way, it must be above the tolerance. The middle
    /// of what remains is the farthest from both.
    pub fn holding(replicas: u32, target: f64, idle: f64, rules: &Rules) -> Result<Self, Error> {
        if !(rules.min..=rules.max).contains(&replicas) {
            return Err(Error::Range(rules.min, rules.max, replicas));
        }
        let upper = f64::from(replicas);
        let stop = last_stop(replicas, rules);
        let tolerated = stop.map_or(0.0, |stop| f64::from(stop) * (1.0 + rules.up.tolerance));
        if tolerated >= upper {
            return Err(Error::Tolerated {
                replicas,
                stop: stop.unwrap_or(rules.min),
            });
        }
        let aim = (upper + tolerated.max(upper - 1.0)) / 2.0;
        let load = aim * target - upper * idle;
        if load < 1.0 {
            return Err(Error::Idle { replicas, idle });
        }
        // Two or three connections for each replica, whichever come closest in whole millicores.
        let paces = (2 * replicas..=3 * replicas).map(|connections| Self {
            connections,
            millicores: (load / f64::from(connections)).round().max(1.0) as u32,
        });
        let off = |pace: &Self| (f64::from(pace.total()) - load).abs();
        paces
            .min_by(|a, b| off(a).total_cmp(&off(b)))
            .ok_or(Error::Range(rules.min, rules.max, replicas))
    }

    /// The CPU of all connections together, in millicores.
    pub fn total(self) -> u32 {
        self.connections * self.millicores
    }

    /// bombardier with this pace; its progress would fill a file.
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

impl fmt::Display for Pace {
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

/// Where the largest steps from the minimum stop last before they reach so many.
fn last_stop(replicas: u32, rules: &Rules) -> Option<u32> {
    let step = |from: &u32| {
        let to = rules.highest(*from, &History::default(), 0.0);
        (to > *from).then_some(to)
    };
    std::iter::successors(Some(rules.min), step)
        .take_while(|stop| *stop < replicas)
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Pods, Reading, Unit, compute};

    /// A request of 100m, a target of 50 %, 3m for an idle replica.
    fn pace(replicas: u32) -> Result<Pace, Error> {
        Pace::holding(
            replicas,
            50.0,
            3.0,
            &Rules {
                max: 20,
                ..Rules::default()
            },
        )
    }

    #[test]
    fn the_autoscaler_goes_to_every_number_that_it_can_hold_and_stays() {
        let rules = Rules {
            max: 20,
            ..Rules::default()
        };
        for wanted in (1..=20).filter(|wanted| *wanted != 17) {
            let total = f64::from(pace(wanted).expect("it can be held").total());
            let mut replicas = 1;
            for _ in 0..10 {
                let current = ((total + 3.0 * f64::from(replicas)) / f64::from(replicas)) as u32;
                let reading = Reading {
                    current,
                    target: 50,
                    unit: Unit::Percent,
                };
                let pods = Pods {
                    counted: replicas,
                    ..Pods::default()
                };
                replicas =
                    compute(&rules, replicas, reading, pods, &History::default(), 0.0).result;
            }
            assert_eq!(replicas, wanted, "with {total}m");
        }
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        assert_eq!(
            pace(17),
            Err(Error::Tolerated {
                replicas: 17,
                stop: 16
            })
        );
        assert_eq!(pace(21), Err(Error::Range(1, 20, 21)));
        let idle = Pace::holding(2, 5.0, 5.0, &Rules::default());
        assert_eq!(
            idle,
            Err(Error::Idle {
                replicas: 2,
                idle: 5.0
            })
        );
    }

    #[test]
    fn the_documented_table_is_what_is_computed() {
        let documented = include_str!("../../docs/autoscale.md");
        for replicas in 1..=20 {
            let row = match pace(replicas) {
                Ok(pace) => format!(
                    "| {replicas} | {} | {}m | {}m |",
                    pace.connections,
                    pace.millicores,
                    pace.total()
                ),
                Err(_) => format!("| {replicas} | not reached |"),
            };
            assert!(documented.contains(&row), "docs/autoscale.md lacks: {row}");
        }
    }
}

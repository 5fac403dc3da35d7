//! The loads that lead to an exact number of replicas. Paced requests (`cpu=Q&duration=D`) add up, so C connections
//! that send them use C × Q, however many replicas share them.
//!
//! The autoscaler's own rules predict the result of a load. Two things make a single load unreliable: a change within
//! the tolerance is not made, so scaling up may stop below the goal, and a reading that is slightly too high leads to
//! more than the goal. Two loads in succession avoid both:
//!
//! - from below: after the first load the replicas are at rest so far below the goal that one step, larger than the
//!   tolerance, reaches it;
//! - from above: after the first load they are at rest so far above it that the scale-in reaches it, which happens after
//!   the stabilisation window, when no pod is starting.

use std::{cmp::Reverse, ffi::OsString, fmt, ops::RangeInclusive, time::Duration};

use thiserror::Error;

use crate::{
    record::{Autoscaler, Deployment},
    rules::{History, Pods, Reading, Rules, SYNC_PERIOD, Unit, recommend},
};

/// The `duration` of each paced request: after this long all replicas share the load.
const REQUEST: &str = "10s";
/// How long a paced request may take in all.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The CPU that a replica uses without traffic, in millicores: 4 to 6, seen under Spin 3.6.3 and Spin 4.0.2.
pub const IDLE: f64 = 5.0;
/// The deviation of readings, as a fraction of the load.
const NOISE: f64 = 0.02;
/// How long new pods take until they are ready and their CPU counts.
const START: Duration = Duration::from_secs(90);
/// How long all pods must be ready, counted and unchanged until they count as at rest: two syncs.
pub const REST: Duration = Duration::from_secs(30);

/// A number of connections, each of which uses a number of millicores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SteadyLoad {
    pub connections: u32,
    pub millicores: u32,
}

#[derive(Debug, Error, PartialEq)]
pub enum Error {
    #[error("no autoscaler with a CPU target was found, or the pods request no CPU")]
    NoTarget,
    #[error("the autoscaler allows {min} to {max} replicas, not {given}")]
    Range { min: u32, max: u32, given: u32 },
    #[error("no load leads to exactly {0} replicas by the policies of the autoscaler")]
    Unreachable(u32),
}

impl SteadyLoad {
    /// A total that pods shall use, in two or three connections for each replica, or one for each core if that is
    /// more, whichever come closest in whole millicores.
    fn split(total: u32, replicas: u32) -> Self {
        let fewest = total.div_ceil(1000).max(2 * replicas);
        (fewest..=fewest.max(3 * replicas))
            .map(|connections| Self {
                connections,
                millicores: ((total + connections / 2) / connections).max(1),
            })
            .min_by_key(|split| split.total().abs_diff(total))
            .expect("there is at least one replica")
    }

    /// The CPU that pods use for all connections together, in millicores.
    pub fn total(self) -> u32 {
        self.connections * self.millicores
    }

    /// The command that sends this load.
    pub fn command(self, url: &str, duration: Duration) -> Vec<OsString> {
        let url = url.trim_end_matches('/');
        let url = format!("{url}/?cpu={}m&duration={REQUEST}", self.millicores);
        let command = bombardier::command(self.connections, TIMEOUT, duration, &url);
        command.into_iter().map(Into::into).collect()
    }
}

impl fmt::Display for SteadyLoad {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} connections × {}m", self.connections, self.millicores)
    }
}

/// One or two loads after which the autoscaler is at rest at the goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    pub first: Option<First>,
    pub load: SteadyLoad,
    /// How long it may be at rest at another number before this way counts as failed.
    pub timeout: Duration,
    /// An estimate, from the start of the traffic until the goal is reached.
    pub takes: Duration,
}

/// The first of two loads, until the number of replicas at rest is one from which the second load leads to the goal.
#[derive(Clone, Debug, PartialEq)]
pub struct First {
    pub load: SteadyLoad,
    pub rests: RangeInclusive<u32>,
}

impl First {
    /// `6–9`.
    pub fn rested(&self) -> String {
        match self.rests.clone().into_inner() {
            (lowest, highest) if lowest == highest => lowest.to_string(),
            (lowest, highest) => format!("{lowest}–{highest}"),
        }
    }
}

/// The ways to exactly this number of replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub replicas: u32,
    pub from_below: Option<Way>,
    pub from_above: Option<Way>,
    /// How long it may take until the goal is reached, if the first way fails.
    pub at_most: Duration,
}

impl Plan {
    /// For replicas that use `idle` millicores each without traffic.
    pub fn new(
        replicas: u32,
        autoscaler: &Autoscaler,
        deployment: &Deployment,
        idle: f64,
    ) -> Result<Self, Error> {
        let target = autoscaler
            .target_millicores(&deployment.requests)
            .ok_or(Error::NoTarget)?;
        let cpu = autoscaler.cpu().ok_or(Error::NoTarget)?;
        let rules = &autoscaler.rules;
        if !(rules.min..=rules.max).contains(&replicas) || replicas == 0 {
            return Err(Error::Range {
                min: rules.min,
                max: rules.max,
                given: replicas,
            });
        }
        let model = Model {
            rules,
            goal: cpu.target,
            unit: cpu.unit,
            target,
            idle,
        };
        let from_below = model.direct(replicas).or_else(|| model.below(replicas));
        let from_above = model.above(replicas);
        let (first, second) = match (&from_below, &from_above) {
            (Some(below), Some(above)) => (below, above),
            // A goal with one way may need it twice.
            (Some(way), None) | (None, Some(way)) => (way, way),
            (None, None) => return Err(Error::Unreachable(replicas)),
        };
        let forgotten = Duration::from_secs(u64::from(rules.down_window()));
        let at_most = first.takes + first.timeout + forgotten + second.takes;
        Ok(Self {
            replicas,
            at_most,
            from_below,
            from_above,
        })
    }
}

/// An autoscaler with ideal pods, which share the load evenly and count at once.
struct Model<'a> {
    rules: &'a Rules,
    goal: i64,
    unit: Unit,
    /// CPU that a pod should use, in millicores.
    target: f64,
    idle: f64,
}

impl Model<'_> {
    /// A single load, if the replicas cannot stop below the goal: with one replica less, the reading is above the
    /// tolerance by more than the noise.
    fn direct(&self, replicas: u32) -> Option<Way> {
        let mut loads = self.loads(replicas, self.rules.min);
        let all = loads.len();
        if replicas > self.rules.min {
            loads.retain(|load| self.step(f64::from(*load), replicas - 1) >= replicas);
        }
        let load = middle(&loads)?;
        let is_wide = loads.len() as f64 * self.resolution() >= 2.0 * NOISE * f64::from(load);
        if !is_wide && loads.len() < all {
            return None;
        }
        let (_, takes) = self.settle(f64::from(load), self.rules.min)?;
        Some(Way {
            first: None,
            load: SteadyLoad::split(load, replicas),
            timeout: START + Duration::from_secs(u64::from(self.rules.up_window())),
            takes: takes + START,
        })
    }

    fn below(&self, replicas: u32) -> Option<Way> {
        let middle = self.middle_load(replicas);
        let half = self.target / 2.0;
        let mut loads = self.search(middle - half, middle + half, |_| true);
        loads.sort_by_key(|load| load.abs_diff(middle as u32));
        // The numbers from which one step of such a load leads to the goal in spite of noise, the widest range first.
        let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
        for load in loads {
            let rests: Vec<u32> = (self.rules.min.max(1)..replicas)
                .filter(|from| {
                    let reaches = |noise| self.step(f64::from(load) * noise, *from) == replicas;
                    [1.0 - NOISE, 1.0 + NOISE].into_iter().all(reaches)
                })
                .collect();
            if let (Some(&lowest), Some(&highest)) = (rests.first(), rests.last())
                && !ranges.contains(&(lowest..=highest))
            {
                ranges.push(lowest..=highest);
            }
        }
        ranges.sort_by_key(|rests| Reverse(rests.end() - rests.start()));
        ranges
            .into_iter()
            .find_map(|rests| self.two_loads(replicas, rests, self.rules.up_window()))
    }

    fn above(&self, replicas: u32) -> Option<Way> {
        let max = self.rules.max;
        let lowest = (replicas + 1..=max)
            .find(|from| self.leads(self.middle_load(replicas), *from, replicas))?;
        // So far above that it is enough to stop below the highest, within the tolerance.
        let tolerated = 1.0 + self.rules.tolerance().up;
        let highest = (f64::from(lowest) * tolerated).ceil() as u32 + 1;
        self.two_loads(
            replicas,
            lowest..=highest.min(max),
            self.rules.down_window(),
        )
    }

    /// A first load, which leads to a number within a range, and one that leads to the goal from all of that range.
    fn two_loads(&self, replicas: u32, rests: RangeInclusive<u32>, window: u32) -> Option<Way> {
        let (lowest, highest) = rests.clone().into_inner();
        let least = self.middle_load(lowest) - self.target;
        // No load is too much for the maximum.
        let most = if highest == self.rules.max {
            1.2 * f64::from(highest) * self.target
        } else {
            self.middle_load(highest) + self.target
        };
        let is_first = |load: f64| {
            let rest = self.settle(load, self.rules.min);
            rest.is_some_and(|(rest, _)| rests.contains(&rest))
        };
        let first = middle(&self.search(least, most, is_first))?;
        let load = middle(&self.search(
            self.middle_load(replicas) - self.target,
            f64::from(replicas) * self.target,
            |load| self.leads(load, lowest, replicas) && self.leads(load, highest, replicas),
        ))?;
        let (rest, up) = self.settle(f64::from(first), self.rules.min)?;
        let (_, onwards) = self.settle(f64::from(load), rest)?;
        Some(Way {
            first: Some(First {
                load: SteadyLoad::split(first, rest),
                rests,
            }),
            load: SteadyLoad::split(load, replicas),
            timeout: START + Duration::from_secs(u64::from(window)),
            takes: up + START + REST + onwards + START,
        })
    }

    /// The middle of the loads, in millicores, for which this number of replicas is right.
    fn middle_load(&self, replicas: u32) -> f64 {
        let replicas = f64::from(replicas);
        (replicas - 0.5) * self.target - replicas * self.idle
    }

    /// The loads, in millicores, that lead from one number of replicas at rest to another.
    fn loads(&self, replicas: u32, from: u32) -> Vec<u32> {
        self.search(
            self.middle_load(replicas) - self.target,
            f64::from(replicas) * self.target,
            |load| self.leads(load, from, replicas),
        )
    }

    fn search(&self, least: f64, most: f64, is_right: impl Fn(f64) -> bool) -> Vec<u32> {
        (least.max(0.0) as u32..=most as u32)
            .step_by(self.resolution() as usize)
            .filter(|load| is_right(f64::from(*load)))
            .collect()
    }

    fn leads(&self, load: f64, from: u32, to: u32) -> bool {
        self.settle(load, from).is_some_and(|(rest, _)| rest == to)
    }

    /// The distance between the loads that are tried, in millicores.
    fn resolution(&self) -> f64 {
        (self.target / 100.0).ceil()
    }

    /// The number of replicas after one computation, starting from a number at rest.
    fn step(&self, load: f64, from: u32) -> u32 {
        let mut history = self.at_rest(from);
        self.sync(load, from, &mut history, SYNC_PERIOD)
    }

    /// The number of replicas that a load leads to, starting from a number at rest, and how long it takes.
    fn settle(&self, load: f64, from: u32) -> Option<(u32, Duration)> {
        let quiet = self.longest_memory() + 2.0 * SYNC_PERIOD;
        let mut history = self.at_rest(from);
        let (mut replicas, mut changed) = (from, 0.0);
        // More than any policy needs; a load that makes the replicas oscillate reaches no rest.
        for sync in 1..1000 {
            let now = f64::from(sync) * SYNC_PERIOD;
            let result = self.sync(load, replicas, &mut history, now);
            if result != replicas {
                (replicas, changed) = (result, now);
            } else if now - changed > quiet {
                return Some((replicas, Duration::from_secs_f64(changed)));
            }
        }
        None
    }

    fn at_rest(&self, replicas: u32) -> History {
        let mut history = History::default();
        for sync in 0..=(self.longest_memory() / SYNC_PERIOD) as u32 {
            history.recommend(f64::from(sync) * -SYNC_PERIOD, replicas);
        }
        history
    }

    /// The longest of all windows and periods of policies, in seconds.
    fn longest_memory(&self) -> f64 {
        let behavior = self.rules.behavior.iter();
        let periods = behavior
            .flat_map(|behavior| [&behavior.up, &behavior.down])
            .flat_map(|direction| &direction.policies)
            .map(|policy| policy.period);
        let windows = [self.rules.up_window(), self.rules.down_window()];
        f64::from(windows.into_iter().chain(periods).max().unwrap_or_default())
    }

    fn sync(&self, load: f64, replicas: u32, history: &mut History, now: f64) -> u32 {
        let millicores = load / f64::from(replicas) + self.idle;
        let reading = Reading {
            // Kubernetes cuts the fraction off.
            current: (millicores * self.goal as f64 / self.target) as i64,
            target: self.goal,
            unit: self.unit,
        };
        let pods = Pods {
            counted: replicas,
            ..Pods::default()
        };
        let (samples, tolerance) = (pods.alike(reading), self.rules.tolerance());
        let recommended = recommend(self.goal, self.unit, tolerance, replicas, &samples, &[])
            .map_or(replicas, |recommendation| recommendation.replicas);
        let (result, _) = self.rules.normalise(replicas, recommended, history, now);
        history.recommend(now, recommended);
        if result != replicas {
            history.scale(self.rules, now, replicas, result);
        }
        result
    }
}

fn middle(values: &[u32]) -> Option<u32> {
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Amount, Behavior, Direction, Policy, Select};

    /// A request of 100m and a target of 50 %.
    fn model(rules: &Rules, idle: f64) -> Model<'_> {
        Model {
            rules,
            goal: 50,
            unit: Unit::Percent,
            target: 50.0,
            idle,
        }
    }

    fn plan(replicas: u32) -> Result<Plan, Error> {
        let deployment = Deployment {
            requests: [("app".into(), [("cpu".into(), 100)].into())].into(),
            ..Deployment::default()
        };
        Plan::new(replicas, &Autoscaler::of_the_tutorial(), &deployment, IDLE)
    }

    /// The ranges that the autoscaler's own code results in, for pods that use 3m without traffic.
    #[test]
    fn a_load_leads_where_kubernetes_itself_goes() {
        let rules = Autoscaler::of_the_tutorial().rules;
        let model = model(&rules, 3.0);
        for (replicas, least, most) in [
            (4, 148, 197),
            (5, 198, 239),
            (8, 340, 391),
            (9, 392, 431),
            (16, 728, 783),
            (17, 784, 831),
            (18, 832, 863),
        ] {
            let rest = |load: i32| model.settle(f64::from(load), 1).map(|(rest, _)| rest);
            assert_eq!([rest(least), rest(most)], [Some(replicas); 2]);
            assert!(rest(least - 1) < Some(replicas) && rest(most + 1) > Some(replicas));
        }
    }

    #[test]
    fn every_number_of_replicas_can_be_held() {
        let rules = Autoscaler::of_the_tutorial().rules;
        let model = model(&rules, IDLE);
        for replicas in 1..=20 {
            let plan = plan(replicas).expect("it is between the minimum and the maximum");
            let below = plan.from_below.expect("there is a way from below");
            let from = below
                .first
                .as_ref()
                .map_or(1..=1, |first| first.rests.clone());
            for from in from {
                let rest = model.settle(f64::from(below.load.total()), from);
                assert_eq!(rest.map(|(rest, _)| rest), Some(replicas), "from {from}");
            }
            // 20 is the maximum, and a tenth less is within the tolerance.
            assert_eq!(plan.from_above.is_some(), replicas < 19, "{replicas}");
            let Some(above) = plan.from_above else {
                continue;
            };
            let first = above.first.expect("nothing is above at rest");
            for from in first.rests {
                let rest = model.settle(f64::from(above.load.total()), from);
                assert_eq!(rest.map(|(rest, _)| rest), Some(replicas), "from {from}");
            }
        }
    }

    #[test]
    fn a_load_that_nothing_rests_short_of_needs_no_first_one() {
        for replicas in 1..=7 {
            let below = plan(replicas).expect("it is in range").from_below;
            assert_eq!(below.expect("there is a way").first, None, "{replicas}");
        }
        let below = plan(11).expect("it is in range").from_below;
        let first = below
            .and_then(|way| way.first)
            .expect("10 tolerate its load");
        assert_eq!(first.rests, 6..=9);
    }

    fn with_policy(select: Select, pods: u32) -> Result<Plan, Error> {
        let mut autoscaler = Autoscaler::of_the_tutorial();
        let up = Direction {
            window: 0,
            select,
            policies: vec![Policy {
                amount: Amount::Pods(pods),
                period: 60,
            }],
        };
        let down = Direction {
            window: 300,
            select: Select::Max,
            policies: vec![Policy {
                amount: Amount::Percent(100),
                period: 15,
            }],
        };
        autoscaler.rules.behavior = Some(Behavior {
            up,
            down,
            ..Behavior::default()
        });
        let deployment = Deployment {
            requests: [("app".into(), [("cpu".into(), 100)].into())].into(),
            ..Deployment::default()
        };
        Plan::new(12, &autoscaler, &deployment, IDLE)
    }

    #[test]
    fn the_policies_of_a_behavior_decide_where_the_first_load_rests() {
        let plan = |pods| with_policy(Select::Max, pods).expect("12 can be held");
        let first = |pods| {
            let first = plan(pods).from_below.and_then(|way| way.first);
            first.map(|first| first.rests)
        };
        // 11 replicas are within the tolerance, so one step has to lead there from 10 or fewer.
        assert_eq!(first(4), Some(8..=10));
        assert_eq!(plan(2).from_below, None, "it passes from 9 to 11");
        assert!(plan(2).from_above.is_some());
        assert_eq!(
            first(1),
            None,
            "it stops at the first number that tolerates the load"
        );
        assert!(plan(1).from_below.is_some());
        let disabled = with_policy(Select::Disabled, 1);
        assert_eq!(disabled, Err(Error::Unreachable(12)));
    }

    #[test]
    fn no_connection_asks_for_more_than_a_core() {
        let load = SteadyLoad::split(6200, 2);
        assert!(load.millicores <= 1000, "{load}");
        assert_eq!(load.total().abs_diff(6200) / 10, 0, "{load}");
    }

    #[test]
    fn other_numbers_are_refused() {
        let refused = Error::Range {
            min: 1,
            max: 20,
            given: 21,
        };
        assert_eq!(plan(21), Err(refused));
    }

    #[test]
    fn the_documented_table_is_what_is_computed() {
        let documented = include_str!("../../../docs/autoscale.md");
        let load = |load: &SteadyLoad| format!("{} × {}m", load.connections, load.millicores);
        let cells = |way: &Option<Way>| {
            let Some(way) = way else {
                return "none | none".to_string();
            };
            let first = way.first.as_ref().map_or("none".into(), |first| {
                format!("{} until {}", load(&first.load), first.rested())
            });
            format!("{first} | {}", load(&way.load))
        };
        let row = |replicas| {
            let plan = plan(replicas).expect("it is in range");
            let (below, above) = (cells(&plan.from_below), cells(&plan.from_above));
            format!("| {replicas} | {below} | {above} |")
        };
        let table = (1..=20).map(row).collect::<Vec<_>>().join("\n");
        assert!(
            documented.contains(&table),
            "docs/autoscale.md lacks:\n{table}"
        );
    }
}

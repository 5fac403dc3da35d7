//! The loads that lead to an exact number of replicas. Paced requests (`cpu=Q&duration=D`) add up,
//! so C connections that send them use C × Q, however many replicas share them.
//!
//! The autoscaler's own rules predict the result of a load. They change nothing while the reading
//! is within the tolerance, so most loads can leave more than one number of replicas unchanged. A
//! load that leads to the goal from every other number is sent alone. For all other goals, a first
//! load leads to a number from which a second one leads to the goal: to a higher number, since a
//! scale-in happens after the stabilisation window, when no pod is starting; to a lower one only if
//! the maximum leaves no room above.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    format::replicas,
    objects::Metric,
    record::State,
    rules::{History, Reading, Rules, recommend_for_value},
};

/// The `duration` of each paced request: after this long all replicas share the load.
const REQUEST: &str = "10s";
/// How long a paced request may take in all.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The CPU that a replica uses without traffic, in millicores: 4 to 6, seen under Spin 3.6.3 and
/// Spin 4.0.2.
pub const IDLE: f64 = 5.0;
/// The deviation of readings for which a load still has to lead to the same number, as a fraction
/// of the load.
const NOISE: f64 = 0.025;
/// How many loads are tried.
const STEPS: u32 = 400;
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

impl SteadyLoad {
    /// Splits a total into two or three connections per replica, or one per core if that is more;
    /// the closest in whole millicores wins.
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

    /// The command that sends this load for a time.
    fn command(self, url: &str, duration: Duration) -> Vec<OsString> {
        let url = url.trim_end_matches('/');
        let url = format!("{url}/?cpu={}m&duration={REQUEST}", self.millicores);
        let command = bombardier::command(self.connections, TIMEOUT, duration, &url);
        command.into_iter().map(Into::into).collect()
    }

    /// The CPU that pods use for all connections together, in millicores.
    pub fn total(self) -> u32 {
        self.connections * self.millicores
    }
}

impl fmt::Display for SteadyLoad {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} connections × {}m", self.connections, self.millicores)
    }
}

/// The loads after which the autoscaler is at rest at the goal.
pub struct Plan {
    pub replicas: u32,
    pub first: Option<First>,
    pub load: SteadyLoad,
    /// An estimate, from the start of the traffic until the goal is reached.
    pub takes: Duration,
    /// After this time the goal counts as missed: a reading that is too high costs another
    /// stabilisation window.
    pub limit: Duration,
}

/// The first of two loads, until the number of replicas at rest is one from which the second load
/// leads to the goal.
pub struct First {
    pub load: SteadyLoad,
    pub rests: RangeInclusive<u32>,
}

impl Plan {
    /// For replicas that use `idle` millicores each without traffic.
    ///
    /// # Errors
    /// If no load leads to this number of replicas.
    pub fn new(replicas: u32, state: &State, idle: f64) -> Result<Self> {
        let model = Model::new(state, idle)
            .context("no autoscaler with a CPU target was found, or the pods request no CPU")?;
        let (min, max) = (model.min(), model.rules.max);
        ensure!(
            (min..=max).contains(&replicas),
            "the autoscaler allows {min} to {max} replicas, not {replicas}"
        );
        model.plan(replicas).with_context(|| {
            let goal = crate::format::replicas(replicas);
            format!("no load leads to exactly {goal} by the policies of the autoscaler")
        })
    }

    /// The names and the commands of the loads; each ends by itself after this time.
    pub fn loads(&self, url: &str, limit: Duration) -> Vec<(String, Vec<OsString>)> {
        let first = self.first.iter().map(|first| first.load);
        let loads = first.chain([self.load]);
        loads
            .map(|load| (load.to_string(), load.command(url, limit)))
            .collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: ", replicas(self.replicas))?;
        if let Some(First { load, rests }) = &self.first {
            let (lowest, highest) = rests.clone().into_inner();
            write!(f, "{load} until there are {lowest}")?;
            if highest > lowest {
                write!(f, " to {highest}")?;
            }
            write!(f, ", then ")?;
        }
        let minutes = self.takes.as_secs().div_ceil(60);
        write!(f, "{}; this takes about {minutes} minutes", self.load)
    }
}

/// An autoscaler with ideal pods, which share the load evenly and count at once.
struct Model<'a> {
    rules: &'a Rules,
    cpu: &'a Metric,
    /// CPU that a pod should use, in millicores.
    target: f64,
    idle: f64,
}

impl<'a> Model<'a> {
    fn new(state: &'a State, idle: f64) -> Option<Self> {
        let autoscaler = state.autoscaler()?;
        Some(Self {
            rules: &autoscaler.rules,
            cpu: autoscaler.cpu()?,
            target: state.target_millicores()?,
            idle,
        })
    }

    /// The lowest number for which there is a reading.
    fn min(&self) -> u32 {
        self.rules.min.max(1)
    }

    fn plan(&self, goal: u32) -> Option<Plan> {
        // A step without a `behavior` doubles the replicas at most, or leads to four.
        let all = self.min()..=self.rules.max.min(2 * goal + 4);
        // One that leads to the goal from all of them can neither stop short nor stay above.
        if let Some((load, _)) = self.widest(goal, all) {
            let (_, takes) = self.settle(|| load, self.min())?;
            return Some(self.with(goal, None, load, takes + START));
        }
        // Farther away only costs pods.
        let lowest = self.min().max(goal - goal.div_ceil(4));
        let highest = self.rules.max.min(goal + goal / 2 + 2);
        self.two_loads(goal, goal + 1..=highest)
            .or_else(|| self.two_loads(goal, lowest..=goal - 1))
    }

    /// A first load that leads to one of these numbers, and a second one that leads from there to
    /// the goal.
    fn two_loads(&self, goal: u32, numbers: RangeInclusive<u32>) -> Option<Plan> {
        let noisy = |load: f64| [load * (1.0 - NOISE), load * (1.0 + NOISE)];
        let most = 1.2 * f64::from(*numbers.end()) * self.target;
        // The first loads, by the lowest and the highest number that they lead to.
        let mut firsts: BTreeMap<[u32; 2], Vec<f64>> = BTreeMap::new();
        for load in steps(self.target / 2.0..most).0 {
            let rests = noisy(load).map(|load| self.settle(|| load, self.min()));
            if let [Some((lowest, _)), Some((highest, _))] = rests
                && numbers.contains(&lowest)
                && numbers.contains(&highest)
            {
                firsts.entry([lowest, highest]).or_default().push(load);
            }
        }
        let both = firsts.iter().filter_map(|([lowest, highest], firsts)| {
            let (load, width) = self.widest(goal, *lowest..=*highest)?;
            Some((firsts[firsts.len() / 2], load, width))
        });
        let (first, load, _) = both.max_by(|(.., one), (.., other)| one.total_cmp(other))?;
        let (rest, up) = self.settle(|| first, self.min())?;
        // It leads to the goal from further numbers.
        let reaches = |from: &u32| {
            let mut loads = noisy(load).into_iter();
            loads.all(|load| self.leads(load, *from, goal))
        };
        let lowest = (*numbers.start()..=rest).rev().take_while(reaches).last()?;
        let highest = (rest..=*numbers.end()).take_while(reaches).last()?;
        let (_, onwards) = self.settle(|| load, rest)?;
        let first = First {
            load: SteadyLoad::split(first as u32, rest),
            rests: lowest..=highest,
        };
        let takes = up + START + REST + onwards + START;
        Some(self.with(goal, Some(first), load, takes))
    }

    fn with(&self, goal: u32, first: Option<First>, load: f64, takes: Duration) -> Plan {
        let window = Duration::from_secs(self.rules.down_window().into());
        Plan {
            replicas: goal,
            first,
            load: SteadyLoad::split(load as u32, goal),
            takes,
            limit: takes + window + START,
        }
    }

    /// The middle of the widest range of loads that lead to a goal from each of these numbers, and
    /// its relative width, which has room for noise.
    fn widest(&self, goal: u32, numbers: RangeInclusive<u32>) -> Option<(f64, f64)> {
        // The next numbers are the most likely ones at which it stops.
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_by_key(|from| from.abs_diff(goal));
        let is_right = |load| numbers.iter().all(|from| self.leads(load, *from, goal));
        let goal = f64::from(goal);
        let least = ((goal - 2.0) * self.target - goal * self.idle).max(0.0);
        // No load is too much for the maximum.
        let (loads, step) = steps(least..1.2 * goal * self.target);
        let loads: Vec<_> = loads.map(|load| (load, is_right(load))).collect();
        let runs = loads.chunk_by(|(_, one), (_, other)| one == other);
        let widest = runs.filter(|run| run[0].1).max_by_key(|run| run.len())?;
        let (middle, _) = widest[widest.len() / 2];
        let width = widest.len() as f64 * step / middle;
        (width >= 2.0 * NOISE).then_some((middle, width))
    }

    fn leads(&self, load: f64, from: u32, to: u32) -> bool {
        self.settle(|| load, from)
            .is_some_and(|(rest, _)| rest == to)
    }

    /// The number of replicas that a load leads to from a number at rest, and how long that takes.
    /// `load` is called at each sync.
    fn settle(&self, mut load: impl FnMut() -> f64, from: u32) -> Option<(u32, Duration)> {
        let Self { rules, .. } = self;
        let period = rules.flags.sync_period;
        let windows = rules.up_window().max(rules.down_window());
        let longest_memory = f64::from(windows.max(rules.longest_period()));
        let quiet = longest_memory + 2.0 * period;
        let mut history = History::default();
        // At rest, the number was recommended all the time.
        for sync in 0..=(longest_memory / period) as u32 {
            history.recommend(rules, f64::from(sync) * -period, from);
        }
        let (mut replicas, mut changed) = (from, 0.0);
        // More than any policy needs; a load that makes the replicas oscillate reaches no rest.
        for sync in 1..1000 {
            let now = f64::from(sync) * period;
            let result = self.sync(load(), replicas, &mut history, now);
            if result != replicas {
                (replicas, changed) = (result, now);
            } else if now - changed > quiet {
                return Some((replicas, Duration::from_secs_f64(changed)));
            }
        }
        None
    }

    fn sync(&self, load: f64, replicas: u32, history: &mut History, now: f64) -> u32 {
        let millicores = load / f64::from(replicas) + self.idle;
        let reading = Reading {
            // Kubernetes cuts the fraction off.
            current: (millicores * self.cpu.target as f64 / self.target) as i64,
            target: self.cpu.target,
            unit: self.cpu.unit,
        };
        // All pods count, as those that share a value do.
        let recommended =
            recommend_for_value(reading, self.rules.tolerance(), replicas, replicas, false);
        let memory = history.at(now, 0.0);
        let (result, _) = self.rules.normalise(replicas, recommended, memory);
        history.recommend(self.rules, now, recommended);
        if result != replicas {
            history.scale(self.rules, now, replicas, result);
        }
        result
    }
}

/// Loads of a range, and the distance between them.
fn steps(loads: Range<f64>) -> (impl Iterator<Item = f64>, f64) {
    let step = (loads.end - loads.start) / f64::from(STEPS);
    let loads = (0..=STEPS).map(move |index| loads.start + f64::from(index) * step);
    (loads, step)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::common;

    /// Without a `behavior`, with that of KEDA's documentation, and with a quick one.
    #[test]
    fn each_number_is_reached_and_held_in_spite_of_noise() {
        let rules = |kind: &str, value: u32, period: u32, window: u32| {
            let policy = json!({"type": kind, "value": value, "periodSeconds": period});
            json!({"stabilizationWindowSeconds": window, "policies": [policy]})
        };
        let out = rules("Percent", 100, 15, 0);
        let keda = json!({"scaleUp": out, "scaleDown": rules("Percent", 100, 15, 300)});
        let out = rules("Pods", 4, 60, 0);
        let quick = json!({"scaleUp": out, "scaleDown": rules("Percent", 100, 15, 60)});
        for (behavior, step, by_one_load) in [
            (Value::Null, 1, &[1, 2, 3, 4, 5, 20][..]),
            (keda, 3, &[1, 4]),
            (quick, 3, &[1, 4]),
        ] {
            let mut hpa = common::hpa(1, 1, 2);
            hpa["spec"]["behavior"] = behavior;
            let objects = [json!({"hpa": hpa}), json!({"pod": common::pod("a")})];
            let state = common::record(objects.map(|object| (0.0, object))).state;
            let model = Model::new(&state, IDLE).expect("it has a target");
            let goals = (1..=20).step_by(step);
            let single: Vec<_> = goals
                .filter(|goal| is_held_by_one_load(&model, *goal))
                .collect();
            assert_eq!(single, by_one_load);
        }
    }

    /// Plays the plan with readings that deviate in turn by parts of the noise, and returns whether
    /// it is one load.
    fn is_held_by_one_load(model: &Model, goal: u32) -> bool {
        let plan = model
            .plan(goal)
            .unwrap_or_else(|| panic!("no plan for {goal}"));
        for noise in [
            &[0.0][..],
            &[-1.0],
            &[1.0],
            &[1.0, -1.0],
            &[1.0, 0.0, 0.0, -1.0, 0.5],
        ] {
            let play = |load: SteadyLoad, from| {
                let loads = noise
                    .iter()
                    .map(|part| f64::from(load.total()) * (1.0 + NOISE * part));
                let mut loads = loads.cycle();
                let played = model.settle(|| loads.next().expect("a cycle"), from);
                played.expect("it comes to rest").0
            };
            let mut from = model.min();
            if let Some(first) = &plan.first {
                from = play(first.load, from);
                assert!(first.rests.contains(&from), "{plan}: it rests at {from}");
            }
            let reached = play(plan.load, from);
            assert_eq!(reached, goal, "{plan}: from {from}, {noise:?}");
        }
        plan.first.is_none()
    }
}

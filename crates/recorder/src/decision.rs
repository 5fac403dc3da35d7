//! What a HorizontalPodAutoscaler computes from the CPU that it reads, and what holds it back.
//!
//! The rules are those of "Horizontal Pod Autoscaling" in the documentation of Kubernetes:
//! <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>, "Algorithm details"
//! and "Configurable scaling behavior". It does not give the step without a `behavior`, nor how
//! a reading is rounded; those are kube-controller-manager's (`pkg/controller/podautoscaler`).

use std::fmt;

use serde::Serialize;

/// `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
pub const SCALE_DOWN_WINDOW: u32 = 300;
/// `--horizontal-pod-autoscaler-tolerance`.
pub const TOLERANCE: f64 = 0.1;
/// What a scale-out without a `behavior` may reach at once, however few replicas there are.
const FIRST_STEP: u32 = 4;

/// The average CPU per pod that an autoscaler compares with its target, both in the same unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reading {
    pub current: u32,
    pub target: u32,
    pub unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Of what the pods request (`averageUtilization`).
    Percent,
    /// `averageValue`.
    Millicores,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Percent => " %",
            Self::Millicores => "m",
        })
    }
}

impl Reading {
    fn ratio(self) -> f64 {
        f64::from(self.current) / f64::from(self.target)
    }
}

/// The pods of the target, as the autoscaler sorts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pods {
    /// Those whose CPU makes up the reading.
    pub counted: u32,
    /// Pending, not ready, or so young that their CPU is that of their start.
    pub unready: u32,
    /// Those that the metrics API does not know.
    pub missing: u32,
}

/// The limits that the object sets, and how fast it may move between them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rules {
    pub min: u32,
    pub max: u32,
    pub up: Direction,
    pub down: Direction,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Direction {
    pub tolerance: f64,
    /// The stabilisation window, in seconds.
    pub window: u32,
    /// Without a `behavior` there are none: up to twice as many, or four, and down to the minimum.
    pub policies: Option<Policies>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policies {
    pub select: Select,
    pub policies: Vec<Policy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The policy that allows the largest change.
    Max,
    /// The one that allows the smallest.
    Min,
    Disabled,
}

/// A change of at most so many pods, or percent of them, in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Policy {
    pub amount: Amount,
    pub period: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    Pods(u32),
    Percent(u32),
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            up: Direction {
                tolerance: TOLERANCE,
                window: 0,
                policies: None,
            },
            down: Direction {
                tolerance: TOLERANCE,
                window: SCALE_DOWN_WINDOW,
                policies: None,
            },
        }
    }
}

/// Why an autoscaler did not do `ceil(replicas × CPU ÷ target)`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// The CPU is within so many percent of the target.
    Tolerance(u32),
    /// So many pods are not ready: they count as using nothing.
    NotReady(u32),
    /// The CPU of so many pods is not known: they count as idle on the way up, as busy on the way down.
    Missing(u32),
    /// What was computed within so many seconds before holds it.
    Stabilisation(u32),
    /// The largest step leads to so many.
    Step(u32),
    /// `selectPolicy: Disabled`.
    Disabled,
    Maximum(u32),
    Minimum(u32),
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tolerance(percent) => write!(f, "within the tolerance of {percent} %"),
            Self::NotReady(pods) => write!(f, "{pods} not ready"),
            Self::Missing(pods) => write!(f, "{pods} without metrics"),
            Self::Stabilisation(seconds) => write!(f, "stabilisation window of {seconds} s"),
            Self::Step(replicas) => write!(f, "largest step, to {replicas}"),
            Self::Disabled => write!(f, "scaling in this direction is disabled"),
            Self::Maximum(replicas) => write!(f, "maximum of {replicas}"),
            Self::Minimum(replicas) => write!(f, "minimum of {replicas}"),
        }
    }
}

/// What the autoscaler has done until now; times in seconds, oldest first.
#[derive(Default)]
pub struct History {
    /// What it recommended from a time on: before the window, the steps and the limits.
    pub recommendations: Vec<(f64, u32)>,
    /// Replicas added, or taken away where it is negative.
    pub changes: Vec<(f64, i64)>,
}

/// One computation, step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct Computation {
    /// `ceil(replicas × CPU ÷ target)`.
    pub formula: u32,
    /// The same with the tolerance, and with pods that are not ready.
    pub recommended: u32,
    /// What the rules come to in the end.
    pub result: u32,
    pub constraints: Vec<Constraint>,
}

/// What an autoscaler of these rules does with `replicas` replicas at the time `now`.
pub fn compute(
    rules: &Rules,
    replicas: u32,
    reading: Reading,
    pods: Pods,
    history: &History,
    now: f64,
) -> Computation {
    let formula = ceil(reading.ratio() * f64::from(replicas));
    let mut constraints = Vec::new();
    let recommended = recommend(rules, replicas, reading, pods, formula, &mut constraints);
    let stable = stabilise(rules, replicas, recommended, history, now, &mut constraints);
    let limited = limit(rules, replicas, stable, history, now, &mut constraints);
    // Whatever the CPU, more or fewer replicas than there may be are brought back.
    let result = limited.min(rules.max).max(rules.min);
    // What stays at a bound for another reason would not have gone past it either.
    let bound = match result {
        _ if formula > rules.max && result == rules.max => Some(Constraint::Maximum(rules.max)),
        _ if formula < rules.min && result == rules.min => Some(Constraint::Minimum(rules.min)),
        _ => None,
    };
    constraints.extend(bound.filter(|bound| !constraints.contains(bound)));
    Computation {
        formula,
        recommended,
        result,
        constraints,
    }
}

fn recommend(
    rules: &Rules,
    replicas: u32,
    reading: Reading,
    pods: Pods,
    formula: u32,
    constraints: &mut Vec<Constraint>,
) -> u32 {
    let tolerated =
        |ratio| (1.0 - rules.down.tolerance..=1.0 + rules.up.tolerance).contains(&ratio);
    let ratio = reading.ratio();
    let percent = |ratio: f64| {
        let of = if ratio < 1.0 { &rules.down } else { &rules.up };
        (of.tolerance * 100.0).round() as u32
    };
    let unready = if ratio > 1.0 { pods.unready } else { 0 };
    let why = |constraints: &mut Vec<Constraint>| {
        constraints.extend((pods.unready > 0).then_some(Constraint::NotReady(pods.unready)));
        constraints.extend((pods.missing > 0).then_some(Constraint::Missing(pods.missing)));
    };
    if unready == 0 && pods.missing == 0 {
        if tolerated(ratio) {
            if formula != replicas {
                constraints.push(Constraint::Tolerance(percent(ratio)));
            }
            return replicas;
        }
        let recommended = ceil(ratio * f64::from(pods.counted));
        if recommended != formula {
            why(constraints);
        }
        return recommended;
    }
    let assumed = match (ratio < 1.0, reading.unit) {
        (true, Unit::Percent) => reading.target.max(100),
        (true, Unit::Millicores) => reading.target,
        (false, _) => 0,
    };
    let all = pods.counted + unready + pods.missing;
    let average = (reading.current * pods.counted + assumed * pods.missing) / all;
    let cautious = f64::from(average) / f64::from(reading.target);
    let recommended = ceil(cautious * f64::from(all));
    let turned = (ratio < 1.0 && (cautious > 1.0 || recommended > replicas))
        || (ratio > 1.0 && (cautious < 1.0 || recommended < replicas));
    let recommended = if turned || tolerated(cautious) {
        replicas
    } else {
        recommended
    };
    if recommended != formula {
        why(constraints);
    }
    recommended
}

/// Up only to the lowest recommendation of one window, down only to the highest of the other.
fn stabilise(
    rules: &Rules,
    replicas: u32,
    recommended: u32,
    history: &History,
    now: f64,
    constraints: &mut Vec<Constraint>,
) -> u32 {
    let within = |window: u32| {
        let since = now - f64::from(window);
        let recommendations = &history.recommendations;
        // Each was repeated until the next one was seen.
        let ends = recommendations
            .iter()
            .skip(1)
            .map(|(at, _)| *at)
            .chain([now]);
        recommendations
            .iter()
            .zip(ends)
            .filter(move |(_, end)| window > 0 && *end > since)
            .map(|((_, recommended), _)| *recommended)
            .chain([recommended])
    };
    let lowest = within(rules.up.window).min().unwrap_or(recommended);
    let highest = within(rules.down.window).max().unwrap_or(recommended);
    let stable = replicas.max(lowest).min(highest);
    if stable < recommended {
        constraints.push(Constraint::Stabilisation(rules.up.window));
    } else if stable > recommended {
        constraints.push(Constraint::Stabilisation(rules.down.window));
    }
    stable
}

fn limit(
    rules: &Rules,
    replicas: u32,
    wanted: u32,
    history: &History,
    now: f64,
    constraints: &mut Vec<Constraint>,
) -> u32 {
    if wanted > replicas {
        let step = rules.highest(replicas, history, now);
        if wanted > step.min(rules.max) {
            constraints.push(match &rules.up.policies {
                _ if rules.max <= step => Constraint::Maximum(rules.max),
                Some(Policies {
                    select: Select::Disabled,
                    ..
                }) => Constraint::Disabled,
                _ => Constraint::Step(step),
            });
        }
        wanted.min(step)
    } else if wanted < replicas {
        let step = rules.lowest(replicas, history, now);
        if wanted < step.max(rules.min) {
            constraints.push(match &rules.down.policies {
                _ if rules.min >= step => Constraint::Minimum(rules.min),
                Some(Policies {
                    select: Select::Disabled,
                    ..
                }) => Constraint::Disabled,
                _ => Constraint::Step(step),
            });
        }
        wanted.max(step)
    } else {
        wanted
    }
}

impl Rules {
    /// The most replicas that one step from so many may lead to; the maximum is another matter.
    pub fn highest(&self, replicas: u32, history: &History, now: f64) -> u32 {
        let Some(policies) = &self.up.policies else {
            return (2 * replicas).max(FIRST_STEP);
        };
        let allowed = policies.policies.iter().map(|policy| {
            let began = history.replicas_before(replicas, policy.period, now);
            match policy.amount {
                Amount::Pods(pods) => began + f64::from(pods),
                Amount::Percent(percent) => (began * (1.0 + f64::from(percent) / 100.0)).ceil(),
            }
        });
        let step = match policies.select {
            Select::Max => allowed.reduce(f64::max),
            Select::Min => allowed.reduce(f64::min),
            Select::Disabled => None,
        };
        step.map_or(replicas, |step| ceil(step).max(replicas))
    }

    fn lowest(&self, replicas: u32, history: &History, now: f64) -> u32 {
        let Some(policies) = &self.down.policies else {
            return 0;
        };
        let allowed = policies.policies.iter().map(|policy| {
            let began = history.replicas_before(replicas, policy.period, now);
            match policy.amount {
                Amount::Pods(pods) => began - f64::from(pods),
                Amount::Percent(percent) => (began * (1.0 - f64::from(percent) / 100.0)).trunc(),
            }
        });
        let step = match policies.select {
            Select::Max => allowed.reduce(f64::min),
            Select::Min => allowed.reduce(f64::max),
            Select::Disabled => None,
        };
        step.map_or(replicas, |step| ceil(step).min(replicas))
    }
}

impl History {
    /// How many replicas there were when a policy's period began.
    fn replicas_before(&self, replicas: u32, period: u32, now: f64) -> f64 {
        let since = now - f64::from(period);
        let changed: i64 = self
            .changes
            .iter()
            .filter(|(at, _)| *at > since)
            .map(|(_, change)| change)
            .sum();
        f64::from(replicas) - changed as f64
    }
}

/// Never below zero.
fn ceil(replicas: f64) -> u32 {
    replicas.ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(current: u32) -> Reading {
        Reading {
            current,
            target: 50,
            unit: Unit::Percent,
        }
    }

    fn ready(counted: u32) -> Pods {
        Pods {
            counted,
            ..Pods::default()
        }
    }

    fn rules() -> Rules {
        Rules {
            max: 20,
            ..Rules::default()
        }
    }

    fn at_once(
        rules: &Rules,
        replicas: u32,
        current: u32,
        pods: Pods,
    ) -> (u32, u32, Vec<Constraint>) {
        let done = compute(
            rules,
            replicas,
            percent(current),
            pods,
            &History::default(),
            0.0,
        );
        (done.formula, done.result, done.constraints)
    }

    #[test]
    fn without_a_behavior_a_step_doubles_or_leads_to_four() {
        assert_eq!(
            at_once(&rules(), 1, 500, ready(1)),
            (10, 4, vec![Constraint::Step(4)])
        );
        assert_eq!(
            at_once(&rules(), 4, 500, ready(4)),
            (40, 8, vec![Constraint::Step(8)])
        );
        assert_eq!(at_once(&rules(), 1, 125, ready(1)), (3, 3, vec![]));
    }

    #[test]
    fn the_maximum_and_the_minimum_bound_it() {
        assert_eq!(
            at_once(&rules(), 10, 500, ready(10)),
            (100, 20, vec![Constraint::Maximum(20)])
        );
        assert_eq!(
            at_once(&rules(), 20, 500, ready(20)),
            (200, 20, vec![Constraint::Maximum(20)])
        );
        assert_eq!(
            at_once(&rules(), 2, 0, ready(2)),
            (0, 1, vec![Constraint::Minimum(1)])
        );
    }

    #[test]
    fn a_bound_is_named_where_something_else_holds_there_too() {
        let pods = Pods {
            counted: 10,
            unready: 0,
            missing: 10,
        };
        // 98 % of ten are 49 % of twenty, which is tolerated.
        assert_eq!(
            at_once(&rules(), 20, 98, pods),
            (
                40,
                20,
                vec![Constraint::Missing(10), Constraint::Maximum(20)]
            )
        );
        let history = History {
            recommendations: vec![(0.0, 1)],
            changes: Vec::new(),
        };
        let done = compute(&rules(), 1, percent(0), ready(1), &history, 10.0);
        assert_eq!(
            (done.result, done.constraints),
            (
                1,
                vec![Constraint::Stabilisation(300), Constraint::Minimum(1)]
            )
        );
    }

    #[test]
    fn replicas_beyond_a_bound_are_brought_back() {
        let (formula, result, constraints) = at_once(&rules(), 23, 50, ready(23));
        assert_eq!((formula, result), (23, 20));
        assert_eq!(constraints, [Constraint::Maximum(20)]);
    }

    #[test]
    fn a_tenth_off_the_target_is_tolerated() {
        assert_eq!(
            at_once(&rules(), 8, 55, ready(8)),
            (9, 8, vec![Constraint::Tolerance(10)])
        );
        assert_eq!(at_once(&rules(), 8, 56, ready(8)), (9, 9, vec![]));
        assert_eq!(
            at_once(&rules(), 20, 45, ready(20)),
            (18, 20, vec![Constraint::Tolerance(10)])
        );
        assert_eq!(at_once(&rules(), 20, 44, ready(20)), (18, 18, vec![]));
        // Where the formula agrees nothing is constrained.
        assert_eq!(at_once(&rules(), 4, 48, ready(4)), (4, 4, vec![]));
        let mut strict = rules();
        strict.up.tolerance = 0.0;
        assert_eq!(at_once(&strict, 8, 53, ready(8)), (9, 9, vec![]));
    }

    #[test]
    fn pods_that_are_not_ready_count_as_nothing_on_the_way_up() {
        let pods = Pods {
            counted: 1,
            unready: 3,
            missing: 0,
        };
        // 500 % of one pod are 125 % of four.
        assert_eq!(
            at_once(&rules(), 4, 500, pods),
            (40, 8, vec![Constraint::NotReady(3), Constraint::Step(8)])
        );
        // 90 % of one are 22 % of four, which would be a scale-in: nothing is done.
        assert_eq!(
            at_once(&rules(), 4, 90, pods),
            (8, 4, vec![Constraint::NotReady(3)])
        );
    }

    #[test]
    fn pods_without_metrics_count_against_the_direction() {
        let pods = Pods {
            counted: 2,
            unready: 0,
            missing: 2,
        };
        assert_eq!(
            at_once(&rules(), 4, 150, pods),
            (12, 6, vec![Constraint::Missing(2)]),
            "nothing on the way up"
        );
        assert_eq!(
            at_once(&rules(), 4, 10, pods),
            (1, 4, vec![Constraint::Missing(2)]),
            "all of their request on the way down"
        );
    }

    #[test]
    fn a_scale_in_waits_until_the_window_has_forgotten_the_load() {
        let history = History {
            recommendations: vec![(0.0, 20), (200.0, 1)],
            changes: Vec::new(),
        };
        let done = |now| compute(&rules(), 20, percent(2), ready(20), &history, now);
        assert_eq!(
            (done(499.0).result, done(499.0).constraints),
            (20, vec![Constraint::Stabilisation(300)])
        );
        assert_eq!((done(501.0).result, done(501.0).constraints), (1, vec![]));
    }

    #[test]
    fn a_window_on_the_way_up_takes_the_lowest() {
        let mut rules = rules();
        rules.up.window = 60;
        let history = History {
            recommendations: vec![(0.0, 1), (50.0, 2)],
            changes: Vec::new(),
        };
        let done = |now| compute(&rules, 1, percent(100), ready(1), &history, now).result;
        assert_eq!(done(55.0), 1);
        assert_eq!(done(111.0), 2);
    }

    #[test]
    fn policies_limit_what_is_added_in_their_period() {
        let mut rules = rules();
        let policies = vec![
            Policy {
                amount: Amount::Pods(2),
                period: 60,
            },
            Policy {
                amount: Amount::Percent(50),
                period: 60,
            },
        ];
        rules.up.policies = Some(Policies {
            select: Select::Max,
            policies,
        });
        let history = History {
            recommendations: Vec::new(),
            changes: vec![(100.0, 2)],
        };
        let highest = |rules: &Rules, now| rules.highest(10, &history, now);
        assert_eq!(highest(&rules, 200.0), 15, "half of ten");
        assert_eq!(
            highest(&rules, 130.0),
            12,
            "half of the eight that there were"
        );
        let mut few = rules.clone();
        few.up.policies.as_mut().expect("they are set").select = Select::Min;
        assert_eq!(highest(&few, 200.0), 12);
        few.up.policies.as_mut().expect("they are set").select = Select::Disabled;
        assert_eq!(
            at_once(&few, 1, 500, ready(1)),
            (10, 1, vec![Constraint::Disabled])
        );
    }

    #[test]
    fn policies_limit_what_is_taken_away() {
        let mut rules = rules();
        rules.down.window = 0;
        let policies = vec![Policy {
            amount: Amount::Percent(10),
            period: 60,
        }];
        rules.down.policies = Some(Policies {
            select: Select::Max,
            policies,
        });
        assert_eq!(
            at_once(&rules, 20, 2, ready(20)),
            (1, 18, vec![Constraint::Step(18)])
        );
    }
}

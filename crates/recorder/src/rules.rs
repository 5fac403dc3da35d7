//! The rules of a HorizontalPodAutoscaler, as functions of observable values.
//!
//! A recommendation is computed for each metric from the pods and their usage, the largest one is
//! limited by earlier recommendations and by the object, and the result is set. The
//! documentation of Kubernetes describes this as "Algorithm details" and "Configurable scaling
//! behavior": <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>.
//! Rounding, the limits without a `behavior` and the lifetime of earlier recommendations follow the
//! implementation of Kubernetes 1.34 (`pkg/controller/podautoscaler`).

use std::{cmp::Ordering, fmt};

use schemars::JsonSchema;
use serde::Serialize;

/// How often an autoscaler computes (`--horizontal-pod-autoscaler-sync-period`), in seconds.
pub const SYNC_PERIOD: f64 = 15.0;
/// `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
pub const SCALE_DOWN_WINDOW: u32 = 300;
/// `--horizontal-pod-autoscaler-tolerance`.
pub const TOLERANCE: f64 = 0.1;
/// The replicas that one step without a `behavior` may always reach.
const FIRST_STEP: u32 = 4;
/// The average of a metric beside its target, both in the same unit.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Serialize)]
pub struct Reading {
    pub current: i64,
    pub target: i64,
    pub unit: Unit,
}

/// The unit of a target.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Percent of the requests of the pods (`averageUtilization`).
    Percent,
    /// An `averageValue` of CPU.
    Millicores,
    /// Any other value, in thousandths.
    Thousandths,
}

impl Unit {
    pub fn format(self, value: i64) -> String {
        match self {
            Self::Percent => format!("{value} %"),
            Self::Millicores => format!("{value}m"),
            Self::Thousandths => (value as f64 / 1000.0).to_string(),
        }
    }
}

impl Reading {
    fn ratio(self) -> f64 {
        self.current as f64 / self.target as f64
    }

    /// `ceil(replicas × current ÷ target)`.
    pub fn formula(self, replicas: u32) -> u32 {
        ceil(self.ratio() * f64::from(replicas))
    }

    /// Why another number than that of the formula is recommended.
    pub fn constraints(
        self,
        tolerance: Tolerance,
        replicas: u32,
        recommended: u32,
        pods: Pods,
    ) -> Vec<Constraint> {
        if recommended == self.formula(replicas) {
            return Vec::new();
        }
        let ratio = self.ratio();
        let some =
            |pods: u32, constraint: fn(u32) -> Constraint| (pods > 0).then(|| constraint(pods));
        let missing = some(pods.without_metrics, Constraint::Missing);
        let unready = some(pods.not_ready, Constraint::NotReady);
        if tolerance.contains(ratio) && missing.is_none() && (ratio <= 1.0 || unready.is_none()) {
            let side = if ratio < 1.0 {
                tolerance.down
            } else {
                tolerance.up
            };
            return vec![Constraint::Tolerance((side * 100.0).round() as u32)];
        }
        let mut constraints: Vec<_> = unready.into_iter().chain(missing).collect();
        if constraints.is_empty() {
            constraints.push(Constraint::Counted(pods.counted));
        }
        constraints
    }
}

/// How a pod is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Class {
    /// Its usage is part of the reading.
    Counted,
    /// Pending, not ready, or so young that its CPU is that of starting up.
    NotReady,
    /// The metrics API does not know its usage.
    WithoutMetrics,
    /// Failed, or being deleted.
    Ignored,
}

/// One pod of the target with its usage of a resource, and its request of it, in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub class: Class,
    pub usage: i64,
    pub request: i64,
}

/// The number of pods of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pods {
    pub counted: u32,
    pub not_ready: u32,
    pub without_metrics: u32,
}

impl FromIterator<Class> for Pods {
    fn from_iter<C: IntoIterator<Item = Class>>(classes: C) -> Self {
        let mut pods = Self::default();
        for class in classes {
            match class {
                Class::Counted => pods.counted += 1,
                Class::NotReady => pods.not_ready += 1,
                Class::WithoutMetrics => pods.without_metrics += 1,
                Class::Ignored => {}
            }
        }
        pods
    }
}

impl Pods {
    /// Pods that all use and request the same, which is assumed if the usage of each is not known.
    pub fn alike(self, reading: Reading) -> Vec<Sample> {
        let (usage, request) = (reading.current, 100);
        [
            (Class::Counted, self.counted),
            (Class::NotReady, self.not_ready),
            (Class::WithoutMetrics, self.without_metrics),
        ]
        .into_iter()
        .flat_map(|(class, count)| {
            let sample = Sample {
                class,
                usage,
                request,
            };
            std::iter::repeat_n(sample, count as usize)
        })
        .collect()
    }
}

/// The recommendation for one metric of resources.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recommendation {
    /// The reading, as the status of the autoscaler shows it.
    pub current: i64,
    /// The average usage of a pod, in thousandths, which the status shows beside a percentage.
    pub average: i64,
    pub replicas: u32,
    pub pods: Pods,
}

/// The deviation from a target that causes no change, as a fraction of the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub up: f64,
    pub down: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            up: TOLERANCE,
            down: TOLERANCE,
        }
    }
}

impl Tolerance {
    fn contains(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The sums that a reading is made of.
#[derive(Default)]
struct Sum {
    usage: i64,
    request: i64,
    /// The pods that are summed up.
    pods: i64,
    /// The same, with those that are gone but that the metrics API still reports.
    measured: i64,
}

impl Sum {
    fn add(&mut self, usage: i64, request: i64) {
        self.usage += usage;
        self.request += request;
        self.pods += 1;
        self.measured += 1;
    }

    fn reading(&self, unit: Unit) -> Option<i64> {
        match unit {
            Unit::Percent => (self.usage * 100).checked_div(self.request),
            Unit::Millicores | Unit::Thousandths => self.usage.checked_div(self.measured),
        }
    }
}

/// The recommendation for a metric of resources, unless no usage can be read.
///
/// Target and usage are percent of the request or thousandths. `gone` is the usage of pods that no longer exist but that the metrics API still reports.
pub fn recommend(
    target: i64,
    unit: Unit,
    tolerance: Tolerance,
    replicas: u32,
    samples: &[Sample],
    gone: &[i64],
) -> Option<Recommendation> {
    let pods: Pods = samples.iter().map(|sample| sample.class).collect();
    let mut sum = Sum {
        measured: gone.len() as i64,
        ..Sum::default()
    };
    if unit != Unit::Percent {
        sum.usage = gone.iter().sum();
    }
    let of_class = |class| samples.iter().filter(move |sample| sample.class == class);
    for sample in of_class(Class::Counted) {
        sum.add(sample.usage, sample.request);
    }
    let current = sum.reading(unit)?;
    let summed = if unit == Unit::Percent {
        sum.pods
    } else {
        sum.measured
    };
    let average = sum.usage / summed;
    let recommendation = |replicas| {
        Some(Recommendation {
            current,
            average,
            replicas,
            pods,
        })
    };
    let ratio = current as f64 / target as f64;
    let is_cautious = pods.not_ready > 0 && ratio > 1.0;
    if !is_cautious && pods.without_metrics == 0 {
        return recommendation(if tolerance.contains(ratio) {
            replicas
        } else {
            ceil(ratio * f64::from(pods.counted))
        });
    }
    // Pods without metrics count as busy when scaling down, and as idle when scaling up.
    if ratio != 1.0 {
        for sample in of_class(Class::WithoutMetrics) {
            let busy = match unit {
                Unit::Percent => sample.request * target.max(100) / 100,
                Unit::Millicores | Unit::Thousandths => target,
            };
            sum.add(if ratio < 1.0 { busy } else { 0 }, sample.request);
        }
    }
    if is_cautious {
        for sample in of_class(Class::NotReady) {
            sum.add(0, sample.request);
        }
    }
    let cautious = sum.reading(unit)? as f64 / target as f64;
    let recommended = ceil(cautious * sum.measured as f64);
    let turned = (ratio < 1.0 && cautious > 1.0)
        || (ratio > 1.0 && cautious < 1.0)
        || (cautious < 1.0 && recommended > replicas)
        || (cautious > 1.0 && recommended < replicas);
    recommendation(if turned || tolerance.contains(cautious) {
        replicas
    } else {
        recommended
    })
}

/// The largest recommendation of several metrics. While one of them fails, the others may only add replicas.
pub fn largest(
    recommendations: impl IntoIterator<Item = Option<u32>>,
    replicas: u32,
) -> Option<u32> {
    let mut largest = None;
    let mut any_fails = false;
    for recommendation in recommendations {
        any_fails |= recommendation.is_none();
        largest = largest.max(recommendation);
    }
    largest.filter(|largest| !any_fails || *largest >= replicas)
}

/// The replicas for a value that is not of resources: one that is divided by the pods that exist, or
/// one that is not and that the ready ones must share.
pub fn recommend_for_value(
    reading: Reading,
    tolerance: Tolerance,
    replicas: u32,
    pods: u32,
    is_per_pod: bool,
) -> u32 {
    // An average is rounded up, so that the total may be a bit smaller.
    let average = if is_per_pod && pods > 0 {
        ((reading.current - 1) * i64::from(pods) + 1).max(0) as f64 / f64::from(pods)
    } else {
        reading.current as f64
    };
    let ratio = average / reading.target as f64;
    if tolerance.contains(ratio) {
        if is_per_pod { pods } else { replicas }
    } else {
        ceil(ratio * f64::from(pods))
    }
}

/// The limits that the object sets, and how fast the autoscaler may move between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub min: u32,
    pub max: u32,
    pub behavior: Option<Behavior>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behavior {
    pub tolerance: Tolerance,
    pub up: Direction,
    pub down: Direction,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Direction {
    /// The stabilisation window, in seconds.
    pub window: u32,
    pub select: Select,
    pub policies: Vec<Policy>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Select {
    /// The policy that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest.
    Min,
    Disabled,
}

/// The largest change within `period` seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    pub amount: Amount,
    pub period: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Pods(u32),
    Percent(u32),
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            behavior: None,
        }
    }
}

/// Why an autoscaler set another number than `ceil(replicas × current ÷ target)`.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// The deviation from the target is tolerated, up to this percentage.
    Tolerance(u32),
    /// This many pods are not ready: they count as idle when scaling up, and not at all when scaling down.
    NotReady(u32),
    /// The usage of this many pods is unknown: they count as idle when scaling up, as busy when scaling down.
    Missing(u32),
    /// Another number of pods than of replicas was counted.
    Counted(u32),
    /// An earlier recommendation holds, for this many seconds.
    Stabilisation(u32),
    /// The largest step leads to this many replicas.
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
            Self::Counted(pods) => write!(f, "{pods} pods counted"),
            Self::Stabilisation(seconds) => write!(f, "stabilisation window of {seconds} s"),
            Self::Step(replicas) => write!(f, "largest step, to {replicas}"),
            Self::Disabled => write!(f, "scaling in this direction is disabled"),
            Self::Maximum(replicas) => write!(f, "maximum of {replicas}"),
            Self::Minimum(replicas) => write!(f, "minimum of {replicas}"),
        }
    }
}

/// The memory of an autoscaler; times in seconds.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Each recommendation, when it was made: before the windows and the limits.
    pub recommendations: Vec<(f64, u32)>,
    /// Replicas added and removed. Without a `behavior` neither is remembered.
    added: Vec<Change>,
    removed: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Change {
    at: f64,
    replicas: u32,
    /// Older than any period of its direction when another one was made: the next one overwrites it.
    is_outdated: bool,
}

impl History {
    pub fn recommend(&mut self, at: f64, replicas: u32) {
        self.recommendations.push((at, replicas));
    }

    /// Remembers a change of the number of replicas.
    pub fn scale(&mut self, rules: &Rules, at: f64, from: u32, to: u32) {
        let Some(behavior) = &rules.behavior else {
            return;
        };
        let (changes, direction) = if to > from {
            (&mut self.added, &behavior.up)
        } else {
            (&mut self.removed, &behavior.down)
        };
        let periods = direction.policies.iter().map(|policy| policy.period);
        let longest = f64::from(periods.max().unwrap_or_default());
        for change in changes.iter_mut() {
            change.is_outdated |= at - change.at > longest;
        }
        let change = Change {
            at,
            replicas: to.abs_diff(from),
            is_outdated: false,
        };
        match changes.iter().rposition(|change| change.is_outdated) {
            Some(outdated) => changes[outdated] = change,
            None => changes.push(change),
        }
    }

    fn recommended_within(&self, window: u32, now: f64) -> impl Iterator<Item = u32> {
        self.recommendations
            .iter()
            .filter(move |(at, _)| now - at < f64::from(window))
            .map(|(_, replicas)| *replicas)
    }

    /// The replicas when a policy's period began, as far as they are remembered.
    fn replicas_before(&self, replicas: u32, period: u32, now: f64) -> f64 {
        let changed = |changes: &[Change]| -> f64 {
            let within = |change: &&Change| now - change.at < f64::from(period);
            let replicas = changes.iter().filter(within).map(|change| change.replicas);
            f64::from(replicas.sum::<u32>())
        };
        f64::from(replicas) - changed(&self.added) + changed(&self.removed)
    }
}

impl Rules {
    pub fn tolerance(&self) -> Tolerance {
        self.behavior
            .as_ref()
            .map(|behavior| behavior.tolerance)
            .unwrap_or_default()
    }

    /// The window, in seconds, whose lowest recommendation counts when scaling up.
    pub fn up_window(&self) -> u32 {
        self.behavior
            .as_ref()
            .map_or(0, |behavior| behavior.up.window)
    }

    /// The window, in seconds, whose highest recommendation counts.
    pub fn down_window(&self) -> u32 {
        let behavior = self.behavior.as_ref();
        behavior.map_or(SCALE_DOWN_WINDOW, |behavior| behavior.down.window)
    }

    /// The bound that this many replicas exceed: they are set back to it, whatever the metrics are.
    pub fn bound(&self, replicas: u32) -> Option<(u32, Constraint)> {
        if replicas > self.max {
            Some((self.max, Constraint::Maximum(self.max)))
        } else if replicas < self.min && replicas > 0 {
            Some((self.min, Constraint::Minimum(self.min)))
        } else {
            None
        }
    }

    /// The bound that the formula exceeded, unless it is named already: a number that stays at a bound for
    /// another reason would not have exceeded it either.
    pub fn bound_of(&self, formula: u32, result: u32, named: &[Constraint]) -> Option<Constraint> {
        let bound = if formula > self.max && result == self.max {
            Constraint::Maximum(self.max)
        } else if formula < self.min && result == self.min {
            Constraint::Minimum(self.min)
        } else {
            return None;
        };
        (!named.contains(&bound)).then_some(bound)
    }

    /// The window, in seconds, through which an unknown earlier recommendation leads to more (or, with
    /// a `behavior`, fewer) replicas than these rules do.
    pub fn window_of(&self, result: u32, actual: u32) -> Option<u32> {
        match actual.cmp(&result) {
            Ordering::Less => Some(self.up_window()),
            Ordering::Equal => None,
            Ordering::Greater => Some(self.down_window()),
        }
    }

    /// The replicas that a recommendation leads to, and the constraints.
    pub fn normalise(
        &self,
        replicas: u32,
        recommended: u32,
        history: &History,
        now: f64,
    ) -> (u32, Vec<Constraint>) {
        let (stable, window) = self.stabilise(replicas, recommended, history, now);
        let (result, limit) = self.limit(replicas, stable, history, now);
        (result, window.into_iter().chain(limit).collect())
    }

    /// Without a `behavior` the highest recommendation of the window is the goal. With one, the
    /// replicas stay between the lowest of one window and the highest of the other.
    fn stabilise(
        &self,
        replicas: u32,
        recommended: u32,
        history: &History,
        now: f64,
    ) -> (u32, Option<Constraint>) {
        let highest = |window| {
            let earlier = history.recommended_within(window, now).max();
            earlier.map_or(recommended, |earlier| earlier.max(recommended))
        };
        let highest = highest(self.down_window());
        let stable = if self.behavior.is_none() {
            highest
        } else {
            let earlier = history.recommended_within(self.up_window(), now).min();
            let lowest = earlier.map_or(recommended, |earlier| earlier.min(recommended));
            replicas.max(lowest).min(highest)
        };
        let window = match stable.cmp(&recommended) {
            Ordering::Less => Some(self.up_window()),
            Ordering::Equal => None,
            Ordering::Greater => Some(self.down_window()),
        };
        (stable, window.map(Constraint::Stabilisation))
    }

    fn limit(
        &self,
        replicas: u32,
        wanted: u32,
        history: &History,
        now: f64,
    ) -> (u32, Option<Constraint>) {
        let step = |step, direction: Option<&Direction>| match direction {
            Some(direction) if direction.select == Select::Disabled => Constraint::Disabled,
            _ => Constraint::Step(step),
        };
        let direction = |up: bool| {
            let behavior = self.behavior.as_ref()?;
            Some(if up { &behavior.up } else { &behavior.down })
        };
        // Without a `behavior` the bounds hold for replicas that stay, too.
        let moves = |moves| self.behavior.is_none() || moves;
        if moves(wanted > replicas) {
            let highest = self.highest(replicas, history, now);
            if wanted > self.max.min(highest) {
                return if self.max <= highest {
                    (self.max, Some(Constraint::Maximum(self.max)))
                } else {
                    (highest, Some(step(highest, direction(true))))
                };
            }
        }
        if moves(wanted < replicas) {
            let lowest = self.lowest(replicas, history, now);
            if wanted < self.min.max(lowest) {
                return if self.min >= lowest {
                    (self.min, Some(Constraint::Minimum(self.min)))
                } else {
                    (lowest, Some(step(lowest, direction(false))))
                };
            }
        }
        (wanted, None)
    }

    /// The most replicas that one step may lead to, apart from the maximum.
    pub fn highest(&self, replicas: u32, history: &History, now: f64) -> u32 {
        let Some(Behavior { up, .. }) = &self.behavior else {
            return (2 * replicas).max(FIRST_STEP);
        };
        let allowed = up.policies.iter().map(|policy| {
            let before = history.replicas_before(replicas, policy.period, now);
            match policy.amount {
                Amount::Pods(pods) => before + f64::from(pods),
                Amount::Percent(percent) => (before * (1.0 + f64::from(percent) / 100.0)).ceil(),
            }
        });
        let step = match up.select {
            Select::Max => allowed.reduce(f64::max),
            Select::Min => allowed.reduce(f64::min),
            Select::Disabled => None,
        };
        step.map_or(replicas, |step| ceil(step).max(replicas))
    }

    fn lowest(&self, replicas: u32, history: &History, now: f64) -> u32 {
        let Some(Behavior { down, .. }) = &self.behavior else {
            return 0;
        };
        let allowed = down.policies.iter().map(|policy| {
            let before = history.replicas_before(replicas, policy.period, now);
            match policy.amount {
                Amount::Pods(pods) => before - f64::from(pods),
                Amount::Percent(percent) => (before * (1.0 - f64::from(percent) / 100.0)).trunc(),
            }
        });
        let step = match down.select {
            Select::Max => allowed.reduce(f64::min),
            Select::Min => allowed.reduce(f64::max),
            Select::Disabled => None,
        };
        step.map_or(replicas, |step| ceil(step).min(replicas))
    }
}

/// Never below zero.
fn ceil(replicas: f64) -> u32 {
    replicas.ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP_TO_20: Rules = Rules {
        min: 1,
        max: 20,
        behavior: None,
    };

    fn sample(class: Class, usage: i64) -> Sample {
        Sample {
            class,
            usage,
            request: 100,
        }
    }

    /// Percent of a request of 100m, with a target of 50 %.
    fn recommended(replicas: u32, samples: &[(Class, i64)]) -> u32 {
        let samples: Vec<_> = samples
            .iter()
            .map(|(class, usage)| sample(*class, *usage))
            .collect();
        let tolerance = Tolerance::default();
        let recommended = recommend(50, Unit::Percent, tolerance, replicas, &samples, &[]);
        recommended.expect("some are counted").replicas
    }

    /// The replicas that are set after these recommendations, each with seconds before now and replicas.
    fn set(rules: &Rules, replicas: u32, recommended: u32, earlier: &[(f64, u32)]) -> u32 {
        let mut history = History::default();
        for (ago, replicas) in earlier {
            history.recommend(-ago, *replicas);
        }
        rules.normalise(replicas, recommended, &history, 0.0).0
    }

    #[test]
    fn a_recommendation_expires_after_the_window() {
        let ones = (1..20).map(|sync| (f64::from(sync) * 15.02, 1));
        let earlier: Vec<_> = [(300.4, 2)].into_iter().chain(ones).collect();
        assert_eq!(set(&UP_TO_20, 2, 1, &earlier), 1);
        assert_eq!(set(&UP_TO_20, 2, 1, &[(285.4, 2)]), 2);
    }

    #[test]
    fn without_a_behavior_the_highest_recommendation_is_the_goal_upwards_too() {
        assert_eq!(set(&UP_TO_20, 4, 4, &[(15.0, 5)]), 5);
        assert_eq!(
            set(&UP_TO_20, 4, 4, &[(15.0, 10)]),
            8,
            "twice as many at most"
        );
        assert_eq!(set(&UP_TO_20, 4, 1, &[(15.0, 10)]), 8);
        let rules = Rules {
            behavior: Some(behavior(15, 15)),
            ..UP_TO_20
        };
        assert_eq!(
            set(&rules, 4, 4, &[(15.0, 10)]),
            4,
            "with one it stays between the windows"
        );
    }

    #[test]
    fn a_reading_at_the_target_changes_nothing() {
        let pods = [(Class::Counted, 50), (Class::WithoutMetrics, 0)];
        assert_eq!(recommended(2, &pods), 2);
    }

    #[test]
    fn the_total_is_rounded_and_not_an_average() {
        let pods = [
            (Class::Counted, 0),
            (Class::Counted, 201),
            (Class::WithoutMetrics, 0),
        ];
        assert_eq!(recommended(3, &pods), 5);
    }

    #[test]
    fn pods_count_and_not_replicas() {
        assert_eq!(
            recommended(2, &[(Class::Counted, 100); 3]),
            6,
            "one more in a rollout"
        );
        assert_eq!(
            recommended(2, &[(Class::Counted, 100); 1]),
            2,
            "one was not created"
        );
    }

    #[test]
    fn pods_that_are_gone_still_count_while_they_have_metrics() {
        let samples = [sample(Class::Counted, 200), sample(Class::NotReady, 200)];
        let tolerance = Tolerance::default();
        let with = |gone: &[i64]| {
            recommend(50, Unit::Percent, tolerance, 2, &samples, gone).map(|one| one.replicas)
        };
        // 100 % of two pods, and of four.
        assert_eq!((with(&[]), with(&[3, 4])), (Some(4), Some(8)));
    }

    #[test]
    fn of_several_metrics_the_largest_wins_and_only_upwards_while_one_fails() {
        assert_eq!(largest([Some(3), Some(6)], 5), Some(6));
        assert_eq!(largest([Some(3), None], 5), None);
        assert_eq!(largest([Some(6), None], 5), Some(6));
    }

    /// The default, with a window and a period of 60 s in which 2 pods may go.
    fn behavior(up: u32, down: u32) -> Behavior {
        let policy = |amount, period| Policy { amount, period };
        Behavior {
            tolerance: Tolerance::default(),
            up: Direction {
                window: up,
                policies: vec![
                    policy(Amount::Pods(4), 15),
                    policy(Amount::Percent(100), 15),
                ],
                ..Direction::default()
            },
            down: Direction {
                window: down,
                policies: vec![policy(Amount::Pods(2), 60)],
                ..Direction::default()
            },
        }
    }

    #[test]
    fn a_change_older_than_the_periods_of_its_direction_is_overwritten() {
        let rules = Rules {
            behavior: Some(behavior(0, 0)),
            ..UP_TO_20
        };
        let mut history = History::default();
        history.scale(&rules, -40.0, 2, 6);
        history.scale(&rules, -20.0, 6, 10);
        assert_eq!(
            rules.normalise(10, 1, &history, 0.0),
            (4, vec![Constraint::Step(4)])
        );
    }

    #[test]
    fn a_value_per_pod_is_a_total_divided_by_the_pods() {
        let reading = |current| Reading {
            current,
            target: 10_000,
            unit: Unit::Thousandths,
        };
        let tolerance = Tolerance::default();
        // 10 in all: 3.334 for each of three pods.
        assert_eq!(recommend_for_value(reading(3334), tolerance, 3, 3, true), 1);
        assert_eq!(
            recommend_for_value(reading(60_000), tolerance, 1, 1, true),
            6
        );
        assert_eq!(
            recommend_for_value(reading(10_500), tolerance, 4, 4, false),
            4
        );
    }
}

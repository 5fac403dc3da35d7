//! The rules of a HorizontalPodAutoscaler, as functions of observable values.
//!
//! A recommendation is computed for each metric from the pods and their usage, the largest one is
//! limited by earlier recommendations and by the object, and the result is set. The
//! documentation of Kubernetes describes this as "Algorithm details" and "Configurable scaling
//! behavior": <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>.
//! Rounding, the limits without a `behavior` and the lifetime of earlier recommendations follow the
//! implementation of Kubernetes 1.34 (`pkg/controller/podautoscaler`).

use std::{cmp::Ordering, fmt};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::{Pod, Readiness, Window};

/// How long after its start a pod's CPU may still be that of starting up
/// (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const INITIALISATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that became unready within this time of its start was never ready
/// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);
/// The replicas that one step without a `behavior` may always reach.
const FIRST_STEP: u32 = 4;

/// The flags of the controller manager that people change; a cluster does not show them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Flags {
    /// How often an autoscaler computes (`--horizontal-pod-autoscaler-sync-period`), in seconds.
    pub sync_period: f64,
    /// `--horizontal-pod-autoscaler-tolerance`, as a fraction of the target.
    pub tolerance: f64,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
    pub downscale_stabilisation: u32,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            sync_period: 15.0,
            tolerance: 0.1,
            downscale_stabilisation: 300,
        }
    }
}

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

    /// `ceil(replicas × current ÷ target)`. Without replicas the value is the total, not an average.
    pub fn formula(self, replicas: u32) -> u32 {
        ceil(self.ratio() * f64::from(replicas.max(1)))
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
        let some = |pods: u32, constraint| (pods > 0).then_some(constraint);
        let missing = some(
            pods.without_metrics,
            Constraint::WithoutMetrics {
                pods: pods.without_metrics,
            },
        );
        let unready = some(
            pods.not_ready,
            Constraint::NotReady {
                pods: pods.not_ready,
            },
        );
        if tolerance.contains(ratio) && missing.is_none() && (ratio <= 1.0 || unready.is_none()) {
            let side = if ratio < 1.0 {
                tolerance.down
            } else {
                tolerance.up
            };
            return vec![Constraint::Tolerance {
                percent: (side * 100.0).round() as u32,
            }];
        }
        let mut constraints: Vec<_> = unready.into_iter().chain(missing).collect();
        if constraints.is_empty() {
            constraints.push(Constraint::Counted { pods: pods.counted });
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

impl Class {
    /// How a pod is counted, if its usage was measured over `window`. Readiness only matters for CPU.
    pub fn of(pod: &Pod, window: Option<Window>, is_cpu: bool, now: Timestamp) -> Self {
        if pod.leaving {
            return Self::Ignored;
        }
        if pod.pending {
            return Self::NotReady;
        }
        let Some(window) = window else {
            return Self::WithoutMetrics;
        };
        if !is_cpu {
            return Self::Counted;
        }
        let (Some(started), Some((readiness, since))) = (pod.started, pod.readiness) else {
            return Self::NotReady;
        };
        let is_unready = readiness == Readiness::NotReady;
        let not_ready = if now.duration_since(started) < INITIALISATION {
            is_unready || window.ended.duration_since(since) < window.length
        } else {
            is_unready && since.duration_since(started) < READINESS_DELAY
        };
        if not_ready {
            Self::NotReady
        } else {
            Self::Counted
        }
    }
}

/// Pods of the target that are alike, with the usage and the request of each, in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub class: Class,
    pub pods: u32,
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
            pods.add(class, 1);
        }
        pods
    }
}

impl Pods {
    fn add(&mut self, class: Class, pods: u32) {
        match class {
            Class::Counted => self.counted = self.counted.saturating_add(pods),
            Class::NotReady => self.not_ready += pods,
            Class::WithoutMetrics => self.without_metrics += pods,
            Class::Ignored => {}
        }
    }

    /// Pods that all use and request the same, which is assumed if the usage of each is not known.
    pub fn alike(self, reading: Reading) -> [Sample; 3] {
        [
            (Class::Counted, self.counted),
            (Class::NotReady, self.not_ready),
            (Class::WithoutMetrics, self.without_metrics),
        ]
        .map(|(class, pods)| Sample {
            class,
            pods,
            usage: reading.current,
            request: 100,
        })
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

impl Tolerance {
    fn contains(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The sums that a reading is made of. No value of an API object makes them overflow.
#[derive(Default)]
struct Sum {
    usage: i128,
    request: i128,
    /// The pods that are summed up.
    pods: i128,
    /// The same, with those that are gone but that the metrics API still reports.
    measured: i128,
}

impl Sum {
    fn add(&mut self, sample: &Sample, usage: i128) {
        let pods = i128::from(sample.pods);
        self.usage += usage * pods;
        self.request += i128::from(sample.request) * pods;
        self.pods += pods;
        self.measured += pods;
    }

    fn reading(&self, unit: Unit) -> Option<i64> {
        let reading = match unit {
            Unit::Percent => (self.usage * 100).checked_div(self.request),
            Unit::Millicores | Unit::Thousandths => self.usage.checked_div(self.measured),
        };
        reading.map(saturate)
    }

    fn average(&self, unit: Unit) -> Option<i64> {
        let pods = match unit {
            Unit::Percent => self.pods,
            Unit::Millicores | Unit::Thousandths => self.measured,
        };
        self.usage.checked_div(pods).map(saturate)
    }
}

fn saturate(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// The recommendation for a metric of resources, unless no usage can be read.
///
/// Target and usage are percent of the request or thousandths. `gone` is the usage of pods that no
/// longer exist but that the metrics API still reports.
pub fn recommend(
    target: i64,
    unit: Unit,
    tolerance: Tolerance,
    replicas: u32,
    samples: &[Sample],
    gone: &[i64],
) -> Option<Recommendation> {
    let mut pods = Pods::default();
    let mut sum = Sum {
        measured: gone.len() as i128,
        ..Sum::default()
    };
    if unit != Unit::Percent {
        sum.usage = gone.iter().copied().map(i128::from).sum();
    }
    for sample in samples {
        pods.add(sample.class, sample.pods);
        if sample.class == Class::Counted {
            sum.add(sample, sample.usage.into());
        }
    }
    let current = sum.reading(unit)?;
    let average = sum.average(unit)?;
    let ratio = current as f64 / target as f64;
    let is_cautious = pods.not_ready > 0 && ratio > 1.0;
    let replicas = if is_cautious || pods.without_metrics > 0 {
        cautious(target, unit, tolerance, replicas, samples, sum)?
    } else if tolerance.contains(ratio) {
        replicas
    } else {
        ceil(ratio * f64::from(pods.counted))
    };
    Some(Recommendation {
        current,
        average,
        replicas,
        pods,
    })
}

/// The recommendation if pods without metrics count as busy when scaling down and as idle when scaling
/// up, and pods that are not ready as idle when scaling up. `sum` is that of the counted pods.
fn cautious(
    target: i64,
    unit: Unit,
    tolerance: Tolerance,
    replicas: u32,
    samples: &[Sample],
    mut sum: Sum,
) -> Option<u32> {
    let ratio = sum.reading(unit)? as f64 / target as f64;
    for sample in samples {
        match sample.class {
            Class::WithoutMetrics if ratio < 1.0 => {
                let busy = match unit {
                    Unit::Percent => i128::from(sample.request) * i128::from(target.max(100)) / 100,
                    Unit::Millicores | Unit::Thousandths => target.into(),
                };
                sum.add(sample, busy);
            }
            Class::WithoutMetrics | Class::NotReady if ratio > 1.0 => sum.add(sample, 0),
            _ => {}
        }
    }
    let cautious = sum.reading(unit)? as f64 / target as f64;
    let recommended = ceil(cautious * sum.measured as f64);
    let turned = (ratio < 1.0 && cautious > 1.0)
        || (ratio > 1.0 && cautious < 1.0)
        || (cautious < 1.0 && recommended > replicas)
        || (cautious > 1.0 && recommended < replicas);
    Some(if turned || tolerance.contains(cautious) {
        replicas
    } else {
        recommended
    })
}

/// The replicas for a value that is not of resources: an average over the existing pods, or a total
/// for the ready pods.
pub fn recommend_for_value(
    reading: Reading,
    tolerance: Tolerance,
    replicas: u32,
    pods: u32,
    is_per_pod: bool,
) -> u32 {
    let pods = f64::from(pods);
    // An average is rounded up, so that the total may be a bit smaller.
    let average = if is_per_pod && pods > 0.0 {
        (((reading.current as f64 - 1.0) * pods + 1.0) / pods).max(0.0)
    } else {
        reading.current as f64
    };
    let ratio = average / reading.target as f64;
    if replicas == 0 && !is_per_pod {
        ceil(ratio)
    } else if tolerance.contains(ratio) {
        if is_per_pod { ceil(pods) } else { replicas }
    } else {
        ceil(ratio * pods)
    }
}

/// The limits that the object and the flags set, and how fast the autoscaler may move between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub min: u32,
    pub max: u32,
    pub behavior: Option<Behavior>,
    pub flags: Flags,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behavior {
    pub up: Direction,
    pub down: Direction,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Direction {
    /// The stabilisation window, in seconds, unless it is the default.
    pub window: Option<u32>,
    /// As a fraction of the target, unless it is that of the flag.
    pub tolerance: Option<f64>,
    pub select: Select,
    pub policies: Vec<Policy>,
}

impl Direction {
    fn longest_period(&self) -> u32 {
        let periods = self.policies.iter().map(|policy| policy.period);
        periods.max().unwrap_or_default()
    }
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
            flags: Flags::default(),
        }
    }
}

/// Why an autoscaler set another number than `ceil(replicas × current ÷ target)`.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Constraint {
    /// The deviation from the target is tolerated, up to this percentage.
    Tolerance {
        percent: u32,
    },
    /// Pods are not ready: they count as idle when scaling up, and not at all when scaling down.
    NotReady {
        pods: u32,
    },
    /// The usage of pods is unknown: they count as idle when scaling up, as busy when scaling down.
    WithoutMetrics {
        pods: u32,
    },
    /// Another number of pods than of replicas was counted.
    Counted {
        pods: u32,
    },
    /// An earlier recommendation holds.
    #[serde(rename = "window")]
    StabilisationWindow {
        seconds: u32,
    },
    /// The largest step leads to this many replicas.
    LargestStep {
        replicas: u32,
    },
    /// `selectPolicy: Disabled`.
    Disabled,
    Maximum {
        replicas: u32,
    },
    Minimum {
        replicas: u32,
    },
}

impl Constraint {
    /// A short name, for a chart.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tolerance { .. } => "tolerance",
            Self::NotReady { .. } => "not ready",
            Self::WithoutMetrics { .. } => "no metrics",
            Self::Counted { .. } => "pods counted",
            Self::StabilisationWindow { .. } => "window",
            Self::LargestStep { .. } => "largest step",
            Self::Disabled => "disabled",
            Self::Maximum { .. } => "maximum",
            Self::Minimum { .. } => "minimum",
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tolerance { percent } => write!(f, "within the tolerance of {percent} %"),
            Self::NotReady { pods } => write!(f, "{pods} not ready"),
            Self::WithoutMetrics { pods } => write!(f, "{pods} without metrics"),
            Self::Counted { pods } => write!(f, "{pods} pods counted"),
            Self::StabilisationWindow { seconds } => {
                write!(f, "stabilisation window of {seconds} s")
            }
            Self::LargestStep { replicas } => write!(f, "largest step, to {replicas}"),
            Self::Disabled => write!(f, "scaling in this direction is disabled"),
            Self::Maximum { replicas } => write!(f, "maximum of {replicas}"),
            Self::Minimum { replicas } => write!(f, "minimum of {replicas}"),
        }
    }
}

/// A recommendation or a change of the number of replicas.
#[derive(Clone, Debug)]
struct Past {
    moment: Moment,
    replicas: u32,
    /// A change older than any period of its direction when another one was made.
    is_outdated: bool,
}

/// A time in seconds, and by how much it may be wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    pub at: f64,
    pub error: f64,
}

impl From<f64> for Moment {
    fn from(at: f64) -> Self {
        Self { at, error: 0.0 }
    }
}

/// The memory of an autoscaler.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Each recommendation, before the windows and the limits.
    recommendations: Vec<Past>,
    /// Replicas added and removed. Without a `behavior` neither is remembered.
    added: Vec<Past>,
    removed: Vec<Past>,
}

impl History {
    /// Remembers a recommendation, in the place of one that is older than all windows.
    pub fn recommend(&mut self, rules: &Rules, moment: impl Into<Moment>, replicas: u32) {
        let moment = moment.into();
        let window = f64::from(rules.up_window().max(rules.down_window()));
        let is_old = |past: &Past| moment.at - past.moment.at > window;
        remember(&mut self.recommendations, moment, replicas, is_old);
    }

    /// Remembers a change of the number of replicas, in the place of one that is outdated.
    pub fn scale(&mut self, rules: &Rules, moment: impl Into<Moment>, from: u32, to: u32) {
        let Some(behavior) = &rules.behavior else {
            return;
        };
        let moment = moment.into();
        let (changes, direction) = if to > from {
            (&mut self.added, &behavior.up)
        } else {
            (&mut self.removed, &behavior.down)
        };
        let longest = f64::from(direction.longest_period());
        for change in changes.iter_mut() {
            change.is_outdated |= moment.at - change.moment.at > longest;
        }
        remember(changes, moment, to.abs_diff(from), |past| past.is_outdated);
    }

    /// What counts at a time, in seconds, if each memory was made `lateness` × its error later.
    pub fn at(&self, now: f64, lateness: f64) -> Memory<'_> {
        Memory {
            history: self,
            now,
            lateness,
        }
    }
}

fn remember(
    pasts: &mut Vec<Past>,
    moment: Moment,
    replicas: u32,
    is_replaced: impl Fn(&Past) -> bool,
) {
    let past = Past {
        moment,
        replicas,
        is_outdated: false,
    };
    match pasts.iter().rposition(is_replaced) {
        Some(replaced) => pasts[replaced] = past,
        None => pasts.push(past),
    }
}

/// A history at a time.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    history: &'a History,
    now: f64,
    lateness: f64,
}

impl Memory<'_> {
    fn within(self, pasts: &[Past], seconds: u32) -> impl Iterator<Item = u32> {
        let is_within = move |past: &&Past| {
            let at = past.moment.at + self.lateness * past.moment.error;
            self.now - at < f64::from(seconds)
        };
        pasts.iter().filter(is_within).map(|past| past.replicas)
    }

    fn recommended_within(self, window: u32) -> impl Iterator<Item = u32> {
        self.within(&self.history.recommendations, window)
    }

    /// The replicas when a policy's period began, as far as they are remembered.
    fn replicas_before(self, replicas: u32, period: u32) -> f64 {
        let changed = |changes| self.within(changes, period).map(f64::from).sum::<f64>();
        f64::from(replicas) - changed(&self.history.added) + changed(&self.history.removed)
    }
}

impl Rules {
    pub fn tolerance(&self) -> Tolerance {
        let behavior = self.behavior.as_ref();
        let own =
            |tolerance: Option<Option<f64>>| tolerance.flatten().unwrap_or(self.flags.tolerance);
        Tolerance {
            up: own(behavior.map(|behavior| behavior.up.tolerance)),
            down: own(behavior.map(|behavior| behavior.down.tolerance)),
        }
    }

    /// The window, in seconds, whose lowest recommendation counts when scaling up.
    pub fn up_window(&self) -> u32 {
        let behavior = self.behavior.as_ref();
        behavior
            .and_then(|behavior| behavior.up.window)
            .unwrap_or_default()
    }

    /// The window, in seconds, whose highest recommendation counts.
    pub fn down_window(&self) -> u32 {
        let behavior = self.behavior.as_ref();
        let own = behavior.and_then(|behavior| behavior.down.window);
        own.unwrap_or(self.flags.downscale_stabilisation)
    }

    /// The longest period of any policy, in seconds.
    pub fn longest_period(&self) -> u32 {
        let directions = self.behavior.iter().flat_map(|one| [&one.up, &one.down]);
        directions
            .map(Direction::longest_period)
            .max()
            .unwrap_or_default()
    }

    /// The same rules with policies that allow any change.
    pub fn with_any_step(&self) -> Self {
        let mut rules = self.clone();
        for direction in rules
            .behavior
            .iter_mut()
            .flat_map(|one| [&mut one.up, &mut one.down])
        {
            direction.policies = vec![Policy {
                amount: Amount::Pods(u32::MAX),
                period: 1,
            }];
        }
        rules
    }

    /// The bound that this many replicas exceed: they are set back to it, whatever the metrics are.
    pub fn bound(&self, replicas: u32) -> Option<(u32, Constraint)> {
        if replicas > self.max {
            Some((self.max, Constraint::Maximum { replicas: self.max }))
        } else if replicas < self.min && replicas > 0 {
            Some((self.min, Constraint::Minimum { replicas: self.min }))
        } else {
            None
        }
    }

    /// The bound, if the formula exceeds it and the result is that bound, unless it is named already.
    pub fn bound_of(&self, formula: u32, result: u32, named: &[Constraint]) -> Option<Constraint> {
        let bound = if formula > self.max && result == self.max {
            Constraint::Maximum { replicas: self.max }
        } else if formula < self.min && result == self.min {
            Constraint::Minimum { replicas: self.min }
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
        memory: Memory<'_>,
    ) -> (u32, Vec<Constraint>) {
        let (stable, window) = self.stabilise(replicas, recommended, memory);
        let (result, limit) = self.limit(replicas, stable, memory);
        (result, window.into_iter().chain(limit).collect())
    }

    /// Without a `behavior` the highest recommendation of the window is the goal. With one, the
    /// replicas stay between the lowest of one window and the highest of the other.
    fn stabilise(
        &self,
        replicas: u32,
        recommended: u32,
        memory: Memory<'_>,
    ) -> (u32, Option<Constraint>) {
        let highest = |window| {
            let earlier = memory.recommended_within(window).max();
            earlier.map_or(recommended, |earlier| earlier.max(recommended))
        };
        let highest = highest(self.down_window());
        let stable = if self.behavior.is_none() {
            highest
        } else {
            let earlier = memory.recommended_within(self.up_window()).min();
            let lowest = earlier.map_or(recommended, |earlier| earlier.min(recommended));
            replicas.max(lowest).min(highest)
        };
        let window = match stable.cmp(&recommended) {
            Ordering::Less => Some(self.up_window()),
            Ordering::Equal => None,
            Ordering::Greater => Some(self.down_window()),
        };
        (
            stable,
            window.map(|seconds| Constraint::StabilisationWindow { seconds }),
        )
    }

    fn limit(&self, replicas: u32, wanted: u32, memory: Memory<'_>) -> (u32, Option<Constraint>) {
        let step = |step, direction: Option<&Direction>| match direction {
            Some(direction) if direction.select == Select::Disabled => Constraint::Disabled,
            _ => Constraint::LargestStep { replicas: step },
        };
        let direction = |up: bool| {
            let behavior = self.behavior.as_ref()?;
            Some(if up { &behavior.up } else { &behavior.down })
        };
        // Without a `behavior` the bounds hold for replicas that stay, too.
        let moves = |moves| self.behavior.is_none() || moves;
        if moves(wanted > replicas) {
            let highest = self.highest(replicas, memory);
            if wanted > self.max.min(highest) {
                return if self.max <= highest {
                    (self.max, Some(Constraint::Maximum { replicas: self.max }))
                } else {
                    (highest, Some(step(highest, direction(true))))
                };
            }
        }
        if moves(wanted < replicas) {
            let lowest = self.lowest(replicas, memory);
            if wanted < self.min.max(lowest) {
                return if self.min >= lowest {
                    (self.min, Some(Constraint::Minimum { replicas: self.min }))
                } else {
                    (lowest, Some(step(lowest, direction(false))))
                };
            }
        }
        (wanted, None)
    }

    /// The most replicas that one step may lead to, apart from the maximum.
    pub fn highest(&self, replicas: u32, memory: Memory<'_>) -> u32 {
        let Some(Behavior { up, .. }) = &self.behavior else {
            return replicas.saturating_mul(2).max(FIRST_STEP);
        };
        let allowed = up.policies.iter().map(|policy| {
            let before = memory.replicas_before(replicas, policy.period);
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

    fn lowest(&self, replicas: u32, memory: Memory<'_>) -> u32 {
        let Some(Behavior { down, .. }) = &self.behavior else {
            return 0;
        };
        let allowed = down.policies.iter().map(|policy| {
            let before = memory.replicas_before(replicas, policy.period);
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

    fn up_to_20() -> Rules {
        Rules {
            max: 20,
            ..Rules::default()
        }
    }

    fn tolerance() -> Tolerance {
        Rules::default().tolerance()
    }

    fn sample(class: Class, usage: i64) -> Sample {
        Sample {
            class,
            pods: 1,
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
        let tolerance = tolerance();
        let recommended = recommend(50, Unit::Percent, tolerance, replicas, &samples, &[]);
        recommended.expect("some are counted").replicas
    }

    /// The replicas that are set after these recommendations, each with seconds before now and replicas.
    fn set(rules: &Rules, replicas: u32, recommended: u32, earlier: &[(f64, u32)]) -> u32 {
        let mut history = History::default();
        for (ago, replicas) in earlier {
            history.recommend(rules, -ago, *replicas);
        }
        rules
            .normalise(replicas, recommended, history.at(0.0, 0.0))
            .0
    }

    #[test]
    fn a_recommendation_expires_after_the_window() {
        let ones = (1..20).map(|sync| (f64::from(sync) * 15.02, 1));
        let earlier: Vec<_> = [(300.4, 2)].into_iter().chain(ones).collect();
        assert_eq!(set(&up_to_20(), 2, 1, &earlier), 1);
        assert_eq!(set(&up_to_20(), 2, 1, &[(285.4, 2)]), 2);
    }

    #[test]
    fn without_a_behavior_the_highest_recommendation_is_the_goal_upwards_too() {
        assert_eq!(set(&up_to_20(), 4, 4, &[(15.0, 5)]), 5);
        assert_eq!(
            set(&up_to_20(), 4, 4, &[(15.0, 10)]),
            8,
            "twice as many at most"
        );
        assert_eq!(set(&up_to_20(), 4, 1, &[(15.0, 10)]), 8);
        let rules = Rules {
            behavior: Some(behavior(15, 15)),
            ..up_to_20()
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
        let tolerance = tolerance();
        let with = |gone: &[i64]| {
            recommend(50, Unit::Percent, tolerance, 2, &samples, gone).map(|one| one.replicas)
        };
        // 100 % of two pods, and of four.
        assert_eq!((with(&[]), with(&[3, 4])), (Some(4), Some(8)));
    }

    /// The default, with a window and a period of 60 s in which 2 pods may go.
    fn behavior(up: u32, down: u32) -> Behavior {
        let policy = |amount, period| Policy { amount, period };
        Behavior {
            up: Direction {
                window: Some(up),
                policies: vec![
                    policy(Amount::Pods(4), 15),
                    policy(Amount::Percent(100), 15),
                ],
                ..Direction::default()
            },
            down: Direction {
                window: Some(down),
                policies: vec![policy(Amount::Pods(2), 60)],
                ..Direction::default()
            },
        }
    }

    #[test]
    fn a_change_older_than_the_periods_of_its_direction_is_overwritten() {
        let rules = Rules {
            behavior: Some(behavior(0, 0)),
            ..up_to_20()
        };
        let mut history = History::default();
        history.scale(&rules, -40.0, 2, 6);
        history.scale(&rules, -20.0, 6, 10);
        assert_eq!(
            rules.normalise(10, 1, history.at(0.0, 0.0)),
            (4, vec![Constraint::LargestStep { replicas: 4 }])
        );
    }

    #[test]
    fn a_value_per_pod_is_a_total_divided_by_the_pods() {
        let reading = |current| Reading {
            current,
            target: 10_000,
            unit: Unit::Thousandths,
        };
        let tolerance = tolerance();
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

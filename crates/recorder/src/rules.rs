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
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::thousandths;

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
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
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

    /// `ceil(replicas × current ÷ target)`. Without replicas the value is the total, not an
    /// average.
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
        let is_as_read = pods.without_metrics == 0 && (ratio <= 1.0 || pods.not_ready == 0);
        if is_as_read && tolerance.contains(ratio) {
            let Tolerance { up, down } = tolerance;
            let side = if ratio < 1.0 { down } else { up };
            let percent = (side * 100.0).round() as u32;
            return vec![Constraint::Tolerance { percent }];
        }
        let mut constraints = Vec::new();
        if pods.not_ready > 0 {
            let pods = pods.not_ready;
            constraints.push(Constraint::NotReady { pods });
        }
        if pods.without_metrics > 0 {
            let pods = pods.without_metrics;
            constraints.push(Constraint::WithoutMetrics { pods });
        }
        if constraints.is_empty() {
            let pods = pods.counted;
            constraints.push(Constraint::Counted { pods });
        }
        constraints
    }
}

/// What decides how a pod is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PodState {
    pub started: Option<Timestamp>,
    /// Whether it is ready, and since when.
    pub readiness: Option<(Readiness, Timestamp)>,
    pub pending: bool,
    /// Failed, or being deleted: an autoscaler ignores it.
    pub leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Readiness {
    Ready,
    NotReady,
    /// Its node is lost. It counts as ready.
    Unknown,
}

/// The time over which usage was averaged.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct MetricsWindow {
    #[serde(rename = "timestamp")]
    pub ended: Timestamp,
    #[serde(rename = "window")]
    pub length: SignedDuration,
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
    /// It no longer exists, but the metrics API still reports its usage.
    Gone,
}

impl Class {
    /// How a pod is counted, if its usage was measured over `window`. Readiness only matters for
    /// CPU.
    pub fn of(pod: PodState, window: Option<MetricsWindow>, is_cpu: bool, now: Timestamp) -> Self {
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

/// Pods that are alike, with the usage and the request of each, in thousandths.
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

impl FromIterator<(Class, u32)> for Pods {
    fn from_iter<P: IntoIterator<Item = (Class, u32)>>(classes: P) -> Self {
        let mut all = Self::default();
        for (class, pods) in classes {
            match class {
                Class::Counted => all.counted = all.counted.saturating_add(pods),
                Class::NotReady => all.not_ready += pods,
                Class::WithoutMetrics => all.without_metrics += pods,
                Class::Ignored | Class::Gone => {}
            }
        }
        all
    }
}

impl Pods {
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
    /// The pods that are summed up, with those that are gone.
    measured: i128,
}

impl Sum {
    /// Sums up the pods that have a usage by this function, and those that are gone.
    fn of(samples: &[Sample], unit: Unit, usage: impl Fn(&Sample) -> Option<i128>) -> Self {
        let mut sum = Self::default();
        for sample in samples {
            let pods = i128::from(sample.pods);
            if let Some(usage) = usage(sample) {
                sum.usage += usage * pods;
                sum.request += i128::from(sample.request) * pods;
                sum.measured += pods;
            } else if sample.class == Class::Gone {
                // Without a request it has no percentage.
                if unit != Unit::Percent {
                    sum.usage += i128::from(sample.usage) * pods;
                }
                sum.measured += pods;
            }
        }
        sum
    }

    fn reading(&self, unit: Unit) -> Option<i64> {
        let reading = match unit {
            Unit::Percent => (self.usage * 100).checked_div(self.request),
            Unit::Millicores | Unit::Thousandths => self.usage.checked_div(self.measured),
        };
        reading.map(saturate)
    }
}

fn saturate(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// The recommendation for a metric of resources, unless no usage can be read. Target and usage are
/// percent of the request or thousandths.
pub fn recommend(
    target: i64,
    unit: Unit,
    tolerance: Tolerance,
    replicas: u32,
    samples: &[Sample],
) -> Option<Recommendation> {
    let pods: Pods = samples.iter().map(|one| (one.class, one.pods)).collect();
    let counted =
        |sample: &Sample| (sample.class == Class::Counted).then(|| i128::from(sample.usage));
    let sum = Sum::of(samples, unit, counted);
    let current = sum.reading(unit)?;
    let ratio = current as f64 / target as f64;
    let is_cautious = pods.not_ready > 0 && ratio > 1.0 || pods.without_metrics > 0;
    let recommended = if is_cautious {
        // Pods without metrics count as busy when scaling down and as idle when scaling up, and
        // pods that are not ready as idle when scaling up.
        let assumed = |sample: &Sample| match sample.class {
            Class::WithoutMetrics if ratio < 1.0 => Some(match unit {
                Unit::Percent => i128::from(sample.request) * i128::from(target.max(100)) / 100,
                Unit::Millicores | Unit::Thousandths => target.into(),
            }),
            Class::WithoutMetrics | Class::NotReady if ratio > 1.0 => Some(0),
            _ => counted(sample),
        };
        let sum = Sum::of(samples, unit, assumed);
        let cautious = sum.reading(unit)? as f64 / target as f64;
        let recommended = ceil(cautious * sum.measured as f64);
        let turns = (ratio < 1.0 && (cautious > 1.0 || recommended > replicas))
            || (ratio > 1.0 && (cautious < 1.0 || recommended < replicas));
        if turns || tolerance.contains(cautious) {
            replicas
        } else {
            recommended
        }
    } else if tolerance.contains(ratio) {
        replicas
    } else {
        ceil(ratio * f64::from(pods.counted))
    };
    Some(Recommendation {
        current,
        average: match unit {
            Unit::Percent => saturate(sum.usage.checked_div(pods.counted.into())?),
            Unit::Millicores | Unit::Thousandths => current,
        },
        replicas: recommended,
        pods,
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
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
    pub flags: Flags,
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
    Window {
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
            Self::Window { .. } => "window",
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
            Self::Window { seconds } => write!(f, "stabilisation window of {seconds} s"),
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
        let Some(direction) = rules.direction(to > from) else {
            return;
        };
        let moment = moment.into();
        let changes = if to > from {
            &mut self.added
        } else {
            &mut self.removed
        };
        let longest = f64::from(longest_period(direction));
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
            step: None,
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
    /// A direction, up or not, and where its largest step leads, unless that follows from the
    /// history.
    step: Option<(bool, u32)>,
}

impl Memory<'_> {
    pub fn with_step(self, step: Option<(bool, u32)>) -> Self {
        Self { step, ..self }
    }

    fn within(self, pasts: &[Past], seconds: f64) -> impl Iterator<Item = u32> {
        let is_within = move |past: &&Past| {
            let at = past.moment.at + self.lateness * past.moment.error;
            self.now - at < seconds
        };
        pasts.iter().filter(is_within).map(|past| past.replicas)
    }

    fn recommended_within(self, window: u32) -> impl Iterator<Item = u32> {
        self.within(&self.history.recommendations, window.into())
    }

    /// The replicas when a policy's period began, as far as they are remembered.
    fn replicas_before(self, replicas: u32, period: i32) -> f64 {
        let changed = |changes| {
            let within = self.within(changes, period.into());
            within.map(f64::from).sum::<f64>()
        };
        f64::from(replicas) - changed(&self.history.added) + changed(&self.history.removed)
    }
}

fn longest_period(rules: &HPAScalingRules) -> u32 {
    let policies = rules.policies.iter().flatten();
    let periods = policies.map(|policy| u32::try_from(policy.period_seconds).unwrap_or_default());
    periods.max().unwrap_or_default()
}

impl Rules {
    /// Those of a direction, unless there is no `behavior`; the API server completes each.
    fn direction(&self, up: bool) -> Option<&HPAScalingRules> {
        let behavior = self.behavior.as_ref()?;
        let direction = if up {
            &behavior.scale_up
        } else {
            &behavior.scale_down
        };
        direction.as_ref()
    }

    fn directions(&self) -> [Option<&HPAScalingRules>; 2] {
        [true, false].map(|up| self.direction(up))
    }

    pub fn tolerance(&self) -> Tolerance {
        let [up, down] = self.directions().map(|direction| {
            let own = direction.and_then(|one| thousandths(one.tolerance.as_ref()?));
            own.map_or(self.flags.tolerance, |own| own as f64 / 1000.0)
        });
        Tolerance { up, down }
    }

    /// The window, in seconds, whose lowest recommendation counts when scaling up.
    pub fn up_window(&self) -> u32 {
        self.window(true).unwrap_or_default()
    }

    /// The window, in seconds, whose highest recommendation counts.
    pub fn down_window(&self) -> u32 {
        let default = self.flags.downscale_stabilisation;
        self.window(false).unwrap_or(default)
    }

    fn window(&self, up: bool) -> Option<u32> {
        let seconds = self.direction(up)?.stabilization_window_seconds?;
        seconds.try_into().ok()
    }

    /// The longest period of any policy, in seconds.
    pub fn longest_period(&self) -> u32 {
        let directions = self.directions().into_iter().flatten();
        directions.map(longest_period).max().unwrap_or_default()
    }

    /// The bound that this many replicas exceed: they are set back to it, whatever the metrics are.
    pub fn bound(&self, replicas: u32) -> Option<(u32, Constraint)> {
        if replicas > self.max {
            Some((self.max, Constraint::Maximum { replicas: self.max }))
        } else if replicas < self.min {
            Some((self.min, Constraint::Minimum { replicas: self.min }))
        } else {
            None
        }
    }

    /// The replicas that a recommendation leads to, and the constraints.
    pub fn normalise(
        &self,
        replicas: u32,
        recommended: u32,
        memory: Memory<'_>,
    ) -> (u32, Vec<Constraint>) {
        let stable = self.stabilise(replicas, recommended, memory);
        let window = match stable.cmp(&recommended) {
            Ordering::Less => Some(self.up_window()),
            Ordering::Equal => None,
            Ordering::Greater => Some(self.down_window()),
        };
        let window = window.map(|seconds| Constraint::Window { seconds });
        let (result, limit) = self.limit(replicas, stable, memory);
        (result, window.into_iter().chain(limit).collect())
    }

    /// Without a `behavior` the highest recommendation of the window is the goal. With one, the
    /// replicas stay between the lowest of one window and the highest of the other.
    fn stabilise(&self, replicas: u32, recommended: u32, memory: Memory<'_>) -> u32 {
        let earlier = memory.recommended_within(self.down_window());
        let highest = earlier.fold(recommended, u32::max);
        if self.behavior.is_none() {
            return highest;
        }
        let earlier = memory.recommended_within(self.up_window());
        let lowest = earlier.fold(recommended, u32::min);
        replicas.max(lowest).min(highest)
    }

    fn limit(&self, replicas: u32, wanted: u32, memory: Memory<'_>) -> (u32, Option<Constraint>) {
        let bound = self.bound(wanted);
        let bounded = bound.map_or(wanted, |(bound, _)| bound);
        let up = wanted > replicas;
        let step = memory.step.filter(|(assumed_up, _)| *assumed_up == up);
        let step = step.map_or_else(|| self.largest_step(up, replicas, memory), |(_, step)| step);
        let result = if up {
            bounded.min(step)
        } else {
            bounded.max(step)
        };
        if result == bounded {
            return (result, bound.map(|(_, constraint)| constraint));
        }
        let rules = self.direction(up);
        let select = rules.and_then(|rules| rules.select_policy.as_deref());
        let constraint = match select {
            Some("Disabled") => Constraint::Disabled,
            _ => Constraint::LargestStep { replicas: step },
        };
        (result, Some(constraint))
    }

    /// Where one step leads at most, apart from the bounds.
    pub fn largest_step(&self, up: bool, replicas: u32, memory: Memory<'_>) -> u32 {
        let Some(rules) = self.direction(up) else {
            let most = replicas.saturating_mul(2).max(FIRST_STEP);
            return if up { most } else { 0 };
        };
        // The numbers of replicas are negative downwards, so that the largest is the farthest.
        let sign = if up { 1.0 } else { -1.0 };
        let policies = rules.policies.iter().flatten();
        let steps = policies.map(|policy| {
            let before = memory.replicas_before(replicas, policy.period_seconds);
            let value = f64::from(policy.value);
            match policy.type_.as_str() {
                "Percent" => (sign * (before * (1.0 + sign * value / 100.0))).ceil(),
                _ => sign * before + value,
            }
        });
        let step = match rules.select_policy.as_deref() {
            Some("Disabled") => None,
            Some("Min") => steps.reduce(f64::min),
            _ => steps.reduce(f64::max),
        };
        let step = step.map_or(replicas, |step| ceil(sign * step));
        if up {
            step.max(replicas)
        } else {
            step.min(replicas)
        }
    }
}

/// Never below zero.
fn ceil(replicas: f64) -> u32 {
    replicas.ceil() as u32
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(behavior: Value) -> Rules {
        Rules {
            min: 1,
            max: 10,
            behavior: serde_json::from_value(behavior).expect("it is a behavior, or null"),
            flags: Flags::default(),
        }
    }

    #[test]
    fn pods_that_are_gone_still_count_while_they_have_metrics() {
        let sample = |class, usage, request| Sample {
            class,
            pods: 1,
            usage,
            request,
        };
        let present = [
            sample(Class::Counted, 200, 100),
            sample(Class::NotReady, 200, 100),
        ];
        let gone = [sample(Class::Gone, 3, 0), sample(Class::Gone, 4, 0)];
        let recommended = |samples: &[Sample]| {
            let tolerance = rules(Value::Null).tolerance();
            let recommended = recommend(50, Unit::Percent, tolerance, 2, samples);
            recommended.map(|one| one.replicas)
        };
        // 100 % of two pods, and of four.
        assert_eq!(recommended(&present), Some(4));
        assert_eq!(recommended(&[present, gone].concat()), Some(8));
    }

    #[test]
    fn a_value_per_pod_is_a_total_divided_by_the_pods() {
        let tolerance = rules(Value::Null).tolerance();
        let recommended = |current, pods, is_per_pod| {
            let reading = Reading {
                current,
                target: 10_000,
                unit: Unit::Thousandths,
            };
            recommend_for_value(reading, tolerance, pods, pods, is_per_pod)
        };
        // 10 in all: 3.334 for each of three pods.
        assert_eq!(recommended(3334, 3, true), 1);
        assert_eq!(recommended(60_000, 1, true), 6);
        assert_eq!(recommended(10_500, 4, false), 4);
    }

    #[test]
    fn what_was_too_old_to_count_was_overwritten() {
        let window = |window| {
            let mut rules = rules(Value::Null);
            rules.flags.downscale_stabilisation = window;
            rules
        };
        let mut history = History::default();
        history.recommend(&window(15), -40.0, 9);
        history.recommend(&window(15), -20.0, 5);
        assert_eq!(window(300).normalise(5, 1, history.at(0.0, 0.0)).0, 5);

        let direction = |seconds: u32, pods: u32| {
            let policy = json!({"type": "Pods", "value": pods, "periodSeconds": seconds});
            json!({"stabilizationWindowSeconds": 0, "policies": [policy]})
        };
        let rules = rules(json!({"scaleUp": direction(15, 4), "scaleDown": direction(60, 2)}));
        history.scale(&rules, -40.0, 2, 6);
        history.scale(&rules, -20.0, 6, 10);
        // Of the last minute 4 pods are known, not 8.
        assert_eq!(rules.normalise(10, 1, history.at(0.0, 0.0)).0, 4);
    }
}

//! Repeats one computation of an autoscaler, which explains its decision.
//!
//! Pods, usage and earlier computations may have been seen at other times than the autoscaler saw
//! them, so there are several possible inputs. What its conditions say about the computation
//! decides between them.

use std::{cmp::Reverse, mem::discriminant};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    evidence::Evidence,
    objects::{Autoscaler, Metric, MetricKind, Pod},
    rules::{Constraint, Memory, Pods, Reading, Sample, recommend, recommend_for_value},
};

const ALIKE: &str = "assuming that all pods use and request the same";
const NO_WINDOW: &str = "assuming that no window held";
const SEEN_PODS: &str = "assuming that it counted the pods that were seen";
const RESTARTED: &str = "assuming that the controller manager was restarted";

/// A change of the number of replicas, or a computation that made none although the formula asked
/// for one.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Serialize)]
pub struct Decision {
    /// In seconds since the traffic started.
    #[serde(rename = "seconds")]
    pub at: f64,
    /// When it was last made, and how often in succession.
    #[serde(rename = "last_seconds")]
    pub until: f64,
    #[serde(rename = "count")]
    pub times: u32,
    #[serde(rename = "from_replicas")]
    pub from: u32,
    #[serde(rename = "to_replicas")]
    pub to: u32,
    /// The metric that decided, as the autoscaler names it, if it has several.
    pub metric: Option<String>,
    /// The reading of that metric; there is none if a bound alone decided.
    pub reading: Option<Reading>,
    /// `ceil(from × current ÷ target)`.
    #[serde(rename = "computed_replicas")]
    pub computed: Option<u32>,
    /// The recommendation of the metrics, before the windows and the limits, unless it rests on
    /// what the remark assumes.
    #[serde(rename = "recommended_replicas")]
    pub recommended: Option<u32>,
    /// The rules that led to another number than the computed one.
    pub constraints: Vec<Constraint>,
    /// The result of the rules, if it differs from the decision.
    #[serde(rename = "expected_replicas")]
    pub by_rules: Option<u32>,
    /// What is assumed, or else what the autoscaler says if the rules do not explain the decision.
    pub remark: Option<String>,
}

impl Decision {
    pub fn new(at: f64, from: u32, to: u32) -> Self {
        Self {
            at,
            until: at,
            times: 1,
            from,
            to,
            ..Self::default()
        }
    }

    /// Adds the computation that led to it.
    pub fn explain(&mut self, autoscaler: &Autoscaler, computation: Computation) {
        let candidate = computation.candidate;
        let assumption = candidate.assumption;
        self.recommended = Some(candidate.recommended).filter(|_| assumption.is_none());
        let restarted = computation.is_restarted.then_some(RESTARTED);
        self.remark = restarted.or(assumption).map(Into::into);
        self.constraints = computation.constraints;
        if let Some(metric) = candidate.metric {
            let several = autoscaler.metrics.len() > 1;
            self.metric = several.then(|| autoscaler.deciding_metric(metric));
            self.reading = metric.reading();
            self.computed = self.reading.map(|reading| reading.formula(self.from));
            // Only the autoscaler knows the inputs of a value that is not about the pods.
            let is_other = !computation.agrees && computation.result != self.to;
            self.by_rules = (is_other && metric.is_resource()).then_some(computation.result);
        }
    }

    /// Whether it is worth a row.
    pub fn is_noteworthy(&self) -> bool {
        self.from != self.to || self.computed.is_some_and(|computed| computed != self.to)
    }

    /// Whether both changed nothing, for the same reasons.
    pub fn is_like(&self, other: &Self) -> bool {
        let reasons = |row: &Self| row.constraints.iter().map(discriminant).collect::<Vec<_>>();
        self.from == self.to
            && (self.from, self.to) == (other.from, other.to)
            && self.metric == other.metric
            && reasons(self) == reasons(other)
            && self.by_rules.is_some() == other.by_rules.is_some()
    }
}

/// The computation that fits the status of an autoscaler best.
pub struct Computation<'a> {
    pub candidate: Candidate<'a>,
    pub result: u32,
    pub constraints: Vec<Constraint>,
    /// Whether the result and the constraints are those of the status.
    pub agrees: bool,
    /// Whether its memory was assumed to be empty.
    pub is_restarted: bool,
}

/// The recommendation that some evidence leads to.
#[derive(Clone)]
pub struct Candidate<'a> {
    /// The metric that decides, if that is known.
    pub metric: Option<&'a Metric>,
    pub recommended: u32,
    /// What had to be assumed, since what was seen does not decide.
    pub assumption: Option<&'static str>,
    /// The pods that were counted, if it is a metric of resources.
    pods: Option<Pods>,
    /// The number of metrics whose reading is exactly that of the status.
    exact: usize,
}

/// What the conditions of an autoscaler say about a computation.
pub struct Said<'a> {
    /// Whether an earlier recommendation held. Nothing is said if the replicas were changed.
    is_held: Option<bool>,
    /// The reason of the condition `ScalingLimited`.
    limit: Option<&'a str>,
}

const WITHIN: &str = "DesiredWithinRange";

impl<'a> Said<'a> {
    pub fn of(autoscaler: &'a Autoscaler) -> Self {
        let reason = |kind| autoscaler.condition(kind)?.reason.as_deref();
        Self {
            is_held: match reason("AbleToScale") {
                Some("ReadyForNewScale") => Some(false),
                Some("ScaleDownStabilized" | "ScaleUpStabilized") => Some(true),
                _ => None,
            },
            limit: reason("ScalingLimited"),
        }
    }

    /// Whether the replicas that were set are exactly those that were recommended.
    fn is_unconstrained(&self) -> bool {
        self.is_held == Some(false) && self.limit == Some(WITHIN)
    }

    /// Whether it says anything that depends on the memory of the autoscaler.
    pub fn is_about_memory(&self) -> bool {
        self.is_held.is_some() || matches!(self.limit, Some("ScaleUpLimit" | "ScaleDownLimit"))
    }

    /// Whether these constraints are what the conditions say.
    fn agrees(&self, constraints: &[Constraint]) -> bool {
        let is_window = |one: &Constraint| matches!(one, Constraint::Window { .. });
        let is_held = constraints.iter().any(is_window);
        let is_limit = match constraints.iter().find(|one| !is_window(one)) {
            None => self.limit == Some(WITHIN),
            Some(Constraint::Maximum { .. }) => self.limit == Some("TooManyReplicas"),
            Some(Constraint::Minimum { .. }) => self.limit == Some("TooFewReplicas"),
            Some(_) => matches!(self.limit, Some("ScaleUpLimit" | "ScaleDownLimit")),
        };
        self.is_held.is_none_or(|said| said == is_held) && (self.limit.is_none() || is_limit)
    }

    /// An earlier recommendation that leads to this many replicas.
    pub fn earlier(&self, to: u32) -> u32 {
        match self.limit {
            Some("TooManyReplicas" | "ScaleUpLimit") => to.saturating_add(1),
            Some("TooFewReplicas" | "ScaleDownLimit") => to.saturating_sub(1),
            _ => to,
        }
    }

    /// The direction of a change, up or not, and where its largest step leads if earlier changes
    /// allow exactly this one, or any.
    pub fn step(&self, from: u32, to: u32) -> (bool, u32) {
        match self.limit {
            Some("ScaleUpLimit") => (true, to),
            Some("ScaleDownLimit") => (false, to),
            _ if to > from => (true, u32::MAX),
            _ => (false, 0),
        }
    }
}

impl<'a> Computation<'a> {
    /// The likeliest computation by any of this evidence and any of these memories, of which the
    /// likelier ones are first. A memory is that of a restarted controller manager, or not.
    pub fn repeat(
        autoscaler: &'a Autoscaler,
        said: &Said,
        evidence: &[Evidence],
        memories: &[(bool, Memory)],
    ) -> Option<Self> {
        let candidates = evidence.iter().filter_map(|one| one.candidate(autoscaler));
        let mut candidates: Vec<_> = candidates.collect();
        candidates.extend(implied(autoscaler, said, &candidates));
        let all = candidates.iter().flat_map(|candidate| {
            let of = move |memory| Self::new(autoscaler, said, candidate, memory);
            memories.iter().copied().map(of)
        });
        all.min_by_key(|one| (!one.agrees, one.is_restarted, Reverse(one.candidate.exact)))
    }

    fn new(
        autoscaler: &Autoscaler,
        said: &Said,
        candidate: &Candidate<'a>,
        (is_restarted, memory): (bool, Memory),
    ) -> Self {
        let (rules, from) = (&autoscaler.rules, autoscaler.from);
        let mut candidate = candidate.clone();
        let (result, limits) = rules.normalise(from, candidate.recommended, memory);
        let agrees = result == autoscaler.to && said.agrees(&limits);
        if agrees && said.is_unconstrained() {
            candidate.assumption = None;
        }
        let mut constraints = Vec::new();
        let reading = candidate.metric.and_then(Metric::reading);
        if let (Some(reading), Some(pods)) = (reading, candidate.pods) {
            let tolerance = rules.tolerance();
            constraints = reading.constraints(tolerance, from, candidate.recommended, pods);
        }
        constraints.extend(limits);
        // The formula may exceed a bound at which something else stopped before.
        if let Some((bound, constraint)) = reading.and_then(|one| rules.bound(one.formula(from)))
            && bound == result
            && !constraints.contains(&constraint)
        {
            constraints.push(constraint);
        }
        Self {
            candidate,
            result,
            constraints,
            agrees,
            is_restarted,
        }
    }
}

/// The recommendation that the conditions imply, unless what was seen certainly leads to another
/// one: without a window and a limit it is the number that was set.
fn implied<'a>(
    autoscaler: &Autoscaler,
    said: &Said,
    candidates: &[Candidate<'a>],
) -> Option<Candidate<'a>> {
    let to = autoscaler.to;
    let is_possible = said.limit == Some(WITHIN) && said.is_held != Some(true);
    if !is_possible || candidates.iter().any(|one| one.recommended == to) {
        return None;
    }
    let likeliest = candidates.iter().find(|one| one.assumption.is_some());
    if likeliest.is_none() && !candidates.is_empty() {
        return None;
    }
    Some(Candidate {
        metric: likeliest.and_then(|one| one.metric),
        recommended: to,
        assumption: Some(NO_WINDOW).filter(|_| said.is_held.is_none()),
        pods: likeliest.and_then(|one| one.pods),
        exact: 0,
    })
}

impl Evidence<'_> {
    /// The recommendation of the metric that decides: the one that the autoscaler names, or else
    /// the one with the most replicas.
    fn candidate<'a>(&self, autoscaler: &'a Autoscaler) -> Option<Candidate<'a>> {
        let metrics = autoscaler.metrics.iter();
        let candidates = metrics.filter_map(|metric| self.recommend(metric, autoscaler));
        let candidates: Vec<_> = candidates.collect();
        let exact = candidates.iter().map(|one| one.exact).sum();
        let largest = candidates.iter().rev().max_by_key(|one| one.recommended)?;
        let named = autoscaler.named_metric();
        let deciding = candidates.iter().find(|one| one.metric == named);
        Some(Candidate {
            exact,
            ..deciding.unwrap_or(largest).clone()
        })
    }

    /// The recommendation for one metric; `None` while it fails.
    fn recommend<'a>(&self, metric: &'a Metric, autoscaler: &Autoscaler) -> Option<Candidate<'a>> {
        let reading = metric.reading()?;
        let (from, tolerance) = (autoscaler.from, autoscaler.rules.tolerance());
        if !metric.is_resource() {
            let is_per_pod = metric.kind == MetricKind::PerPod;
            let counts = |pod: &&&Pod| !pod.state.leaving && (is_per_pod || pod.is_ready());
            let pods = self.pods.values().filter(counts).count() as u32;
            let of = |pods| recommend_for_value(reading, tolerance, from, pods, is_per_pod);
            return Some(Candidate {
                metric: Some(metric),
                recommended: of(pods),
                assumption: Some(SEEN_PODS).filter(|_| of(pods) != of(from)),
                pods: None,
                exact: 0,
            });
        }
        let samples = self.measure(&metric.name, metric.container.as_deref());
        let of =
            |samples: &[Sample]| recommend(metric.target, metric.unit, tolerance, from, samples);
        let exact = of(&samples).filter(|one| {
            let is_average = metric.average.is_none_or(|average| average == one.average);
            is_average && one.current == reading.current
        });
        let is_exact = exact.is_some();
        let mut pods: Pods = samples.iter().map(|one| (one.class, one.pods)).collect();
        let is_certain = pods.counted > 0 && pods.not_ready == 0 && pods.without_metrics == 0;
        if pods.counted == 0 {
            // There is a reading, so the autoscaler knew more than was observed.
            pods = Pods {
                counted: from,
                ..Pods::default()
            };
        }
        let recommendation = exact.or_else(|| of(&pods.alike(reading)))?;
        Some(Candidate {
            metric: Some(metric),
            recommended: recommendation.replicas,
            assumption: Some(ALIKE).filter(|_| !is_exact && !is_certain),
            pods: Some(recommendation.pods),
            exact: usize::from(is_exact),
        })
    }
}

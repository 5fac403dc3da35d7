//! The decisions of the autoscaler and their reasons: compares each status that it wrote with the rules.
//!
//! An autoscaler computes every 15 s but writes its status only when that changes. The computations in
//! between are repeated too, since their recommendations affect later ones.

use std::{collections::BTreeMap, iter::Peekable, mem::discriminant, slice};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    files,
    notes::{Note, notes},
    observations::AUTOSCALERS,
    record::{Autoscaler, Metric, Observation, ObservationKind, Pod, Record, Source, Usage, total},
    rules::{
        Constraint, History, Pods, Reading, SYNC_PERIOD, Sample, largest, recommend,
        recommend_for_value,
    },
};

/// The pods that a decision creates or removes can be seen before the decision itself, by up to this time.
const LEAD: f64 = 0.5;
/// A status is seen this much after the computation at the latest.
const JITTER: f64 = 1.0;
/// Usage is polled; an autoscaler may have read it before it was seen, by up to this time.
const LAG: f64 = 6.0;

/// A change of the number of replicas, or a computation that made none although the formula asked for one.
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
    /// `ceil(replicas × current ÷ target)`.
    #[serde(rename = "computed_replicas")]
    pub computed: Option<u32>,
    /// The recommendation of the metrics, before the windows and the limits.
    #[serde(rename = "recommended_replicas")]
    pub recommended: Option<u32>,
    /// The rules that led to another number than `computed`.
    #[serde(serialize_with = "files::constraints")]
    #[schemars(schema_with = "files::constraints_schema")]
    pub constraints: Vec<Constraint>,
    /// The result of the rules, if it differs from the decision.
    #[serde(rename = "expected_replicas")]
    pub expected: Option<u32>,
    /// The message of the autoscaler, if the rules do not explain the decision.
    pub remark: Option<String>,
}

pub fn decisions(record: &Record) -> (Vec<Decision>, Vec<Note>) {
    let origin = record.time_origin();
    let mut rows: Vec<Decision> = Vec::new();
    let mut notes = notes(record);
    for name in autoscalers(record) {
        Follower::new(record, &name).follow(&mut rows, &mut notes);
    }
    rows.sort_by(|one, other| one.at.total_cmp(&other.at));
    notes.sort_by(|one, other| one.at.total_cmp(&other.at));
    let mut merged: Vec<Decision> = Vec::new();
    for row in rows {
        match merged.last_mut() {
            Some(last) if last.is_like(&row) => {
                last.until = row.at;
                last.times += 1;
            }
            _ => merged.push(row),
        }
    }
    for row in &mut merged {
        row.at -= origin;
        row.until -= origin;
    }
    for note in &mut notes {
        note.at -= origin;
    }
    (merged, notes)
}

impl Decision {
    /// Whether both changed nothing, for the same reasons.
    fn is_like(&self, other: &Self) -> bool {
        let reasons = |row: &Self| row.constraints.iter().map(discriminant).collect::<Vec<_>>();
        self.from == self.to
            && (self.from, self.to) == (other.from, other.to)
            && self.metric == other.metric
            && reasons(self) == reasons(other)
            && self.expected.is_some() == other.expected.is_some()
    }
}

/// The names of all autoscalers that were seen.
fn autoscalers(record: &Record) -> Vec<String> {
    let mut names = Vec::new();
    for observation in &record.observations {
        if let ObservationKind::Autoscaler(autoscaler) = &observation.kind
            && !names.contains(&autoscaler.name)
        {
            names.push(autoscaler.name.clone());
        }
    }
    names
}

/// A computation of an autoscaler.
struct Sync<'a> {
    /// When it was seen.
    at: f64,
    /// When it was made, as far as the periods and windows of the rules matter.
    made: f64,
    autoscaler: &'a Autoscaler,
    /// Whether its status was there before the recording.
    is_first: bool,
}

impl Sync<'_> {
    /// When a computation was made that was seen at this time. Two are never closer than the period, but
    /// one that is seen late can seem closer to the next one.
    fn next_made(&self, seen: f64) -> f64 {
        let periods = ((seen - self.made) / SYNC_PERIOD).round();
        let earliest = self.made + periods * SYNC_PERIOD;
        let is_late = !self.is_first && earliest - seen < JITTER;
        if is_late { seen.max(earliest) } else { seen }
    }
}

/// The pods at a time, which only advances.
struct Timeline<'a> {
    observations: Peekable<slice::Iter<'a, Observation>>,
    pods: BTreeMap<&'a str, &'a Pod>,
}

impl<'a> Timeline<'a> {
    fn new(record: &'a Record) -> Self {
        Self {
            observations: record.observations.iter().peekable(),
            pods: BTreeMap::new(),
        }
    }

    fn advance(&mut self, until: f64) {
        while let Some(observation) = self.observations.next_if(|one| one.at <= until) {
            match &observation.kind {
                ObservationKind::Pod(pod) => {
                    self.pods.insert(&pod.name, pod);
                }
                ObservationKind::PodGone(name) => {
                    self.pods.remove(name.as_str());
                }
                _ => {}
            }
        }
    }
}

/// Follows one autoscaler.
struct Follower<'a> {
    record: &'a Record,
    name: &'a str,
    history: History,
    /// The time since which all of its recommendations are known; earlier ones may still count.
    known_since: f64,
    usages: Vec<(f64, &'a BTreeMap<String, Usage>)>,
    /// The pods just before a computation, and a moment earlier.
    late: Timeline<'a>,
    early: Timeline<'a>,
}

/// The inputs of one computation of an autoscaler.
pub struct Evidence<'a> {
    pub pods: &'a BTreeMap<&'a str, &'a Pod>,
    pub usage: Option<&'a BTreeMap<String, Usage>>,
    pub now: Timestamp,
}

/// An autoscaler's computation, repeated.
struct Computation {
    /// The index of the metric with the largest recommendation.
    metric: usize,
    recommended: u32,
    /// The number of metrics whose reading is exactly that of the status.
    exact: usize,
    result: u32,
    /// Whether nothing from before the recording had to be assumed.
    is_known: bool,
    constraints: Vec<Constraint>,
}

impl<'a> Follower<'a> {
    fn new(record: &'a Record, name: &'a str) -> Self {
        let usages = record.observations.iter();
        Self {
            record,
            name,
            history: History::default(),
            known_since: f64::NEG_INFINITY,
            usages: usages
                .filter_map(|observation| match &observation.kind {
                    ObservationKind::Usage(usage) => Some((observation.at, usage)),
                    _ => None,
                })
                .collect(),
            late: Timeline::new(record),
            early: Timeline::new(record),
        }
    }

    fn follow(mut self, rows: &mut Vec<Decision>, notes: &mut Vec<Note>) {
        let mut last: Option<Sync> = None;
        // The replicas after its last decision.
        let mut replicas = None;
        let mut gone = None;
        let mut is_lost = false;
        let mut is_blind = false;
        let mut is_first = true;
        for observation in &self.record.observations {
            let at = observation.at;
            let autoscaler = match &observation.kind {
                ObservationKind::Autoscaler(autoscaler) if autoscaler.name == self.name => {
                    autoscaler
                }
                ObservationKind::AutoscalerGone(name) if name.is_empty() || name == self.name => {
                    gone = Some(at);
                    continue;
                }
                ObservationKind::Lost { what, .. } if what == AUTOSCALERS => {
                    is_lost = true;
                    continue;
                }
                _ => continue,
            };
            let is_new = autoscaler.conditions.is_empty();
            // It loses its memory if it does not exist at the time of a computation.
            if let Some(gone) = gone.take()
                && last.as_ref().is_none_or(|last| {
                    let syncs = |until: f64| ((until - last.at) / SYNC_PERIOD).floor();
                    syncs(at) > syncs(gone)
                })
            {
                self.history = History::default();
                last = None;
                replicas = None;
            }
            if is_new {
                is_first = false;
                continue;
            }
            if let Some(last) = &mut last
                && last.autoscaler.has_status_of(autoscaler)
            {
                last.autoscaler = autoscaler;
                continue;
            }
            let made = last.as_ref().map_or(at, |last| last.next_made(at));
            if is_first {
                self.known_since = at;
            } else if last.is_none() {
                // A new one begins with the current replicas.
                self.known_since = f64::NEG_INFINITY;
                self.history.recommend(at, autoscaler.from);
            }
            if is_lost {
                self.known_since = at;
            } else if let Some(last) = &last {
                self.repeat(last, made);
            }
            if let Some(replicas) = replicas.filter(|replicas| *replicas != autoscaler.from) {
                let by = if is_lost {
                    "while the connection was lost, the replicas changed"
                } else {
                    "something else than the autoscaler set the replicas:"
                };
                let text = format!("{by} from {replicas} to {}", autoscaler.from);
                notes.push(Note { at, text });
            }
            is_lost = false;
            if autoscaler.has_decided() == is_blind {
                is_blind = !is_blind;
                let why = autoscaler.complaint().filter(|_| is_blind);
                let text = match why {
                    Some(why) => format!("the autoscaler cannot decide: {why}"),
                    None => "the autoscaler can decide again".into(),
                };
                notes.push(Note { at, text });
            }
            replicas = Some(autoscaler.from);
            let sync = Sync {
                at,
                made,
                autoscaler,
                is_first,
            };
            if autoscaler.has_decided() {
                replicas = Some(autoscaler.to);
                let row = self.explain(&sync);
                // The first status is of a decision before the recording.
                rows.extend(row.filter(|_| !is_first));
            }
            is_first = false;
            last = Some(sync);
        }
    }

    /// The computations that repeated this one, up to the time at which the next one was seen.
    fn repeat(&mut self, last: &Sync, until: f64) {
        if !last.autoscaler.has_decided() || last.autoscaler.from != last.autoscaler.to {
            return;
        }
        let periods = (until - last.made) / SYNC_PERIOD;
        // The time of the computation before the recording is not known.
        let (periods, start) = if last.is_first {
            (periods.ceil(), until - periods.ceil() * SYNC_PERIOD)
        } else {
            (periods.round(), last.made)
        };
        for period in 1..periods as u32 {
            let at = start + (until - start) * f64::from(period) / periods;
            self.explain(&Sync {
                at,
                made: at,
                ..*last
            });
        }
    }

    /// Repeats a computation of the autoscaler and remembers it; returns its row, if it is worth one.
    fn explain(&mut self, sync: &Sync) -> Option<Decision> {
        let Sync { at, autoscaler, .. } = *sync;
        let Autoscaler {
            from, to, rules, ..
        } = autoscaler;
        let (from, to) = (*from, *to);
        self.late.advance(at);
        self.early.advance(at - LEAD);
        let mut row = Decision {
            at,
            until: at,
            times: 1,
            from,
            to,
            ..Decision::default()
        };
        if let Some((bound, constraint)) = rules.bound(from) {
            row.constraints.push(constraint);
            row.expected = Some(bound).filter(|bound| *bound != to);
        } else if let Some(computation) = self.compute(sync) {
            let metric = &autoscaler.metrics[computation.metric];
            let several = autoscaler.metrics.len() > 1;
            row.metric = several.then(|| autoscaler.deciding_metric(metric));
            row.reading = metric.reading();
            row.computed = row.reading.map(|reading| reading.formula(from));
            row.recommended = Some(computation.recommended);
            row.constraints = computation.constraints;
            let is_explained = computation.result == to
                // Only the autoscaler knows the inputs of a value that is not about the pods.
                || !matches!(metric.source, Source::Resource { .. });
            row.expected = (!is_explained).then_some(computation.result);
            self.history.recommend(sync.made, computation.recommended);
        }
        if row.expected.is_some() {
            let said = autoscaler
                .complaint()
                .or(autoscaler.condition("AbleToScale"));
            row.remark = said.map(ToString::to_string);
        }
        if from != to {
            self.history.scale(rules, sync.made, from, to);
        }
        let is_noteworthy = from != to || row.computed.is_some_and(|computed| computed != to);
        Some(row).filter(|_| is_noteworthy)
    }

    /// The computation from the inputs that fit its status best.
    fn compute(&self, sync: &Sync) -> Option<Computation> {
        let next = self.usages.partition_point(|(at, _)| *at <= sync.at);
        let before = next.checked_sub(1).map(|last| self.usages[last].1);
        let after = self.usages.get(next);
        let after = after.filter(|(at, _)| *at <= sync.at + LAG);
        let mut best: Option<((usize, bool, bool), Computation)> = None;
        let mut snapshots = [&self.late.pods, &self.early.pods];
        if sync.autoscaler.from != sync.autoscaler.to {
            snapshots.reverse();
        }
        for pods in snapshots {
            for usage in [before, after.map(|(_, usage)| *usage)] {
                let evidence = Evidence {
                    pods,
                    usage,
                    now: self.record.clock(sync.at),
                };
                let Some(computation) = self.compute_from(&evidence, sync) else {
                    continue;
                };
                let fit = (
                    computation.exact,
                    computation.result == sync.autoscaler.to,
                    computation.is_known,
                );
                if best.as_ref().is_none_or(|(best, _)| fit > *best) {
                    best = Some((fit, computation));
                }
            }
        }
        best.map(|(_, computation)| computation)
    }

    fn compute_from(&self, evidence: &Evidence, sync: &Sync) -> Option<Computation> {
        let autoscaler = sync.autoscaler;
        let (rules, from) = (&autoscaler.rules, autoscaler.from);
        let recommendations: Vec<_> = autoscaler
            .metrics
            .iter()
            .map(|metric| evidence.recommend(metric, autoscaler))
            .collect();
        let replicas = |one: &Option<Recommended>| one.as_ref().map(|one| one.replicas);
        let metric = (0..recommendations.len())
            .rev()
            .max_by_key(|index| replicas(&recommendations[*index]))?;
        let deciding = recommendations[metric].as_ref()?;
        let recommended = largest(recommendations.iter().map(replicas), from).unwrap_or(from);
        let (mut result, limits) = rules.normalise(from, recommended, &self.history, sync.made);
        let reading = autoscaler.metrics[metric].reading()?;
        let mut constraints = deciding.pods.map_or(Vec::new(), |pods| {
            reading.constraints(rules.tolerance(), from, recommended, pods)
        });
        // A recommendation from before the recording may still count.
        let window = rules
            .window_of(result, autoscaler.to)
            .filter(|window| sync.at - self.known_since < f64::from(*window));
        match window {
            Some(window) => {
                result = autoscaler.to;
                constraints.push(Constraint::Stabilisation(window));
            }
            None => constraints.extend(limits),
        }
        constraints.extend(rules.bound_of(reading.formula(from), result, &constraints));
        Some(Computation {
            metric,
            recommended,
            exact: recommendations
                .iter()
                .flatten()
                .filter(|one| one.is_exact)
                .count(),
            result,
            is_known: window.is_none(),
            constraints,
        })
    }
}

/// The recommendation for one metric.
struct Recommended {
    replicas: u32,
    /// The pods that were counted, if it is a metric of resources.
    pods: Option<Pods>,
    /// Whether the reading is exactly that of the status.
    is_exact: bool,
}

impl Evidence<'_> {
    /// Each pod with its usage of a resource, and the usage of pods that no longer exist.
    pub fn measure(&self, resource: &str, container: Option<&str>) -> (Vec<Sample>, Vec<i64>) {
        let of = |usage: &Usage| total(&usage.containers, resource, container);
        let sample = |pod: &&Pod| {
            let usage = self.usage.and_then(|usage| usage.get(&pod.name));
            let measured = usage.and_then(|usage| Some((usage.window, of(usage)?)));
            let window = measured.map(|(window, _)| window);
            Sample {
                class: pod.classify(window, resource == "cpu", self.now),
                usage: measured.map_or(0, |(_, usage)| usage),
                request: total(&pod.requests, resource, container).unwrap_or_default(),
            }
        };
        let usages = self.usage.into_iter().flatten();
        let gone = usages.filter(|(pod, _)| !self.pods.contains_key(pod.as_str()));
        (
            self.pods.values().map(sample).collect(),
            gone.filter_map(|(_, usage)| of(usage)).collect(),
        )
    }

    /// `None` while the metric fails.
    fn recommend(&self, metric: &Metric, autoscaler: &Autoscaler) -> Option<Recommended> {
        let reading = metric.reading()?;
        let from = autoscaler.from;
        let tolerance = autoscaler.rules.tolerance();
        let Source::Resource { name, container } = &metric.source else {
            let is_per_pod = matches!(metric.source, Source::PerPod(_));
            let counts = |pod: &&&Pod| !pod.leaving && (is_per_pod || pod.is_ready());
            let pods = self.pods.values().filter(counts).count() as u32;
            return Some(Recommended {
                replicas: recommend_for_value(reading, tolerance, from, pods, is_per_pod),
                pods: None,
                is_exact: false,
            });
        };
        let (samples, gone) = self.measure(name, container.as_deref());
        let recommend = |samples: &[Sample], gone: &[i64]| {
            recommend(metric.target, metric.unit, tolerance, from, samples, gone)
        };
        let exact = recommend(&samples, &gone).filter(|one| {
            one.current == reading.current
                && metric.average.is_none_or(|average| average == one.average)
        });
        let is_exact = exact.is_some();
        let recommendation = exact.or_else(|| {
            let mut pods: Pods = samples.iter().map(|sample| sample.class).collect();
            if pods.counted == 0 {
                // There is a reading, so the autoscaler knew more than was observed.
                pods = Pods {
                    counted: from,
                    ..Pods::default()
                };
            }
            recommend(&pods.alike(reading), &[])
        })?;
        Some(Recommended {
            replicas: recommendation.replicas,
            pods: Some(recommendation.pods),
            is_exact,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Amount, Behavior, Direction, Policy};

    /// The statuses of an autoscaler and their times; the first is from before the recording.
    fn explained(statuses: Vec<(f64, Autoscaler)>) -> (Vec<Decision>, Vec<Note>) {
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        for (at, autoscaler) in statuses {
            record.add(at, ObservationKind::Autoscaler(autoscaler));
        }
        decisions(&record)
    }

    #[test]
    fn changes_and_what_held_one_back_are_rows_and_what_repeats_is_one() {
        let (rows, notes) = explained(vec![
            (0.0, Autoscaler::decided(1, 1, 2)),
            (15.0, Autoscaler::decided(1, 4, 500)),
            (30.0, Autoscaler::decided(4, 8, 54)),
            (45.0, Autoscaler::decided(8, 10, 54)),
            (60.0, Autoscaler::decided(10, 10, 54)),
            (75.0, Autoscaler::decided(10, 10, 53)),
            (90.0, Autoscaler::decided(10, 10, 10)),
        ]);
        let short: Vec<_> = rows
            .iter()
            .map(|row| (row.at, row.times, row.from, row.to, row.computed))
            .collect();
        assert_eq!(
            short,
            [
                (15.0, 1, 1, 4, Some(10)),
                (30.0, 1, 4, 8, Some(5)),
                (45.0, 1, 8, 10, Some(9)),
                (60.0, 2, 10, 10, Some(11)),
                (90.0, 1, 10, 10, Some(2)),
            ]
        );
        let (tolerance, window) = (Constraint::Tolerance(10), Constraint::Stabilisation(300));
        let constraints: Vec<_> = rows.iter().map(|row| row.constraints.clone()).collect();
        assert_eq!(
            constraints,
            [
                vec![Constraint::Step(4)],
                vec![tolerance.clone(), window.clone(), Constraint::Step(8)],
                vec![tolerance.clone(), window.clone()],
                vec![tolerance],
                vec![window],
            ]
        );
        assert!(notes.is_empty(), "{notes:?}");
    }

    /// The replicas that may be added in 15 s are counted from what was added less than 15 s before.
    #[test]
    fn a_status_that_is_seen_late_does_not_shorten_a_period() {
        let up = Direction {
            window: 0,
            policies: vec![Policy {
                amount: Amount::Pods(4),
                period: 15,
            }],
            ..Direction::default()
        };
        let decided = |from, to, current| {
            let mut autoscaler = Autoscaler::decided(from, to, current);
            autoscaler.rules.behavior = Some(Behavior {
                up: up.clone(),
                ..Behavior::default()
            });
            autoscaler
        };
        let (rows, _) = explained(vec![
            (0.0, decided(1, 1, 2)),
            (15.2, decided(1, 5, 500)),
            (30.05, decided(5, 9, 500)),
        ]);
        assert_eq!(rows[1].expected, None, "{:?}", rows[1]);
    }
}

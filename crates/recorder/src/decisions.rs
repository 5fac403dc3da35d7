//! The decisions of the autoscaler and their reasons: compares each status that it wrote with the rules.
//!
//! An autoscaler computes every 15 s but writes its status only when that changes. The computations in
//! between are repeated too, since their recommendations affect later ones. What its conditions say
//! about a computation precedes what the pods and their usage lead to: these are seen at other times.

use std::{collections::BTreeMap, iter::Peekable, mem::discriminant, slice};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    notes::{Note, notes},
    observations::AUTOSCALERS,
    record::{Autoscaler, Metric, Observation, ObservationKind, Pod, Record, Source, Usage, total},
    rules::{
        Class, Constraint, Flags, History, Moment, Pods, Reading, Sample, recommend,
        recommend_for_value,
    },
};

/// Pods may be seen up to this long before the decision that creates or removes them, in seconds.
const LEAD: f64 = 0.5;
/// A status is seen at most this long after its computation.
const JITTER: f64 = 1.0;
/// An autoscaler may read usage up to this long before a poll sees it.
const LAG: f64 = 6.0;
/// The clocks of the cluster and of this machine may differ by this.
const SKEW: f64 = 4.0;
/// A watch that is regained lists what changed meanwhile within this time.
const LISTING: f64 = 1.0;

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
    /// `ceil(from × current ÷ target)`.
    #[serde(rename = "computed_replicas")]
    pub computed: Option<u32>,
    /// The recommendation of the metrics, before the windows and the limits, unless it rests on what
    /// the remark assumes.
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

pub fn decisions(record: &Record) -> (Vec<Decision>, Vec<Note>) {
    let origin = record.time_origin();
    let mut rows: Vec<Decision> = Vec::new();
    let mut notes = notes(record);
    for name in autoscalers(record) {
        let (own_rows, own_notes) = Follower::new(record, &name).follow();
        rows.extend(own_rows);
        notes.extend(own_notes);
    }
    rows.sort_by(|one, other| one.at.total_cmp(&other.at));
    notes.extend(doubt(&rows, record.flags));
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
    /// A decision that was made once, of which nothing else is known.
    fn once(at: f64, from: u32, to: u32) -> Self {
        Self {
            at,
            until: at,
            times: 1,
            from,
            to,
            ..Self::default()
        }
    }

    /// Whether both changed nothing, for the same reasons.
    fn is_like(&self, other: &Self) -> bool {
        let reasons = |row: &Self| row.constraints.iter().map(discriminant).collect::<Vec<_>>();
        self.from == self.to
            && (self.from, self.to) == (other.from, other.to)
            && self.metric == other.metric
            && reasons(self) == reasons(other)
            && self.by_rules.is_some() == other.by_rules.is_some()
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

/// A note that the flags may differ, if many decisions contradict the rules.
fn doubt(rows: &[Decision], flags: Flags) -> Option<Note> {
    let doubtful: Vec<_> = rows.iter().filter(|row| row.by_rules.is_some()).collect();
    if doubtful.len() < 3 || doubtful.len() * 20 < rows.len() {
        return None;
    }
    let mut said: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &doubtful {
        let remark = row.remark.as_deref().unwrap_or_default();
        let reason = remark.split_once(':').map_or(remark, |(reason, _)| reason);
        *said.entry(reason).or_default() += 1;
    }
    let said: Vec<_> = said
        .iter()
        .map(|(said, count)| format!("{said} × {count}"))
        .collect();
    let Flags {
        sync_period,
        tolerance,
        downscale_stabilisation,
    } = flags;
    Some(Note {
        at: doubtful[0].at,
        text: format!(
            "{} of {} decisions contradict the rules ({}); the flags of the controller manager may \
             differ from those that are assumed: --sync-period {sync_period}s, --tolerance \
             {tolerance}, --downscale-stabilization {downscale_stabilisation}s",
            doubtful.len(),
            rows.len(),
            said.join(", ")
        ),
    })
}

/// A computation of an autoscaler.
struct Sync<'a> {
    /// When it was seen.
    at: f64,
    /// The estimated time of the computation; periods and windows are counted from it.
    made: Moment,
    autoscaler: &'a Autoscaler,
    /// The specifications since then, with the same status.
    edits: Vec<(f64, &'a Autoscaler)>,
    /// Whether it was made before the recording, or while the connection was lost.
    is_past: bool,
}

impl<'a> Sync<'a> {
    /// When a computation was made that was seen at this time. Two are never closer than the period, but
    /// one that is seen late can seem closer to the next one.
    fn next_made(&self, seen: f64) -> f64 {
        let period = self.autoscaler.rules.flags.sync_period;
        let periods = ((seen - self.made.at) / period).round();
        let earliest = self.made.at + periods * period;
        let is_late = !self.is_past && earliest > seen && earliest - seen < JITTER;
        if is_late { earliest } else { seen }
    }

    /// The computations that repeated this one silently before the next one.
    fn repeated(&self, next: f64) -> Vec<Sync<'a>> {
        let autoscaler = self.autoscaler;
        if !autoscaler.has_decided() || autoscaler.from != autoscaler.to {
            return Vec::new();
        }
        let period = autoscaler.rules.flags.sync_period;
        let gap = next - if self.is_past { self.at } else { self.made.at };
        let periods = (gap / period).round();
        let is_irregular = (gap - periods * period).abs() > JITTER + 0.02 * periods;
        // When the one before the recording was made is not known.
        let (periods, start, error) = if self.is_past {
            let periods = (gap / period).ceil();
            (periods, next - periods * period, JITTER)
        } else if is_irregular {
            (periods, self.made.at, period)
        } else {
            (periods, self.made.at, JITTER)
        };
        let at = |number: u32| start + (next - start) * f64::from(number) / periods;
        (1..periods as u32)
            .map(|number| self.again(at(number), error))
            .collect()
    }

    fn again(&self, at: f64, error: f64) -> Sync<'a> {
        let edits = self.edits.iter().take_while(|(edited, _)| *edited <= at);
        Sync {
            at,
            made: Moment { at, error },
            autoscaler: edits.last().map_or(self.autoscaler, |(_, edited)| edited),
            edits: Vec::new(),
            is_past: false,
        }
    }
}

/// What the conditions of an autoscaler say about a computation.
struct Said<'a> {
    /// Whether an earlier recommendation held. Nothing is said if the replicas were changed.
    is_held: Option<bool>,
    /// The reason of the condition `ScalingLimited`.
    limit: Option<&'a str>,
}

const WITHIN: &str = "DesiredWithinRange";

const RESTARTED: &str = "assuming that the controller manager was restarted";
const ALIKE: &str = "assuming that all pods use and request the same";
const NO_WINDOW: &str = "assuming that no window held";
const SEEN_PODS: &str = "assuming that it counted the pods that were seen";

impl<'a> Said<'a> {
    fn of(autoscaler: &'a Autoscaler) -> Self {
        let reason = |kind| autoscaler.condition(kind).map(|one| one.reason.as_str());
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

    fn is_step(&self) -> bool {
        matches!(self.limit, Some("ScaleUpLimit" | "ScaleDownLimit"))
    }

    /// Whether these constraints are what the conditions say.
    fn agrees(&self, constraints: &[Constraint]) -> bool {
        let is_window = |one: &Constraint| matches!(one, Constraint::StabilisationWindow { .. });
        let is_held = constraints.iter().any(is_window);
        let limit = constraints.iter().find(|one| !is_window(one));
        let is_limit = match limit {
            None => self.limit == Some(WITHIN),
            Some(Constraint::Maximum { .. }) => self.limit == Some("TooManyReplicas"),
            Some(Constraint::Minimum { .. }) => self.limit == Some("TooFewReplicas"),
            Some(_) => self.is_step(),
        };
        self.is_held.is_none_or(|said| said == is_held) && (self.limit.is_none() || is_limit)
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

/// What is to be known of an observation to follow one autoscaler.
enum Seen<'a> {
    Status(&'a Autoscaler),
    Gone,
    Lost,
    Regained,
    /// An event: it set this number of replicas.
    Rescaled(u32),
    /// The Deployment has this number of replicas.
    Replicas(u32),
}

impl<'a> Seen<'a> {
    fn of(kind: &'a ObservationKind, name: &str) -> Option<Self> {
        Some(match kind {
            ObservationKind::Autoscaler(one) if one.name == name => Self::Status(one),
            ObservationKind::AutoscalerGone(gone) if gone.is_empty() || gone == name => Self::Gone,
            ObservationKind::Lost { what, .. } if what == AUTOSCALERS => Self::Lost,
            ObservationKind::Regained { what } if what == AUTOSCALERS => Self::Regained,
            ObservationKind::Event(event)
                if event.about == name && event.reason == "SuccessfulRescale" =>
            {
                let size = event.message.strip_prefix("New size: ")?;
                Self::Rescaled(size.split(';').next()?.parse().ok()?)
            }
            ObservationKind::Deployment(deployment) => Self::Replicas(deployment.desired),
            _ => return None,
        })
    }
}

/// Follows one autoscaler.
struct Follower<'a> {
    record: &'a Record,
    name: &'a str,
    rows: Vec<Decision>,
    notes: Vec<Note>,
    history: History,
    /// The time since which all of its recommendations are known; earlier ones may still count.
    known_since: f64,
    /// The same for its changes of the number of replicas.
    changes_known_since: f64,
    last: Option<Sync<'a>>,
    /// The replicas after its last decision.
    replicas: Option<u32>,
    /// The replicas of the Deployment since then, with their times.
    set: Vec<(f64, u32)>,
    /// Whether it existed, or was created, while it was watched.
    is_known: bool,
    gone: Option<f64>,
    /// Until when the connection was lost.
    lost: Option<f64>,
    /// Why it cannot decide.
    complaint: Option<String>,
    usages: Vec<(f64, &'a BTreeMap<String, Usage>)>,
    /// When each pod was deleted.
    deleted: BTreeMap<&'a str, f64>,
    /// The pods just before a computation, and a moment earlier.
    late: Timeline<'a>,
    early: Timeline<'a>,
}

/// The inputs of one computation of an autoscaler.
pub struct Evidence<'a> {
    pub pods: &'a BTreeMap<&'a str, &'a Pod>,
    pub usage: BTreeMap<&'a str, &'a Usage>,
    pub now: Timestamp,
}

/// The recommendation that some evidence leads to.
#[derive(Clone)]
struct Candidate {
    /// The index of the metric that decides.
    metric: usize,
    recommended: u32,
    /// The pods that were counted, if it is a metric of resources.
    pods: Option<Pods>,
    /// The number of metrics whose reading is exactly that of the status.
    exact: usize,
    /// What had to be assumed, since what was seen does not decide.
    assumption: Option<&'static str>,
}

/// An autoscaler's computation, repeated.
struct Computation {
    candidate: Candidate,
    result: u32,
    constraints: Vec<Constraint>,
    /// Whether the result and the constraints are those of the status.
    agrees: bool,
    /// Whether its memory was assumed to be empty.
    is_restarted: bool,
}

impl<'a> Follower<'a> {
    fn new(record: &'a Record, name: &'a str) -> Self {
        let mut usages = Vec::new();
        let mut deleted = BTreeMap::new();
        for observation in &record.observations {
            match &observation.kind {
                ObservationKind::Usage(usage) => usages.push((observation.at, usage)),
                ObservationKind::Pod(pod) if pod.leaving => {
                    deleted.entry(pod.name.as_str()).or_insert(observation.at);
                }
                ObservationKind::PodGone(name) => {
                    deleted.entry(name).or_insert(observation.at);
                }
                _ => {}
            }
        }
        Self {
            record,
            name,
            rows: Vec::new(),
            notes: Vec::new(),
            history: History::default(),
            known_since: f64::NEG_INFINITY,
            changes_known_since: f64::NEG_INFINITY,
            last: None,
            replicas: None,
            set: Vec::new(),
            is_known: false,
            gone: None,
            lost: None,
            complaint: None,
            usages,
            deleted,
            late: Timeline::new(record),
            early: Timeline::new(record),
        }
    }

    fn follow(mut self) -> (Vec<Decision>, Vec<Note>) {
        for Observation { at, kind } in &self.record.observations {
            match Seen::of(kind, self.name) {
                Some(Seen::Status(autoscaler)) => self.status(*at, autoscaler),
                Some(Seen::Gone) => self.gone = Some(*at),
                Some(Seen::Lost) => self.lost = Some(f64::INFINITY),
                Some(Seen::Regained) => self.lost = self.lost.map(|_| at + LISTING),
                Some(Seen::Rescaled(to)) if self.is_lost() => self.rescaled(*at, to),
                Some(Seen::Rescaled(_)) => {}
                Some(Seen::Replicas(replicas)) => self.set.push((*at, replicas)),
                None => {}
            }
        }
        (self.rows, self.notes)
    }

    fn is_lost(&self) -> bool {
        self.lost == Some(f64::INFINITY)
    }

    /// A change whose status was not seen, since the connection was lost.
    fn rescaled(&mut self, at: f64, to: u32) {
        if let Some(from) = self.replicas.replace(to).filter(|from| *from != to) {
            self.rows.push(Decision::once(at, from, to));
        }
    }

    fn status(&mut self, at: f64, autoscaler: &'a Autoscaler) {
        self.forget_if_gone(at);
        // A new one has no conditions until it computes.
        if autoscaler.conditions.is_empty() {
            self.is_known = true;
            return;
        }
        let was_lost = self.lost.take().is_some_and(|until| at <= until);
        if let Some(last) = &mut self.last
            && last.autoscaler.has_status_of(autoscaler)
        {
            last.edits.push((at, autoscaler));
            return;
        }
        let sync = self.sync(at, autoscaler, was_lost);
        match self.last.take() {
            _ if sync.is_past => {
                self.known_since = at;
                self.changes_known_since =
                    self.last_scaled(autoscaler).unwrap_or(f64::NEG_INFINITY);
            }
            Some(last) => {
                for silent in last.repeated(sync.made.at) {
                    self.explain(&silent);
                }
            }
            // A new one begins with the current replicas.
            None => {
                self.known_since = f64::NEG_INFINITY;
                self.history
                    .recommend(&autoscaler.rules, sync.made, autoscaler.from);
            }
        }
        self.note_other_changes(at, autoscaler, was_lost);
        self.note_complaint(at, autoscaler);
        self.replicas = Some(autoscaler.from);
        if autoscaler.has_decided() {
            self.replicas = Some(autoscaler.to);
            let row = self.explain(&sync);
            // The first status is of a decision before the recording.
            let is_new = !sync.is_past || was_lost && autoscaler.from != autoscaler.to;
            self.rows.extend(row.filter(|_| is_new));
        }
        self.is_known = true;
        self.set.clear();
        self.last = Some(sync);
    }

    /// It loses its memory if it does not exist at the time of a computation.
    fn forget_if_gone(&mut self, at: f64) {
        let Some(gone) = self.gone.take() else {
            return;
        };
        let was_missed = self.last.as_ref().is_none_or(|last| {
            let period = last.autoscaler.rules.flags.sync_period;
            let syncs = |until: f64| ((until - last.at) / period).floor();
            syncs(at) > syncs(gone)
        });
        if was_missed {
            self.history = History::default();
            self.last = None;
            self.replicas = None;
        }
    }

    /// The computation of a status.
    fn sync(&mut self, at: f64, autoscaler: &'a Autoscaler, was_lost: bool) -> Sync<'a> {
        let is_past = was_lost || !self.is_known;
        let made = self.last.as_ref().map_or(at, |last| last.next_made(at));
        let mut sync = Sync {
            at,
            made: Moment {
                at: made,
                error: JITTER,
            },
            autoscaler,
            edits: Vec::new(),
            is_past,
        };
        if !is_past {
            return sync;
        }
        let error = autoscaler.rules.flags.sync_period / 2.0;
        sync.made = Moment {
            at: at - error,
            error,
        };
        if autoscaler.from != autoscaler.to
            && let Some(scaled) = self.last_scaled(autoscaler)
        {
            sync.made = Moment {
                at: scaled.min(at),
                error: SKEW,
            };
        }
        if was_lost && let Some(seen) = self.catch_up(autoscaler) {
            sync.at = seen;
            sync.made = seen.into();
        }
        sync
    }

    /// Adds the change that was made while the connection was lost, if its event was not seen, or
    /// returns its time if the status is that of the change.
    fn catch_up(&mut self, autoscaler: &Autoscaler) -> Option<f64> {
        let has_scaled = |last: &Sync| last.autoscaler.last_scaled != autoscaler.last_scaled;
        if !self.last.as_ref().is_some_and(has_scaled) {
            return None;
        }
        let set = self
            .set
            .iter()
            .find(|(_, replicas)| *replicas == autoscaler.to);
        let scaled = set.map(|(at, _)| *at).or(self.last_scaled(autoscaler))?;
        if autoscaler.from == autoscaler.to {
            self.rescaled(scaled, autoscaler.to);
            return None;
        }
        let is_change = |row: &mut Decision| row.to == autoscaler.to && row.recommended.is_none();
        if let Some(seen) = self.rows.pop_if(is_change) {
            self.replicas = Some(seen.from);
        }
        Some(scaled)
    }

    /// When it last changed the replicas, at the end of that second.
    fn last_scaled(&self, autoscaler: &Autoscaler) -> Option<f64> {
        let since = autoscaler.last_scaled?.duration_since(self.record.began);
        Some(since.as_secs_f64() + 1.0)
    }

    fn note_other_changes(&mut self, at: f64, autoscaler: &Autoscaler, was_lost: bool) {
        let to = autoscaler.from;
        let Some(from) = self.replicas.filter(|from| *from != to) else {
            return;
        };
        let set = self.set.iter().rfind(|(_, replicas)| *replicas == to);
        let by = if was_lost {
            "while the connection was lost, the replicas changed"
        } else if autoscaler.scaled_object.is_some() && (from == 0 || to == 0) {
            "KEDA set the replicas:"
        } else {
            "something else than the autoscaler set the replicas:"
        };
        self.notes.push(Note {
            at: set.map_or(at, |(at, _)| *at),
            text: format!("{by} from {from} to {to}"),
        });
    }

    fn note_complaint(&mut self, at: f64, autoscaler: &Autoscaler) {
        let complaint = autoscaler.complaint().filter(|_| !autoscaler.has_decided());
        let reason = complaint.map(|one| one.reason.clone());
        if reason != self.complaint {
            let text = match complaint {
                Some(why) => format!("the autoscaler cannot decide: {why}"),
                None => "the autoscaler can decide again".into(),
            };
            self.notes.push(Note { at, text });
            self.complaint = reason;
        }
    }

    /// Repeats a computation of the autoscaler and remembers it; returns its row, if it is worth one.
    fn explain(&mut self, sync: &Sync) -> Option<Decision> {
        let Sync { at, autoscaler, .. } = *sync;
        let (from, to, rules) = (autoscaler.from, autoscaler.to, &autoscaler.rules);
        self.late.advance(at);
        self.early.advance(at - LEAD);
        let mut row = Decision::once(at, from, to);
        if let Some((bound, constraint)) = rules.bound(from) {
            row.constraints.push(constraint);
            row.by_rules = Some(bound).filter(|bound| *bound != to);
        } else if let Some(computation) = self.compute(sync) {
            self.fill(&mut row, sync, computation);
        }
        if row.by_rules.is_some() && row.remark.is_none() {
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

    fn fill(&mut self, row: &mut Decision, sync: &Sync, computation: Computation) {
        let autoscaler = sync.autoscaler;
        let Computation {
            candidate,
            result,
            constraints,
            agrees,
            is_restarted,
        } = computation;
        if is_restarted {
            self.history = restarted(autoscaler, sync.made.at);
        }
        self.history
            .recommend(&autoscaler.rules, sync.made, candidate.recommended);
        let assumption = candidate
            .assumption
            .filter(|_| !(agrees && Said::of(autoscaler).is_unconstrained()));
        row.recommended = Some(candidate.recommended).filter(|_| assumption.is_none());
        row.remark = is_restarted
            .then_some(RESTARTED)
            .or(assumption)
            .map(Into::into);
        row.constraints = constraints;
        if let Some(metric) = autoscaler.metrics.get(candidate.metric) {
            let several = autoscaler.metrics.len() > 1;
            row.metric = several.then(|| autoscaler.deciding_metric(metric));
            row.reading = metric.reading();
            row.computed = row.reading.map(|reading| reading.formula(row.from));
            // Only the autoscaler knows the inputs of a value that is not about the pods.
            let is_checked = matches!(metric.source, Source::Resource { .. });
            let is_other = !agrees && result != autoscaler.to;
            row.by_rules = (is_other && is_checked).then_some(result);
        }
    }

    /// The computation from the inputs that fit its status best.
    fn compute(&self, sync: &Sync) -> Option<Computation> {
        let autoscaler = sync.autoscaler;
        let said = Said::of(autoscaler);
        let mut candidates = self.candidates(sync);
        candidates.extend(implied(autoscaler, &said, &candidates));
        let mut best: Option<((bool, bool, usize), Computation)> = None;
        for candidate in candidates {
            for computation in self.computations(sync, &said, &candidate) {
                let fit = (
                    computation.agrees,
                    !computation.is_restarted,
                    computation.candidate.exact,
                );
                if best.as_ref().is_none_or(|(best, _)| fit > *best) {
                    best = Some((fit, computation));
                }
            }
        }
        best.map(|(_, computation)| computation)
    }

    /// The recommendations of what was seen shortly before and after a computation.
    fn candidates(&self, sync: &Sync) -> Vec<Candidate> {
        let next = self.usages.partition_point(|(at, _)| *at <= sync.at);
        let before = next.checked_sub(1).map(|last| self.usages[last]);
        let after = self.usages.get(next).copied();
        let after = after.filter(|(at, _)| *at <= sync.at + LAG);
        let mut snapshots = [&self.late.pods, &self.early.pods];
        if sync.autoscaler.from != sync.autoscaler.to {
            snapshots.reverse();
        }
        let mut candidates = Vec::new();
        for pods in snapshots {
            for (poll, earlier) in [(before, None), (after, before)] {
                let usage = |(_, usage): (f64, &'a BTreeMap<String, Usage>)| {
                    usage.iter().map(|(name, usage)| (name.as_str(), usage))
                };
                let mut all: BTreeMap<_, _> = earlier.into_iter().flat_map(usage).collect();
                // A pod that was deleted before this poll had been measured.
                let is_deleted = |name: &str| {
                    let at = self.deleted.get(name);
                    at.is_some_and(|at| poll.is_some_and(|(poll, _)| *at <= poll))
                };
                all.retain(|name, _| pods.contains_key(name) && is_deleted(name));
                all.extend(poll.into_iter().flat_map(usage));
                let evidence = Evidence {
                    pods,
                    usage: all,
                    now: self.record.clock(sync.at),
                };
                candidates.extend(evidence.candidate(sync.autoscaler));
            }
        }
        candidates
    }

    /// The results of a recommendation, by what may have been in its memory; the likeliest first.
    fn computations(&self, sync: &Sync, said: &Said, candidate: &Candidate) -> Vec<Computation> {
        let autoscaler = sync.autoscaler;
        let rules = &autoscaler.rules;
        let restarted = restarted(autoscaler, sync.made.at);
        let from = autoscaler.from;
        let mut outcomes = Vec::new();
        for lateness in [0.0, 1.0, -1.0] {
            let memory = self.history.at(sync.made.at, lateness);
            outcomes.push((false, rules.normalise(from, candidate.recommended, memory)));
        }
        outcomes.extend(
            self.unknown(sync, said, candidate.recommended)
                .map(|one| (false, one)),
        );
        if self.are_changes_unknown(sync) {
            let memory = self.history.at(sync.made.at, 0.0);
            let free = rules.with_any_step();
            outcomes.push((false, free.normalise(from, candidate.recommended, memory)));
        }
        if said.is_held.is_some() || said.is_step() {
            let memory = restarted.at(sync.made.at, 0.0);
            outcomes.push((true, rules.normalise(from, candidate.recommended, memory)));
        }
        let computations = outcomes
            .into_iter()
            .map(|(is_restarted, (result, limits))| {
                let agrees = result == autoscaler.to && said.agrees(&limits);
                let constraints = constraints(autoscaler, candidate, result, limits);
                Computation {
                    candidate: candidate.clone(),
                    result,
                    constraints,
                    agrees,
                    is_restarted,
                }
            });
        computations.collect()
    }

    /// Whether a change from before the recording may count for a policy.
    fn are_changes_unknown(&self, sync: &Sync) -> bool {
        let period = f64::from(sync.autoscaler.rules.longest_period());
        sync.made.at - self.changes_known_since < period
    }

    /// The result if something from before the recording counts that would explain it.
    fn unknown(
        &self,
        sync: &Sync,
        said: &Said,
        recommended: u32,
    ) -> Option<(u32, Vec<Constraint>)> {
        let rules = &sync.autoscaler.rules;
        let (from, to) = (sync.autoscaler.from, sync.autoscaler.to);
        let is_unknown = |since: f64, seconds: u32| sync.made.at - since < f64::from(seconds);
        let step = Constraint::LargestStep { replicas: to };
        if said.is_step() && self.are_changes_unknown(sync) {
            let is_held = said.is_held == Some(true);
            let seconds = if to < from {
                rules.down_window()
            } else {
                rules.up_window()
            };
            let window = Constraint::StabilisationWindow { seconds };
            return Some((
                to,
                is_held
                    .then_some(window)
                    .into_iter()
                    .chain([step])
                    .collect(),
            ));
        }
        let seconds = rules.window_of(recommended, to)?;
        if !is_unknown(self.known_since, seconds) {
            return None;
        }
        let limit = match said.limit {
            Some("TooManyReplicas") => Some(Constraint::Maximum { replicas: to }),
            Some("TooFewReplicas") => Some(Constraint::Minimum { replicas: to }),
            _ if said.is_step() => Some(step),
            _ => None,
        };
        let window = Constraint::StabilisationWindow { seconds };
        Some((to, [window].into_iter().chain(limit).collect()))
    }
}

/// The memory of an autoscaler whose controller manager was restarted at some time before.
fn restarted(autoscaler: &Autoscaler, now: f64) -> History {
    let mut history = History::default();
    let error = autoscaler.rules.flags.sync_period;
    let moment = Moment {
        at: now - error,
        error,
    };
    history.recommend(&autoscaler.rules, moment, autoscaler.from);
    history
}

/// The recommendation that the conditions imply, unless what was seen certainly leads to another one:
/// without a window and a limit it is the number that was set.
fn implied(autoscaler: &Autoscaler, said: &Said, candidates: &[Candidate]) -> Option<Candidate> {
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
        metric: likeliest.map_or(autoscaler.metrics.len(), |one| one.metric),
        recommended: to,
        pods: likeliest.and_then(|one| one.pods),
        exact: 0,
        assumption: Some(NO_WINDOW).filter(|_| said.is_held.is_none()),
    })
}

/// All constraints on the way from the formula to the result.
fn constraints(
    autoscaler: &Autoscaler,
    candidate: &Candidate,
    result: u32,
    limits: Vec<Constraint>,
) -> Vec<Constraint> {
    let (rules, from) = (&autoscaler.rules, autoscaler.from);
    let metric = autoscaler.metrics.get(candidate.metric);
    let Some(reading) = metric.and_then(Metric::reading) else {
        return limits;
    };
    let mut constraints = candidate.pods.map_or(Vec::new(), |pods| {
        reading.constraints(rules.tolerance(), from, candidate.recommended, pods)
    });
    constraints.extend(limits);
    constraints.extend(rules.bound_of(reading.formula(from), result, &constraints));
    constraints
}

impl Evidence<'_> {
    /// Each pod with its usage of a resource, and the usage of pods that no longer exist.
    pub fn measure(&self, resource: &str, container: Option<&str>) -> (Vec<Sample>, Vec<i64>) {
        let of = |usage: &Usage| total(&usage.containers, resource, container);
        let sample = |pod: &&Pod| {
            let usage = self.usage.get(&*pod.name);
            let measured = usage.and_then(|usage| Some((usage.window, of(usage)?)));
            let window = measured.map(|(window, _)| window);
            Sample {
                class: Class::of(pod, window, resource == "cpu", self.now),
                pods: 1,
                usage: measured.map_or(0, |(_, usage)| usage),
                request: total(&pod.requests, resource, container).unwrap_or_default(),
            }
        };
        let gone = self
            .usage
            .iter()
            .filter(|(pod, _)| !self.pods.contains_key(*pod));
        (
            self.pods.values().map(sample).collect(),
            gone.filter_map(|(_, usage)| of(usage)).collect(),
        )
    }

    /// The recommendation of the metric that decides: the one that the autoscaler names, or else the
    /// one with the most replicas.
    fn candidate(&self, autoscaler: &Autoscaler) -> Option<Candidate> {
        let of = |(index, metric)| self.recommend(index, metric, autoscaler);
        let candidates = autoscaler.metrics.iter().enumerate().filter_map(of);
        let candidates: Vec<Candidate> = candidates.collect();
        let exact = candidates.iter().map(|one| one.exact).sum();
        let largest = candidates.iter().rev().max_by_key(|one| one.recommended)?;
        let named = autoscaler.named_metric();
        let deciding = candidates.iter().find(|one| Some(one.metric) == named);
        Some(Candidate {
            exact,
            ..deciding.unwrap_or(largest).clone()
        })
    }

    /// The recommendation for one metric; `None` while it fails.
    fn recommend(
        &self,
        index: usize,
        metric: &Metric,
        autoscaler: &Autoscaler,
    ) -> Option<Candidate> {
        let reading = metric.reading()?;
        let from = autoscaler.from;
        let tolerance = autoscaler.rules.tolerance();
        let Source::Resource { name, container } = &metric.source else {
            let is_per_pod = matches!(metric.source, Source::PerPod(_));
            let counts = |pod: &&&Pod| !pod.leaving && (is_per_pod || pod.is_ready());
            let pods = self.pods.values().filter(counts).count() as u32;
            return Some(Candidate {
                metric: index,
                recommended: recommend_for_value(reading, tolerance, from, pods, is_per_pod),
                pods: None,
                exact: 0,
                assumption: Some(SEEN_PODS),
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
        let mut pods: Pods = samples.iter().map(|sample| sample.class).collect();
        let is_certain = pods.counted > 0 && pods.not_ready == 0 && pods.without_metrics == 0;
        let recommendation = exact.or_else(|| {
            if pods.counted == 0 {
                // There is a reading, so the autoscaler knew more than was observed.
                pods = Pods {
                    counted: from,
                    ..Pods::default()
                };
            }
            recommend(&pods.alike(reading), &[])
        })?;
        Some(Candidate {
            metric: index,
            recommended: recommendation.replicas,
            pods: Some(recommendation.pods),
            exact: usize::from(is_exact),
            assumption: Some(ALIKE).filter(|_| !is_exact && !is_certain),
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
        let (tolerance, window) = (
            Constraint::Tolerance { percent: 10 },
            Constraint::StabilisationWindow { seconds: 300 },
        );
        let constraints: Vec<_> = rows.iter().map(|row| row.constraints.clone()).collect();
        assert_eq!(
            constraints,
            [
                vec![Constraint::LargestStep { replicas: 4 }],
                vec![tolerance, window, Constraint::LargestStep { replicas: 8 }],
                vec![tolerance, window],
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
            window: Some(0),
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
        assert_eq!(rows[1].by_rules, None, "{:?}", rows[1]);
    }
}

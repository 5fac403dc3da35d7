//! Follows an autoscaler through time: what it computed and when, and what it then remembered.
//!
//! An autoscaler computes every 15 s but writes its status only when that changes. The computations
//! in between are repeated too, since their recommendations affect later ones.

use std::mem::replace;

use jiff::Timestamp;

use crate::{
    computation::{Computation, Decision, Said},
    evidence::Sightings,
    notes::Note,
    objects::{Autoscaler, quote},
    observations::AUTOSCALERS,
    record::{Observation, ObservationKind, Record},
    rules::{History, Moment},
};

/// A status is seen at most this long after its computation, in seconds.
const JITTER: f64 = 1.0;
/// The clocks of the cluster and of this machine may differ by this.
const SKEW: f64 = 4.0;
/// A watch that is regained lists what changed meanwhile within this time.
const LISTING: f64 = 1.0;

/// A change of the replicas by an event of an autoscaler.
struct Rescale {
    /// In seconds since the recording began.
    at: f64,
    /// When it was made by the clock of the cluster, in seconds since 1970.
    second: i64,
    to: u32,
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
    /// When a computation was made that was seen at this time. Two are never closer than the
    /// period, but one that is seen late can seem closer to the next one.
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
        let (start, periods) = if self.is_past {
            // When it was made is not known, only that it was seen.
            let periods = ((next - self.at) / period).ceil();
            (next - periods * period, periods)
        } else {
            (self.made.at, ((next - self.made.at) / period).round())
        };
        let gap = next - start;
        // A busy controller computes less regularly.
        let is_regular = (gap - periods * period).abs() <= JITTER;
        let error = if is_regular { JITTER } else { period };
        let at = |number: u32| start + gap * f64::from(number) / periods;
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

/// Follows one autoscaler.
pub struct Follower<'a> {
    record: &'a Record,
    sightings: &'a Sightings<'a>,
    name: &'a str,
    decisions: Vec<Decision>,
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
    /// All its events about changes, which may be seen after the status that follows.
    rescales: Vec<Rescale>,
    /// Why it cannot decide.
    complaint: Option<String>,
}

impl<'a> Follower<'a> {
    pub fn new(record: &'a Record, sightings: &'a Sightings<'a>, name: &'a str) -> Self {
        Self {
            record,
            sightings,
            name,
            decisions: Vec::new(),
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
            rescales: rescales(record, name),
            complaint: None,
        }
    }

    /// All decisions of the autoscaler, and notes about it.
    pub fn follow(mut self) -> (Vec<Decision>, Vec<Note>) {
        for Observation { at, kind } in &self.record.observations {
            match kind {
                ObservationKind::Autoscaler(one) if one.name == self.name => self.status(*at, one),
                ObservationKind::AutoscalerGone(name) if name.is_empty() || name == self.name => {
                    self.gone = Some(*at);
                }
                ObservationKind::Lost { what, .. } if what == AUTOSCALERS => {
                    self.lost = Some(f64::INFINITY);
                }
                ObservationKind::Regained { what } if what == AUTOSCALERS => {
                    self.lost = self.lost.map(|_| at + LISTING);
                }
                ObservationKind::Deployment(one) => self.set.push((*at, one.desired)),
                _ => {}
            }
        }
        if let (Some(_), Some(last)) = (self.lost, &self.last) {
            let unseen = self.rescaled(last.autoscaler.last_scaled(), Some(Timestamp::MAX));
            self.add_unseen(unseen);
        }
        (self.decisions, self.notes)
    }

    fn status(&mut self, at: f64, autoscaler: &'a Autoscaler) {
        self.forget_if_gone(at);
        let was_known = replace(&mut self.is_known, true);
        // A new one has no conditions until it computes.
        let conditions = autoscaler.status.conditions.as_ref();
        if conditions.is_none_or(Vec::is_empty) {
            return;
        }
        let was_lost = self.lost.take().is_some_and(|until| at <= until);
        if let Some(last) = &mut self.last
            && last.autoscaler.status == autoscaler.status
        {
            last.edits.push((at, autoscaler));
            return;
        }
        let sync = self.sync(at, autoscaler, !was_known || was_lost, was_lost);
        match self.last.take() {
            _ if sync.is_past => {
                let scaled = self.last_scaled(autoscaler);
                self.known_since = at;
                self.changes_known_since = scaled.unwrap_or(f64::NEG_INFINITY);
            }
            Some(last) => {
                for silent in last.repeated(sync.made.at) {
                    self.explain(&silent);
                }
            }
            // A new one begins with the current replicas.
            None => {
                self.known_since = f64::NEG_INFINITY;
                let rules = &autoscaler.rules;
                self.history.recommend(rules, sync.made, autoscaler.from);
            }
        }
        self.note_other_changes(at, autoscaler, was_lost);
        self.note_complaint(at, autoscaler);
        self.replicas = Some(autoscaler.from);
        if autoscaler.has_decided() {
            self.replicas = Some(autoscaler.to);
            let decision = self.explain(&sync);
            // The first status is of a decision before the recording.
            let is_new = was_known && (!was_lost || autoscaler.from != autoscaler.to);
            self.decisions.extend(is_new.then_some(decision));
        }
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
    fn sync(
        &mut self,
        at: f64,
        autoscaler: &'a Autoscaler,
        is_past: bool,
        was_lost: bool,
    ) -> Sync<'a> {
        let is_change = autoscaler.from != autoscaler.to;
        let scaled = self.last_scaled(autoscaler).filter(|_| is_change);
        let seen = if was_lost {
            self.catch_up(autoscaler)
        } else {
            None
        };
        let half = autoscaler.rules.flags.sync_period / 2.0;
        let (made, error) = match (seen, scaled) {
            _ if !is_past => {
                let last = self.last.as_ref();
                (last.map_or(at, |last| last.next_made(at)), JITTER)
            }
            (Some(seen), _) => (seen, 0.0),
            (None, Some(scaled)) => (scaled.min(at), SKEW),
            (None, None) => (at - half, half),
        };
        Sync {
            at: seen.unwrap_or(at),
            made: Moment { at: made, error },
            autoscaler,
            edits: Vec::new(),
            is_past,
        }
    }

    /// Adds the changes that were made while the connection was lost. Returns the time of the last
    /// one if this status is about it.
    fn catch_up(&mut self, autoscaler: &Autoscaler) -> Option<f64> {
        let to = autoscaler.to;
        let last = self.last.as_ref()?.autoscaler;
        let mut changes = self.rescaled(last.last_scaled(), autoscaler.last_scaled());
        let has_scaled = last.last_scaled() != autoscaler.last_scaled();
        // The event of the last change may have been missed, too.
        let scaled = self.last_scaled(autoscaler).filter(|_| has_scaled);
        let is_seen = |at: &f64| changes.last().is_some_and(|(seen, _)| *seen > at - SKEW);
        let missed = scaled.filter(|at| !is_seen(at));
        changes.extend(missed.map(|at| (at, to)));
        let own = changes.pop_if(|_| has_scaled && autoscaler.from != to);
        self.add_unseen(changes);
        own.map(|(at, _)| at)
    }

    /// The times and results of its changes by events, after one change and up to another one.
    fn rescaled(&self, after: Option<Timestamp>, until: Option<Timestamp>) -> Vec<(f64, u32)> {
        let [after, until] = [after, until].map(|time| time.map(Timestamp::as_second));
        let rescales = self.rescales.iter();
        rescales
            .filter(|one| after < Some(one.second) && Some(one.second) <= until)
            .map(|one| (one.at, one.to))
            .collect()
    }

    /// Adds changes whose status was not seen.
    fn add_unseen(&mut self, changes: Vec<(f64, u32)>) {
        let mut last = f64::NEG_INFINITY;
        for (at, to) in changes {
            // Something else may have set the replicas since then.
            let between = last..at;
            let mut set = self.set.iter().rev();
            let before = set.find(|(seen, replicas)| between.contains(seen) && *replicas != to);
            let before = before.map(|(_, replicas)| *replicas).or(self.replicas);
            (last, self.replicas) = (at, Some(to));
            if let Some(from) = before.filter(|from| *from != to) {
                self.decisions.push(Decision::new(at, from, to));
            }
        }
    }

    /// When it last changed the replicas, at the end of that second.
    fn last_scaled(&self, autoscaler: &Autoscaler) -> Option<f64> {
        Some(self.record.seconds_at(autoscaler.last_scaled()?) + 1.0)
    }

    fn note_other_changes(&mut self, at: f64, autoscaler: &Autoscaler, was_lost: bool) {
        let to = autoscaler.from;
        let Some(from) = self.replicas.filter(|from| *from != to) else {
            return;
        };
        let set = self.set.iter().rfind(|(_, replicas)| *replicas == to);
        let by = if was_lost {
            "while the connection was lost, the replicas changed"
        } else if autoscaler.is_of_keda && (from == 0 || to == 0 && autoscaler.may_scale_to_zero())
        {
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
        let reason = complaint.map(|one| one.reason.clone().unwrap_or_default());
        if reason != self.complaint {
            let text = match complaint {
                Some(why) => format!("the autoscaler cannot decide: {}", quote(why)),
                None => "the autoscaler can decide again".into(),
            };
            self.notes.push(Note { at, text });
            self.complaint = reason;
        }
    }

    /// Repeats a computation of the autoscaler and remembers it.
    fn explain(&mut self, sync: &Sync<'a>) -> Decision {
        let (made, autoscaler) = (sync.made, sync.autoscaler);
        let (from, to, rules) = (autoscaler.from, autoscaler.to, &autoscaler.rules);
        let mut decision = Decision::new(sync.at, from, to);
        // Beyond a bound, its inputs do not matter.
        if let Some((bound, constraint)) = rules.bound(from) {
            decision.constraints = vec![constraint];
            decision.by_rules = Some(bound).filter(|bound| *bound != to);
        } else if let Some(computation) = self.compute(sync) {
            if computation.is_restarted {
                self.history = restarted(autoscaler, made.at);
            }
            let recommended = computation.candidate.recommended;
            self.history.recommend(rules, made, recommended);
            decision.explain(autoscaler, computation);
        }
        if decision.by_rules.is_some() && decision.remark.is_none() {
            let able = autoscaler.condition("AbleToScale");
            decision.remark = autoscaler.complaint().or(able).map(quote);
        }
        if from != to {
            self.history.scale(rules, made, from, to);
        }
        decision
    }

    fn compute(&self, sync: &Sync<'a>) -> Option<Computation<'a>> {
        let (autoscaler, now) = (sync.autoscaler, sync.made.at);
        let (from, to, rules) = (autoscaler.from, autoscaler.to, &autoscaler.rules);
        let said = Said::of(autoscaler);
        // What happened before the recording may explain the result.
        let mut earlier = self.history.clone();
        earlier.recommend(rules, self.known_since, said.earlier(to));
        let is_unknown = now - self.changes_known_since < f64::from(rules.longest_period());
        let step = is_unknown.then(|| said.step(from, to));
        let restarted = restarted(autoscaler, now);
        let mut memories: Vec<_> = [
            self.history.at(now, 0.0),
            self.history.at(now, 1.0),
            self.history.at(now, -1.0),
            self.history.at(now, 0.0).with_step(step),
            earlier.at(now, 0.0).with_step(step),
        ]
        .map(|memory| (false, memory))
        .into();
        if said.is_about_memory() {
            memories.push((true, restarted.at(now, 0.0)));
        }
        let evidence = self.sightings.around(sync.at, from != to);
        Computation::repeat(autoscaler, &said, &evidence, &memories)
    }
}

/// The changes that the events of an autoscaler report, in the order in which it made them.
fn rescales(record: &Record, name: &str) -> Vec<Rescale> {
    let rescale = |Observation { at, kind }: &Observation| match kind {
        ObservationKind::Event(event) if event.about() == name => {
            let to = event.new_size()?;
            let time = event.time().unwrap_or(record.clock(*at));
            let ended = record.seconds_at(time) + 1.0;
            // Its own time has whole seconds.
            let is_live = (ended - at).abs() <= SKEW;
            Some(Rescale {
                at: if is_live { *at } else { ended },
                second: time.as_second(),
                to,
            })
        }
        _ => None,
    };
    let mut rescales: Vec<_> = record.observations.iter().filter_map(rescale).collect();
    rescales.sort_by_key(|one| one.second);
    rescales
}

/// The memory of an autoscaler whose controller manager was restarted at some time before.
fn restarted(autoscaler: &Autoscaler, now: f64) -> History {
    let rules = &autoscaler.rules;
    let mut history = History::default();
    history.recommend(rules, now - rules.flags.sync_period, autoscaler.from);
    history
}

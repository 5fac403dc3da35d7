//! What a record comes to: what the autoscaler decided and why, and what its users had of it.
//! Times are in seconds since the traffic started.

use std::{collections::BTreeMap, mem::discriminant, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    decision::{Constraint, History, Pods, Reading, compute},
    record::{Answer, Autoscaler, ObservationKind, Record, State},
};

/// A change of the number of replicas, or that there was none although the formula asked for one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    pub at: f64,
    /// When it was last made, and how often, where nothing else was decided in between.
    pub until: f64,
    pub times: u32,
    pub from: u32,
    pub to: u32,
    /// What the autoscaler saw; nothing where the decision itself was not seen.
    pub reading: Option<Reading>,
    /// `ceil(replicas × CPU ÷ target)`.
    pub computed: Option<u32>,
    /// The rules that led to another number than `computed`.
    pub constraints: Vec<Constraint>,
    /// What else is to be said, where the rules alone do not explain it.
    pub remark: Option<String>,
}

pub fn decisions(record: &Record) -> Vec<Decision> {
    let origin = record.time_origin();
    let mut rows: Vec<Decision> = Vec::new();
    let mut history = History::default();
    let mut last: Option<Autoscaler> = None;
    record.replay(|observation, state| {
        let ObservationKind::Autoscaler(autoscaler) = &observation.kind else {
            return;
        };
        let same = |last: &Autoscaler| {
            (last.from, last.to, last.reading, &last.conditions)
                == (
                    autoscaler.from,
                    autoscaler.to,
                    autoscaler.reading,
                    &autoscaler.conditions,
                )
        };
        if last.as_ref().is_some_and(same) {
            return;
        }
        let before = last.replace(autoscaler.clone());
        let at = observation.at;
        let row = explain(autoscaler, state, record, &mut history, at);
        // The first is what was known before anything was decided here.
        let Some(before) = before else { return };
        if before.to != autoscaler.from {
            rows.push(Decision {
                from: before.to,
                to: autoscaler.from,
                reading: None,
                computed: None,
                constraints: Vec::new(),
                remark: Some(
                    "not seen: the connection was lost, or something else scaled it".into(),
                ),
                ..row.clone()
            });
        }
        let as_computed = row.computed.is_none_or(|computed| computed == row.to);
        if row.from == row.to && as_computed {
            return;
        }
        match rows.last_mut() {
            Some(last) if last.is_like(&row) => {
                last.until = row.at;
                last.times += 1;
            }
            _ => rows.push(row),
        }
    });
    for row in &mut rows {
        row.at -= origin;
        row.until -= origin;
    }
    rows
}

impl Decision {
    /// Whether both changed nothing, for the same reasons.
    fn is_like(&self, other: &Self) -> bool {
        let reasons = |row: &Self| row.constraints.iter().map(discriminant).collect::<Vec<_>>();
        self.from == self.to
            && (self.from, self.to) == (other.from, other.to)
            && reasons(self) == reasons(other)
            && self.remark.is_some() == other.remark.is_some()
    }
}

fn explain(
    autoscaler: &Autoscaler,
    state: &State,
    record: &Record,
    history: &mut History,
    at: f64,
) -> Decision {
    let Autoscaler {
        from, to, reading, ..
    } = *autoscaler;
    let mut row = Decision {
        at,
        until: at,
        times: 1,
        from,
        to,
        reading,
        computed: None,
        constraints: Vec::new(),
        remark: None,
    };
    if let Some(reading) = reading {
        let mut pods = state.classify_pods(record.clock(at), from);
        if pods.counted == 0 {
            // There is a reading, so it saw more than we do.
            pods = Pods::default();
        }
        // Those that are not known any more are those that this decision took away.
        pods.counted += from.saturating_sub(pods.counted + pods.unready + pods.missing);
        row.explain_by(autoscaler, reading, pods, history);
    }
    if from != to {
        history.changes.push((at, i64::from(to) - i64::from(from)));
    }
    row
}

impl Decision {
    fn explain_by(
        &mut self,
        autoscaler: &Autoscaler,
        reading: Reading,
        pods: Pods,
        history: &mut History,
    ) {
        let done = compute(
            &autoscaler.rules,
            self.from,
            reading,
            pods,
            history,
            self.at,
        );
        history.recommendations.push((self.at, done.recommended));
        self.computed = Some(done.formula);
        if done.result == self.to {
            self.constraints = done.constraints;
            return;
        }
        let limited = autoscaler
            .condition("ScalingLimited")
            .filter(|limited| limited.is_true);
        let said = limited.or(autoscaler.condition("AbleToScale"));
        let said = said.map_or(String::new(), |said| {
            format!("; it says {}: {}", said.reason, said.message)
        });
        self.remark = Some(format!("by the rules {}{said}", done.result));
    }
}

/// When what happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Milestones {
    pub first_decision: Option<f64>,
    pub first_new_pod_ready: Option<f64>,
    pub last_new_pod_ready: Option<f64>,
    pub traffic_ended: Option<f64>,
    /// As few as the autoscaler may have, since the end of the traffic.
    pub back_at_minimum: Option<f64>,
}

impl Milestones {
    pub fn of(record: &Record, decisions: &[Decision]) -> Self {
        let origin = record.time_origin();
        let traffic_ended = record.first(|seen| matches!(seen, ObservationKind::TrafficEnded(_)));
        let last = traffic_ended.unwrap_or(f64::INFINITY);
        let ready: Vec<f64> = pods_ready(record)
            .into_values()
            .filter(|at| *at > origin && *at <= last)
            .collect();
        let mut back_at_minimum = None;
        record.replay(|observation, state| {
            if traffic_ended.is_some_and(|end| observation.at >= end) && is_idle(state) {
                back_at_minimum.get_or_insert(observation.at);
            }
        });
        let since = |at: f64| at - origin;
        Self {
            first_decision: decisions
                .iter()
                .find(|row| row.to > row.from && row.at > 0.0)
                .map(|row| row.at),
            first_new_pod_ready: ready.iter().copied().reduce(f64::min).map(since),
            last_new_pod_ready: ready.iter().copied().reduce(f64::max).map(since),
            traffic_ended: traffic_ended.map(since),
            back_at_minimum: back_at_minimum.zip(traffic_ended).map(|(at, end)| at - end),
        }
    }
}

/// When each pod was first seen to be ready, in seconds since the recording began.
pub fn pods_ready(record: &Record) -> BTreeMap<String, f64> {
    let mut ready = BTreeMap::new();
    for observation in &record.observations {
        if let ObservationKind::Pod(pod) = &observation.kind
            && pod.ready
        {
            ready.entry(pod.name.clone()).or_insert(observation.at);
        }
    }
    ready
}

/// Whether there are no more replicas than the minimum, or none (KEDA can scale to zero), and all of them are ready.
pub fn is_idle(state: &State) -> bool {
    let (Some(deployment), Some(autoscaler)) = (&state.deployment, &state.autoscaler) else {
        return false;
    };
    deployment.desired <= autoscaler.rules.min
        && [deployment.existing, deployment.ready] == [deployment.desired; 2]
}

/// The answers to the probes of one phase; latencies in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub answers: u64,
    pub failed: u64,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub worst: Option<f64>,
}

/// Before, during and after the scale-out, and after the traffic. A probe belongs to the phase in which it was sent.
pub fn phases(record: &Record, milestones: &Milestones) -> Vec<Phase> {
    let Some((start, end)) = record.traffic_span() else {
        return vec![Phase::of("all the time", record, 0.0, f64::INFINITY)];
    };
    let scaled = milestones.last_new_pod_ready.map_or(end, |at| at + start);
    [
        ("before the traffic", 0.0, start),
        ("during the scale-out", start, scaled),
        ("after it, under traffic", scaled, end),
        ("after the traffic", end, f64::INFINITY),
    ]
    .into_iter()
    .map(|(name, from, to)| Phase::of(name, record, from, to))
    .filter(|phase| phase.answers + phase.failed > 0)
    .collect()
}

impl Phase {
    fn of(name: &'static str, record: &Record, from: f64, to: f64) -> Self {
        let mut histogram = Histogram::<u64>::new(3).expect("three significant digits are allowed");
        let mut failed = 0;
        for (asked, answer) in probes(record) {
            if asked < from || asked >= to {
                continue;
            }
            if answer.failed.is_some() {
                failed += 1;
            } else {
                let took = histogram.record(answer.took.as_micros() as u64);
                took.expect("a histogram without an upper bound grows");
            }
        }
        let seconds = |quantile| {
            let micros = histogram.value_at_quantile(quantile);
            (!histogram.is_empty()).then(|| Duration::from_micros(micros).as_secs_f64())
        };
        Self {
            name,
            answers: histogram.len(),
            failed,
            p50: seconds(0.5),
            p95: seconds(0.95),
            worst: seconds(1.0),
        }
    }
}

/// Every probe, and when it was sent.
pub fn probes(record: &Record) -> impl Iterator<Item = (f64, &Answer)> {
    record
        .observations
        .iter()
        .filter_map(|observation| match &observation.kind {
            ObservationKind::Answer(answer) => {
                Some((observation.at - answer.took.as_secs_f64(), answer))
            }
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        decision::{Rules, Unit},
        record::{Deployment, Pod},
        traffic::TrafficResult,
    };

    fn autoscaler(from: u32, to: u32, current: u32) -> ObservationKind {
        ObservationKind::Autoscaler(Autoscaler {
            rules: Rules {
                max: 20,
                ..Rules::default()
            },
            reading: Some(Reading {
                current,
                target: 50,
                unit: Unit::Percent,
            }),
            from,
            to,
            ..Autoscaler::default()
        })
    }

    /// Traffic from 10 s to 100 s.
    fn record(seen: Vec<(f64, ObservationKind)>) -> Record {
        let ended = TrafficResult {
            failed: None,
            bombardier: None,
            output: String::new(),
        };
        let mut all = vec![
            (0.0, autoscaler(1, 1, 2)),
            (
                10.0,
                ObservationKind::TrafficStarted("40 connections".into()),
            ),
        ];
        all.extend(seen);
        all.push((100.0, ObservationKind::TrafficEnded(ended)));
        all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        all.into_iter().for_each(|(at, seen)| record.add(at, seen));
        record
    }

    #[test]
    fn steps_and_holds_are_rows_and_what_repeats_is_one() {
        let rows = decisions(&record(vec![
            (30.0, autoscaler(1, 4, 500)),
            (45.0, autoscaler(4, 4, 54)),
            (60.0, autoscaler(4, 4, 55)),
            (75.0, autoscaler(4, 4, 50)),
            (90.0, autoscaler(4, 4, 10)),
        ]));
        let short: Vec<_> = rows
            .iter()
            .map(|row| (row.at, row.until, row.times, row.from, row.to, row.computed))
            .collect();
        assert_eq!(
            short,
            [
                (20.0, 20.0, 1, 1, 4, Some(10)),
                (35.0, 50.0, 2, 4, 4, Some(5)),
                (80.0, 80.0, 1, 4, 4, Some(1)),
            ]
        );
        assert_eq!(rows[0].constraints, [Constraint::Step(4)]);
        assert_eq!(rows[1].constraints, [Constraint::Tolerance(10)]);
        assert_eq!(rows[2].constraints, [Constraint::Stabilisation(300)]);
    }

    #[test]
    fn what_was_not_seen_or_not_by_the_rules_is_said() {
        let rows = decisions(&record(vec![(30.0, autoscaler(8, 9, 500))]));
        assert_eq!((rows[0].from, rows[0].to, rows[0].computed), (1, 8, None));
        assert_eq!(rows[1].remark.as_deref(), Some("by the rules 16"));
    }

    #[test]
    fn idle_is_at_most_the_minimum() {
        let idle = |desired, existing, ready| {
            is_idle(&State {
                deployment: Some(Deployment {
                    desired,
                    existing,
                    ready,
                    request: None,
                }),
                autoscaler: Some(Autoscaler::of_the_tutorial()),
                ..State::default()
            })
        };
        assert!(idle(1, 1, 1));
        assert!(idle(0, 0, 0), "KEDA scaled it to zero");
        assert!(!idle(1, 2, 1), "a pod is terminating");
        assert!(!idle(1, 1, 0), "the last pod is not ready");
    }

    #[test]
    fn probes_belong_to_the_phase_in_which_they_were_sent() {
        let pod = |name: &str, ready| {
            let name = name.into();
            let (created, started, since) = (None, None, None);
            ObservationKind::Pod(Pod {
                name,
                created,
                started,
                ready,
                since,
                pending: false,
                leaving: false,
            })
        };
        let answer = |seconds, failed: Option<&str>| {
            let took = Duration::from_secs(seconds);
            ObservationKind::Answer(Answer {
                took,
                failed: failed.map(Into::into),
            })
        };
        let record = record(vec![
            (1.0, pod("old", true)),
            (9.0, answer(1, None)),
            (30.0, autoscaler(1, 4, 500)),
            (31.0, pod("new", false)),
            (40.0, pod("new", true)),
            (50.0, pod("newer", true)),
            (52.0, answer(4, None)),
            (53.0, answer(1, Some("status 503"))),
        ]);
        let milestones = Milestones::of(&record, &decisions(&record));
        assert_eq!(milestones.first_decision, Some(20.0));
        assert_eq!(milestones.first_new_pod_ready, Some(30.0));
        assert_eq!(milestones.last_new_pod_ready, Some(40.0));
        assert_eq!(milestones.traffic_ended, Some(90.0));
        let phases = phases(&record, &milestones);
        let short: Vec<_> = phases
            .iter()
            .map(|phase| (phase.name, phase.answers, phase.failed))
            .collect();
        assert_eq!(
            short,
            [
                ("before the traffic", 1, 0),
                ("during the scale-out", 1, 0),
                ("after it, under traffic", 0, 1)
            ]
        );
        let scale_out = &phases[1];
        for seconds in [scale_out.p50, scale_out.worst] {
            let seconds = seconds.expect("an answer");
            assert!((seconds - 4.0).abs() < 0.01, "{seconds} s");
        }
    }
}

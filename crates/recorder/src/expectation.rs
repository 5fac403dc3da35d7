//! What is expected of the autoscaler, and whether it happened.

use std::{fmt, time::Duration};

use humantime::format_duration;
use serde::Serialize;

use crate::record::{Deployment, ObservationKind, Record};

/// So many replicas: ready within a time of the start of the traffic; with `hold` neither more nor fewer, for that long.
#[derive(Clone, Debug)]
pub struct Expectation {
    pub replicas: u32,
    pub within: Option<Duration>,
    pub hold: Option<Duration>,
}

/// Whether it happened until now.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluation {
    /// Since so many seconds after the traffic started.
    Met(f64),
    Pending,
    /// It cannot happen any more; in words, what happened instead.
    Missed(String),
}

/// How a recording ended, in the order of exit statuses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "snake_case")]
pub enum Verdict {
    AsExpected,
    Unexpected(String),
    Unobserved(String),
}

impl Verdict {
    pub fn status(&self) -> u8 {
        match self {
            Self::AsExpected => 0,
            Self::Unexpected(_) => 1,
            Self::Unobserved(_) => 2,
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.hold {
            None => write!(f, "{} replicas ready", self.replicas)?,
            Some(hold) => {
                write!(
                    f,
                    "exactly {} replicas for {}",
                    self.replicas,
                    format_duration(hold)
                )?;
            }
        }
        if let Some(within) = self.within {
            let begun = if self.hold.is_some() { ", begun" } else { "" };
            write!(f, "{begun} within {}", format_duration(within))?;
        }
        Ok(())
    }
}

impl Expectation {
    /// `now` in seconds since the recording began, as the record's.
    pub fn evaluate(&self, record: &Record, now: f64) -> Evaluation {
        let origin = record.time_origin();
        let deadline = self
            .within
            .map_or(f64::INFINITY, |within| origin + within.as_secs_f64());
        let hold = self.hold.map_or(0.0, |hold| hold.as_secs_f64());
        let spans = self.spans(record, now);
        for (start, end) in &spans {
            if *start <= deadline && end - start >= hold {
                return Evaluation::Met(start - origin);
            }
        }
        // A span that began in time may still grow.
        let grows = spans
            .last()
            .is_some_and(|(start, end)| *end == now && *start <= deadline);
        if now <= deadline || grows {
            return Evaluation::Pending;
        }
        Evaluation::Missed(self.instead(record, now))
    }

    /// What was seen where the expectation was not met.
    pub fn instead(&self, record: &Record, now: f64) -> String {
        let origin = record.time_origin();
        let spans = self.spans(record, now);
        let mut most = (0, origin);
        for (at, deployment) in deployments(record) {
            let ready = deployment.map_or(0, |deployment| deployment.ready);
            if at < origin {
                most.0 = ready;
            } else if ready > most.0 {
                most = (ready, at);
            }
        }
        let longest = spans
            .iter()
            .max_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0)));
        match longest {
            Some((start, end)) if self.hold.is_some() => format!(
                "expected {self}; the longest was {:.0} s, {:.0} s after the traffic started",
                end - start,
                start - origin,
            ),
            Some((start, _)) => format!("expected {self}; they were after {:.0} s", start - origin),
            None => format!(
                "expected {self}; the most that were ready were {}, after {:.0} s",
                most.0,
                most.1 - origin
            ),
        }
    }

    /// When it was so, from the start of the traffic on.
    fn spans(&self, record: &Record, now: f64) -> Vec<(f64, f64)> {
        let origin = record.time_origin();
        let mut spans: Vec<(f64, f64)> = Vec::new();
        let mut since = None;
        for (at, deployment) in deployments(record) {
            match (
                since,
                deployment.is_some_and(|deployment| self.fits(deployment)),
            ) {
                (None, true) => since = Some(at),
                (Some(start), false) => {
                    spans.push((start, at));
                    since = None;
                }
                _ => {}
            }
        }
        spans.extend(since.map(|start| (start, now)));
        spans.retain_mut(|(start, end)| {
            *start = start.max(origin);
            *end >= origin
        });
        spans
    }

    fn fits(&self, deployment: &Deployment) -> bool {
        if self.hold.is_none() {
            return deployment.ready >= self.replicas;
        }
        [deployment.desired, deployment.existing, deployment.ready] == [self.replicas; 3]
    }
}

/// What was seen of the Deployment, and when; nothing once it is gone.
fn deployments(record: &Record) -> impl Iterator<Item = (f64, Option<&Deployment>)> {
    record
        .observations
        .iter()
        .filter_map(|observation| match &observation.kind {
            ObservationKind::Deployment(deployment) => Some((observation.at, Some(deployment))),
            ObservationKind::DeploymentGone => Some((observation.at, None)),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    /// The traffic starts after 10 s; then each row says when how many are desired, exist and are ready.
    fn record(rows: &[(f64, u32, u32)]) -> Record {
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        let deployment = |desired, ready| {
            ObservationKind::Deployment(Deployment {
                desired,
                existing: desired,
                ready,
                request: None,
            })
        };
        record.add(0.0, deployment(1, 1));
        record.add(
            10.0,
            ObservationKind::TrafficStarted("40 connections".into()),
        );
        for (at, desired, ready) in rows {
            record.add(*at, deployment(*desired, *ready));
        }
        record
    }

    fn expect(replicas: u32, within: u64, hold: u64) -> Expectation {
        Expectation {
            replicas,
            within: Some(Duration::from_secs(within)),
            hold: (hold > 0).then(|| Duration::from_secs(hold)),
        }
    }

    #[test]
    fn replicas_are_awaited_from_the_start_of_the_traffic() {
        let record = record(&[(30.0, 4, 1), (50.0, 4, 4)]);
        assert_eq!(
            expect(4, 60, 0).evaluate(&record, 60.0),
            Evaluation::Met(40.0)
        );
        assert_eq!(
            expect(8, 60, 0).evaluate(&record, 60.0),
            Evaluation::Pending
        );
        let Evaluation::Missed(instead) = expect(8, 60, 0).evaluate(&record, 71.0) else {
            panic!("the time is over");
        };
        assert_eq!(
            instead,
            "expected 8 replicas ready within 1m; the most that were ready were 4, after 40 s"
        );
        let Evaluation::Missed(instead) = expect(4, 30, 0).evaluate(&record, 51.0) else {
            panic!("they were late");
        };
        assert_eq!(
            instead,
            "expected 4 replicas ready within 30s; they were after 40 s"
        );
    }

    #[test]
    fn a_hold_is_neither_more_nor_fewer_and_without_a_gap() {
        let rows = [(20.0, 4, 4), (50.0, 4, 3), (60.0, 4, 4)];
        let held = record(&rows);
        assert_eq!(
            expect(4, 100, 40).evaluate(&held, 99.0),
            Evaluation::Pending
        );
        assert_eq!(
            expect(4, 100, 40).evaluate(&held, 100.0),
            Evaluation::Met(50.0)
        );
        let mut left = held.clone();
        left.add(
            95.0,
            ObservationKind::Deployment(Deployment {
                desired: 5,
                existing: 5,
                ready: 4,
                request: None,
            }),
        );
        let Evaluation::Missed(instead) = expect(4, 100, 40).evaluate(&left, 111.0) else {
            panic!("it grew");
        };
        assert_eq!(
            instead,
            "expected exactly 4 replicas for 40s, begun within 1m 40s; the longest was 35 s, 50 s after the traffic started"
        );
    }

    #[test]
    fn a_hold_that_began_in_time_may_end_later() {
        let record = record(&[(100.0, 4, 4)]);
        assert_eq!(
            expect(4, 95, 40).evaluate(&record, 120.0),
            Evaluation::Pending
        );
        assert_eq!(
            expect(4, 95, 40).evaluate(&record, 140.0),
            Evaluation::Met(90.0)
        );
    }
}

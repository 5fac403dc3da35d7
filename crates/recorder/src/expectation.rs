//! The expected number of replicas, and whether it was reached.

use std::{fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::format::{duration, replicas as count};
use crate::record::{Deployment, ObservationKind, Record};

/// A number of replicas: ready within a time from the start of the traffic; with `hold` exactly
/// that number, for that long.
#[derive(Clone, Debug)]
pub struct Expectation {
    pub replicas: u32,
    pub within: Option<Duration>,
    pub hold: Option<Duration>,
}

/// Whether an expectation has been met.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluation {
    /// This long after the start of the traffic.
    Met(Duration),
    /// It was met before the traffic, or before the recording if there is no traffic.
    MetBefore,
    Pending,
    /// It cannot be met any more; the reason.
    Missed(String),
}

/// The result of a recording; the exit status is its place in this list.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Verdict {
    /// The expectation, and when it was met; `None` without an expectation.
    AsExpected(Option<String>),
    Unexpected(String),
    Unobserved(String),
}

impl Default for Verdict {
    fn default() -> Self {
        Self::AsExpected(None)
    }
}

impl Verdict {
    pub fn status(&self) -> u8 {
        match self {
            Self::AsExpected(_) => 0,
            Self::Unexpected(_) => 1,
            Self::Unobserved(_) => 2,
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.hold {
            None => write!(f, "{} ready", count(self.replicas))?,
            Some(hold) => {
                write!(f, "exactly {} for {}", count(self.replicas), duration(hold))?;
            }
        }
        if let Some(within) = self.within {
            let starting = if self.hold.is_some() {
                ", starting"
            } else {
                ""
            };
            write!(f, "{starting} within {}", duration(within))?;
        }
        Ok(())
    }
}

/// A time, from the start of the traffic, during which the replicas were as expected.
struct Span {
    start: Duration,
    /// `None` while it lasts.
    end: Option<Duration>,
    /// Whether they already were before the traffic.
    began_before: bool,
}

impl Span {
    fn length(&self, now: Duration) -> Duration {
        self.end.unwrap_or(now) - self.start
    }
}

impl Expectation {
    /// `now` is the time since the recording began.
    pub fn evaluate(&self, record: &Record, now: Duration) -> Evaluation {
        let origin = time_origin(record);
        let deadline = self.within.map_or(Duration::MAX, |within| origin + within);
        let hold = self.hold.unwrap_or_default();
        let spans = self.spans(record);
        let mut in_time = spans.iter().filter(|span| span.start <= deadline);
        if let Some(met) = in_time.find(|span| span.length(now) >= hold) {
            return match met.began_before {
                true => Evaluation::MetBefore,
                false => Evaluation::Met(met.start - origin),
            };
        }
        // A span that began in time may still grow.
        let last = spans.last();
        let grows = last.is_some_and(|span| span.end.is_none() && span.start <= deadline);
        if now <= deadline || grows {
            return Evaluation::Pending;
        }
        Evaluation::Missed(self.describe_miss(record, now))
    }

    /// When the expectation was met, if it was.
    pub fn describe_met(&self, evaluation: &Evaluation, record: &Record) -> Option<String> {
        match evaluation {
            Evaluation::Met(after) => Some(format!("{self}; after {:.0} s", after.as_secs_f64())),
            Evaluation::MetBefore if record.traffic_span().is_some() => {
                Some(format!("{self}; already true before the traffic"))
            }
            Evaluation::MetBefore => Some(format!("{self}; already true at the start")),
            Evaluation::Pending | Evaluation::Missed(_) => None,
        }
    }

    /// Why the expectation was not met.
    pub fn describe_miss(&self, record: &Record, now: Duration) -> String {
        let origin = time_origin(record);
        let after = |at: Duration| format!("{:.0} s", (at - origin).as_secs_f64());
        let spans = self.spans(record);
        let longest = spans.iter().max_by_key(|span| span.length(now));
        match longest {
            Some(span) if self.hold.is_some() => format!(
                "expected {self}; the longest was {:.0} s, {} after the start",
                span.length(now).as_secs_f64(),
                after(span.start),
            ),
            Some(span) => format!("expected {self}; reached only after {}", after(span.start)),
            None => {
                let (most, at) = most_ready(record);
                format!(
                    "expected {self}; the highest number was {most}, after {}",
                    after(at)
                )
            }
        }
    }

    fn spans(&self, record: &Record) -> Vec<Span> {
        let origin = time_origin(record);
        let mut spans: Vec<Span> = Vec::new();
        for (index, (at, deployment)) in deployments(record).enumerate() {
            let is_met = deployment.is_some_and(|deployment| self.is_met_by(deployment));
            let open = spans.last_mut().filter(|span| span.end.is_none());
            match (open, is_met) {
                (None, true) => spans.push(Span {
                    start: at.max(origin),
                    end: None,
                    began_before: at < origin || index == 0,
                }),
                (Some(span), false) => span.end = Some(at),
                _ => {}
            }
        }
        spans.retain(|span| span.end.is_none_or(|end| end > origin));
        spans
    }

    fn is_met_by(&self, deployment: &Deployment) -> bool {
        if self.hold.is_none() {
            return deployment.ready >= self.replicas;
        }
        [deployment.desired, deployment.existing, deployment.ready] == [self.replicas; 3]
    }
}

fn time_origin(record: &Record) -> Duration {
    Duration::from_secs_f64(record.time_origin())
}

/// The most replicas that were ready from the start of the traffic on, and since when.
fn most_ready(record: &Record) -> (u32, Duration) {
    let origin = time_origin(record);
    let mut most = (0, origin);
    for (at, deployment) in deployments(record) {
        let ready = deployment.map_or(0, |deployment| deployment.ready);
        if at < origin {
            most.0 = ready;
        } else if ready > most.0 {
            most = (ready, at);
        }
    }
    most
}

/// The Deployment as it was observed, and when since the recording began; nothing once it is gone.
fn deployments(record: &Record) -> impl Iterator<Item = (Duration, Option<&Deployment>)> {
    record.observations.iter().filter_map(|observation| {
        let deployment = match &observation.kind {
            ObservationKind::Deployment(deployment) => Some(deployment),
            ObservationKind::DeploymentGone => None,
            _ => return None,
        };
        Some((Duration::from_secs_f64(observation.at), deployment))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    /// The traffic starts after 10 s; each row has a time and the desired, existing and ready
    /// replicas.
    fn record(rows: &[(f64, u32, u32)]) -> Record {
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        let deployment = |desired, ready| {
            ObservationKind::Deployment(Deployment {
                desired,
                existing: desired,
                ready,
                ..Deployment::default()
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

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
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
            expect(4, 60, 0).evaluate(&record, seconds(60)),
            Evaluation::Met(seconds(40))
        );
        assert_eq!(
            expect(8, 60, 0).evaluate(&record, seconds(60)),
            Evaluation::Pending
        );
        let Evaluation::Missed(instead) = expect(8, 60, 0).evaluate(&record, seconds(71)) else {
            panic!("the time is over");
        };
        assert_eq!(
            instead,
            "expected 8 replicas ready within 1m; the highest number was 4, after 40 s"
        );
        let Evaluation::Missed(instead) = expect(4, 30, 0).evaluate(&record, seconds(51)) else {
            panic!("they were late");
        };
        assert_eq!(
            instead,
            "expected 4 replicas ready within 30s; reached only after 40 s"
        );
    }

    #[test]
    fn replicas_that_were_ready_before_the_traffic_say_nothing_about_it() {
        assert_eq!(
            expect(1, 60, 0).evaluate(&record(&[]), seconds(11)),
            Evaluation::MetBefore
        );
        let again = record(&[(30.0, 2, 0), (40.0, 2, 2)]);
        assert_eq!(
            expect(2, 60, 0).evaluate(&again, seconds(50)),
            Evaluation::Met(seconds(30))
        );
    }

    #[test]
    fn without_traffic_it_can_only_be_met_after_the_start_of_the_recording() {
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        let deployment = |ready| {
            ObservationKind::Deployment(Deployment {
                ready,
                ..Deployment::default()
            })
        };
        record.add(0.1, deployment(2));
        let expect_2 = expect(2, 60, 0);
        let evaluation = expect_2.evaluate(&record, seconds(1));
        assert_eq!(evaluation, Evaluation::MetBefore);
        assert_eq!(
            expect_2.describe_met(&evaluation, &record).as_deref(),
            Some("2 replicas ready within 1m; already true at the start")
        );
        record.add(30.0, deployment(3));
        assert_eq!(
            expect(3, 60, 0).evaluate(&record, seconds(40)),
            Evaluation::Met(seconds(30))
        );
    }

    #[test]
    fn a_hold_is_neither_more_nor_fewer_and_without_a_gap() {
        let rows = [(20.0, 4, 4), (50.0, 4, 3), (60.0, 4, 4)];
        let held = record(&rows);
        assert_eq!(
            expect(4, 100, 40).evaluate(&held, seconds(99)),
            Evaluation::Pending
        );
        assert_eq!(
            expect(4, 100, 40).evaluate(&held, seconds(100)),
            Evaluation::Met(seconds(50))
        );
        let mut left = held.clone();
        left.add(
            95.0,
            ObservationKind::Deployment(Deployment {
                desired: 5,
                existing: 5,
                ready: 4,
                ..Deployment::default()
            }),
        );
        let Evaluation::Missed(instead) = expect(4, 100, 40).evaluate(&left, seconds(111)) else {
            panic!("it grew");
        };
        assert_eq!(
            instead,
            "expected exactly 4 replicas for 40s, starting within 1m40s; the longest was 35 s, 50 s after the start"
        );
    }

    #[test]
    fn a_hold_that_began_in_time_may_end_later() {
        let record = record(&[(100.0, 4, 4)]);
        assert_eq!(
            expect(4, 95, 40).evaluate(&record, seconds(120)),
            Evaluation::Pending
        );
        assert_eq!(
            expect(4, 95, 40).evaluate(&record, seconds(140)),
            Evaluation::Met(seconds(90))
        );
    }
}

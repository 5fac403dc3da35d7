//! The expected number of replicas, and whether it was reached.

use std::{fmt, time::Duration};

use clap::Args;

use crate::format::{duration, parse_duration, replicas as count, seconds};
use crate::objects::Deployment;
use crate::record::Record;

/// What is expected of the number of replicas, as options of the command line.
#[derive(Args, Clone, Debug)]
pub struct Expectation {
    /// Number of replicas that must be ready
    #[arg(long = "expect", required = false)]
    pub replicas: u32,
    /// Time limit for reaching it, from the start of the traffic
    #[arg(long, value_name = "DURATION", requires = "replicas", value_parser = parse_duration)]
    pub within: Option<Duration>,
    /// How long there must be exactly this number
    #[arg(long, value_name = "DURATION", requires = "replicas", value_parser = parse_duration)]
    pub hold: Option<Duration>,
}

/// Whether an expectation has been met.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluation {
    /// The expectation, and when it was met.
    Met(String),
    Pending,
    /// It cannot be met any more; the reason.
    Missed(String),
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let replicas = count(self.replicas);
        let starting = match self.hold {
            None => {
                write!(f, "{replicas} ready")?;
                ""
            }
            Some(hold) => {
                write!(f, "exactly {replicas} for {}", duration(hold))?;
                ", starting"
            }
        };
        if let Some(within) = self.within {
            write!(f, "{starting} within {}", duration(within))?;
        }
        Ok(())
    }
}

/// A time during which the replicas were as expected, in seconds since the recording began; not
/// before the traffic started.
struct Span {
    start: f64,
    /// Infinite while it lasts.
    end: f64,
    /// Whether they already were before the traffic.
    began_before: bool,
}

impl Span {
    fn length(&self, now: f64) -> f64 {
        self.end.min(now) - self.start
    }
}

impl Expectation {
    /// `now` is in seconds since the recording began. Nothing is pending once that has ended.
    pub fn evaluate(&self, record: &Record, now: f64, has_ended: bool) -> Evaluation {
        let origin = record.time_origin();
        let limit = self.within.map_or(f64::INFINITY, |it| it.as_secs_f64());
        let hold = self.hold.unwrap_or_default().as_secs_f64();
        let spans = self.spans(record);
        let is_in_time = |span: &&Span| span.start <= origin + limit;
        let mut in_time = spans.iter().filter(is_in_time);
        if let Some(met) = in_time.find(|span| span.length(now) >= hold) {
            let when = match (met.began_before, record.traffic_span()) {
                (true, Some(_)) => "already true before the traffic".into(),
                (true, None) => "already true at the start".into(),
                (false, _) => format!("after {}", seconds(met.start - origin)),
            };
            return Evaluation::Met(format!("{self}; {when}"));
        }
        // A span that began in time may still grow.
        let grows = spans.last().filter(is_in_time);
        let grows = grows.is_some_and(|span| span.end.is_infinite());
        if !has_ended && (now <= origin + limit || grows) {
            return Evaluation::Pending;
        }
        Evaluation::Missed(self.describe_miss(record, now))
    }

    /// Why the expectation was not met.
    fn describe_miss(&self, record: &Record, now: f64) -> String {
        let after = |at: f64| seconds(at - record.time_origin());
        let spans = self.spans(record);
        let longest = spans.iter();
        let longest = longest.max_by(|one, two| one.length(now).total_cmp(&two.length(now)));
        let instead = match longest {
            Some(span) if self.hold.is_some() => format!(
                "the longest was {}, {} after the start",
                seconds(span.length(now)),
                after(span.start),
            ),
            Some(span) => format!("reached only after {}", after(span.start)),
            None => {
                let (most, at) = most_ready(record);
                format!("the highest number was {most}, after {}", after(at))
            }
        };
        format!("expected {self}; {instead}")
    }

    fn spans(&self, record: &Record) -> Vec<Span> {
        let origin = record.time_origin();
        let mut spans: Vec<Span> = Vec::new();
        for (index, (at, deployment)) in record.deployments().enumerate() {
            let is_met = deployment.is_some_and(|deployment| self.is_met_by(deployment));
            let open = spans.last_mut().filter(|span| span.end.is_infinite());
            match (open, is_met) {
                (None, true) => spans.push(Span {
                    start: at.max(origin),
                    end: f64::INFINITY,
                    began_before: at < origin || index == 0,
                }),
                (Some(span), false) => span.end = at,
                _ => {}
            }
        }
        spans.retain(|span| span.end > origin);
        spans
    }

    fn is_met_by(&self, deployment: &Deployment) -> bool {
        if self.hold.is_none() {
            return deployment.ready >= self.replicas;
        }
        [deployment.desired, deployment.existing, deployment.ready] == [self.replicas; 3]
    }
}

/// The most replicas that were ready from the start of the traffic on, and since when.
fn most_ready(record: &Record) -> (u32, f64) {
    let origin = record.time_origin();
    let mut most = (0, origin);
    for (at, deployment) in record.deployments() {
        let ready = deployment.map_or(0, |deployment| deployment.ready);
        if at < origin {
            most.0 = ready;
        } else if ready > most.0 {
            most = (ready, at);
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::common;

    #[test]
    fn replicas_are_awaited_from_the_start_of_the_traffic_and_held_without_a_gap() {
        let expect = |replicas, within, hold: Option<u64>| Expectation {
            replicas,
            within: Some(Duration::from_secs(within)),
            hold: hold.map(Duration::from_secs),
        };
        let ready = |replicas, within| expect(replicas, within, None);
        let held = || expect(4, 100, Some(40));
        assert_eq!(ready(8, 60).to_string(), "8 replicas ready within 1m");
        let text = "exactly 4 replicas for 40s, starting within 1m40s";
        assert_eq!(held().to_string(), text);
        // The times, and the existing and the ready replicas.
        let slow = [(0.0, 1, 1), (30.0, 4, 1), (50.0, 4, 4)];
        let again = [(0.0, 2, 2), (30.0, 2, 0), (40.0, 2, 2)];
        let quick = [(0.1, 2, 2), (30.0, 3, 3)];
        let gap = [(0.0, 1, 1), (20.0, 4, 4), (50.0, 4, 3), (60.0, 4, 4)];
        let left = [&gap[..], &[(95.0, 5, 4)]].concat();
        let late = [(0.0, 1, 1), (100.0, 4, 4)];
        let highest = "the highest number was 4, after 40s";
        let longest = "the longest was 35s, 50s after the start";
        let before = "already true before the traffic";
        let at_start = "already true at the start";
        let traffic = Some(10.0);
        for (rows, traffic, expectation, now, expected) in [
            (&slow[..], traffic, ready(4, 60), 60.0, "after 40s"),
            (&slow, traffic, ready(8, 60), 60.0, "pending"),
            (&slow, traffic, ready(8, 60), 71.0, highest),
            (&slow, traffic, ready(4, 30), 51.0, "reached only after 40s"),
            (&slow, traffic, ready(1, 60), 11.0, before),
            (&again, Some(35.0), ready(2, 60), 50.0, "after 5s"),
            (&quick, None, ready(2, 60), 40.0, at_start),
            (&quick, None, ready(3, 60), 40.0, "after 30s"),
            (&gap, traffic, held(), 99.0, "pending"),
            (&gap, traffic, held(), 100.0, "after 50s"),
            (&left, traffic, held(), 111.0, longest),
            // One that begins in time may end later.
            (&late, traffic, held(), 139.0, "pending"),
            (&late, traffic, held(), 140.0, "after 1m30s"),
        ] {
            let seen = rows.iter().map(|(at, existing, ready)| {
                (
                    *at,
                    json!({"deployment": common::deployment(*existing, *ready)}),
                )
            });
            let started = traffic.map(|at| (at, json!({"traffic_started": "40 connections"})));
            let mut seen: Vec<(f64, Value)> = seen.chain(started).collect();
            seen.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            let outcome = match expectation.evaluate(&common::record(seen), now, false) {
                Evaluation::Met(how) => how.replace(&format!("{expectation}; "), ""),
                Evaluation::Pending => "pending".into(),
                Evaluation::Missed(why) => why.replace(&format!("expected {expectation}; "), ""),
            };
            assert_eq!(outcome, expected);
        }
    }
}

//! Scales the app to an exact number of replicas: the second of two loads follows once the replicas
//! are at rest.

use std::ops::RangeInclusive;

use crate::{record::Record, steady_load::REST};

/// While the first load is being sent.
pub struct Hold {
    /// The numbers of replicas from which the second load leads to the goal.
    rests: RangeInclusive<u32>,
    /// One of them, and since when it has not changed.
    at_rest: Option<(u32, f64)>,
}

impl Hold {
    pub fn new(rests: RangeInclusive<u32>) -> Self {
        Self {
            rests,
            at_rest: None,
        }
    }

    /// Observes the effect of the first load. Returns the number of replicas once it is time for
    /// the second one; `now` is in seconds since the recording began.
    pub fn observe(&mut self, record: &Record, now: f64) -> Option<u32> {
        let deployment = record.state.deployment.as_ref()?;
        let pods = record.state.classify_pods(record.clock(now));
        let desired = deployment.desired;
        let is_at_rest = self.rests.contains(&desired)
            && [deployment.existing, deployment.ready] == [desired; 2]
            && (pods.not_ready, pods.without_metrics) == (0, 0);
        self.at_rest = is_at_rest.then(|| {
            let unchanged = self.at_rest.filter(|(replicas, _)| *replicas == desired);
            unchanged.unwrap_or((desired, now))
        });
        let (replicas, since) = self.at_rest?;
        (now - since >= REST.as_secs_f64()).then_some(replicas)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::common;

    #[test]
    fn the_second_load_follows_once_the_replicas_are_at_rest() {
        let mut hold = Hold::new(12..=14);
        for (why, seconds, [desired, ready, without_metrics], expected) in [
            ("too few", 0..60, [4, 4, 0], None),
            ("one is not ready", 60..100, [12, 11, 0], None),
            ("its CPU is not known yet", 100..140, [12, 12, 1], None),
            ("not at rest yet", 140..160, [12, 12, 0], None),
            ("unchanged for two syncs", 160..200, [13, 13, 0], Some(190)),
        ] {
            let deployment = json!({"deployment": common::deployment(desired, ready)});
            let pods = (0..without_metrics).map(|_| json!({"pod": common::pod("a")}));
            let record = common::record(pods.chain([deployment]).map(|seen| (0.0, seen)));
            let follows = seconds
                .into_iter()
                .find(|second| hold.observe(&record, f64::from(*second)).is_some());
            assert_eq!(follows, expected, "{why}");
        }
    }
}

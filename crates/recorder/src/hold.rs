//! Scales the app to an exact number of replicas: sends the first load until the replicas are at
//! rest, then the second.

use std::{ffi::OsString, time::Duration};

use crate::{
    format::replicas,
    record::Record,
    steady_load::{Plan, REST, SteadyLoad},
};

/// The `duration` of each paced request: after this long all replicas share the load.
const REQUEST: &str = "10s";
/// How long a paced request may take in all.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Hold {
    /// Without its first load, once that has been sent.
    plan: Plan,
    url: String,
    /// Each load ends by itself after this time.
    limit: Duration,
    /// A number of replicas from which the second load leads to the goal, and since when it has not
    /// changed.
    at_rest: Option<(u32, f64)>,
}

impl Hold {
    pub fn new(plan: Plan, url: &str, limit: Duration) -> Self {
        Self {
            plan,
            url: url.trim_end_matches('/').into(),
            limit,
            at_rest: None,
        }
    }

    /// The load to send now.
    pub fn load(&self) -> SteadyLoad {
        let first = self.plan.first.as_ref();
        first.map_or(self.plan.load, |first| first.load)
    }

    /// The command that sends it.
    pub fn command(&self) -> Vec<OsString> {
        let SteadyLoad {
            connections,
            millicores,
        } = self.load();
        let url = format!("{}/?cpu={millicores}m&duration={REQUEST}", self.url);
        let command = bombardier::command(connections, TIMEOUT, self.limit, &url);
        command.into_iter().map(Into::into).collect()
    }

    /// Observes the effect of the load that is being sent, and returns the reason if the other one
    /// is to be sent. `now` is in seconds since the recording began.
    pub fn observe(&mut self, record: &Record, now: f64) -> Option<String> {
        let deployment = record.state.deployment.as_ref()?;
        let pods = record.state.classify_pods(record.clock(now));
        let desired = deployment.desired;
        let is_at_rest = self.plan.first.as_ref()?.rests.contains(&desired)
            && [deployment.existing, deployment.ready] == [desired; 2]
            && (pods.not_ready, pods.without_metrics) == (0, 0);
        self.at_rest = is_at_rest.then(|| {
            let unchanged = self.at_rest.filter(|(replicas, _)| *replicas == desired);
            unchanged.unwrap_or((desired, now))
        });
        let (_, since) = self.at_rest?;
        (now - since >= REST.as_secs_f64()).then(|| {
            self.plan.first = None;
            format!("at rest with {}", replicas(desired))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{common, steady_load::First};

    #[test]
    fn the_second_load_follows_once_the_replicas_are_at_rest() {
        let load = |millicores| SteadyLoad {
            connections: 10,
            millicores,
        };
        let first = First {
            load: load(60),
            rests: 12..=14,
        };
        let plan = Plan {
            first: Some(first),
            load: load(50),
            ..Plan::default()
        };
        let mut hold = Hold::new(plan, "", Duration::ZERO);
        for (why, seconds, [desired, ready, without_metrics], expected) in [
            ("too few", 0..60, [4, 4, 0], None),
            ("one is not ready", 60..100, [12, 11, 0], None),
            ("its CPU is not known yet", 100..140, [12, 12, 1], None),
            ("not at rest yet", 140..160, [12, 12, 0], None),
            ("unchanged for two syncs", 160..200, [13, 13, 0], Some(190)),
            ("there is no third load", 200..300, [13, 13, 0], None),
        ] {
            let deployment = json!({"deployment": common::deployment(desired, ready)});
            let pods = (0..without_metrics).map(|_| json!({"pod": common::pod("a")}));
            let record = common::record(pods.chain([deployment]).map(|seen| (0.0, seen)));
            let follows = seconds
                .into_iter()
                .find(|second| hold.observe(&record, f64::from(*second)).is_some());
            assert_eq!(follows, expected, "{why}");
        }
        assert_eq!(hold.load(), load(50));
    }
}

//! Scales the app to an exact number of replicas: sends the first load until the replicas are at
//! rest, then the second.

use std::{ffi::OsString, time::Duration};

use crate::{
    format::replicas,
    record::{Deployment, Record},
    rules::Pods,
    steady_load::{First, Plan, REST, SteadyLoad},
};

pub struct Hold {
    url: String,
    /// Each load ends by itself after this time.
    limit: Duration,
    load: SteadyLoad,
    /// The load before it, while that is being sent.
    first: Option<First>,
    /// A number of replicas from which the second load leads to the goal, and since when it has not
    /// changed.
    at_rest: Option<(u32, f64)>,
}

impl Hold {
    pub fn new(plan: Plan, url: &str, limit: Duration) -> Self {
        Self {
            url: url.into(),
            limit,
            load: plan.load,
            first: plan.first,
            at_rest: None,
        }
    }

    /// The load to send now.
    pub fn load(&self) -> SteadyLoad {
        self.first.as_ref().map_or(self.load, |first| first.load)
    }

    /// The command that sends it.
    pub fn command(&self) -> Vec<OsString> {
        self.load().command(&self.url, self.limit)
    }

    /// Observes the effect of the load that is being sent, and returns the reason if the other one
    /// is to be sent. `now` is in seconds since the recording began.
    pub fn observe(&mut self, record: &Record, now: f64) -> Option<String> {
        let state = &record.state;
        let deployment = state.deployment.as_ref()?;
        let pods = state.classify_pods(record.clock(now));
        self.advance(deployment, pods, now)
    }

    fn advance(&mut self, deployment: &Deployment, pods: Pods, now: f64) -> Option<String> {
        let rests = &self.first.as_ref()?.rests;
        let desired = deployment.desired;
        let is_at_rest = rests.contains(&desired)
            && [deployment.existing, deployment.ready] == [desired; 2]
            && (pods.not_ready, pods.without_metrics) == (0, 0);
        self.at_rest = is_at_rest.then(|| {
            let unchanged = self.at_rest.filter(|(replicas, _)| *replicas == desired);
            unchanged.unwrap_or((desired, now))
        });
        let (_, since) = self.at_rest?;
        (now - since >= REST.as_secs_f64()).then(|| {
            self.first = None;
            format!("at rest with {}", replicas(desired))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_load_follows_once_the_replicas_are_at_rest() {
        let load = |millicores| SteadyLoad {
            connections: 10,
            millicores,
        };
        let mut hold = Hold {
            url: String::new(),
            limit: Duration::ZERO,
            load: load(50),
            first: Some(First {
                load: load(60),
                rests: 12..=14,
            }),
            at_rest: None,
        };
        for (why, seconds, [desired, ready, not_ready], expected) in [
            ("too few", 0..60, [4, 4, 0], None),
            ("one is not ready", 60..100, [12, 11, 0], None),
            ("its CPU does not count yet", 100..140, [12, 12, 1], None),
            ("not at rest yet", 140..160, [12, 12, 0], None),
            ("unchanged for two syncs", 160..200, [13, 13, 0], Some(190)),
            ("there is no third load", 200..300, [13, 13, 0], None),
        ] {
            let deployment = Deployment {
                desired,
                existing: desired,
                ready,
                ..Deployment::default()
            };
            let pods = Pods {
                not_ready,
                ..Pods::default()
            };
            let mut seconds = seconds.into_iter();
            let follows = seconds.find(|second| {
                let now = f64::from(*second);
                hold.advance(&deployment, pods, now).is_some()
            });
            assert_eq!(follows, expected, "{why}");
        }
        assert_eq!(hold.load(), load(50));
    }
}

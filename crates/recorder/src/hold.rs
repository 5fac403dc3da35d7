//! Scales the app to an exact number of replicas: sends the first load until the replicas are at rest, then the second.

use std::time::Duration;

use crate::{
    format::replicas,
    record::{Deployment, Record},
    rules::Pods,
    steady_load::{First, Plan, REST, SteadyLoad},
};

pub struct Hold {
    load: SteadyLoad,
    /// The load before it, while that is being sent.
    first: Option<First>,
    /// A number of replicas from which the second load leads to the goal, and since when it has not changed.
    at_rest: Option<(u32, Duration)>,
}

impl Hold {
    pub fn new(plan: Plan) -> Self {
        Self {
            load: plan.load,
            first: plan.first,
            at_rest: None,
        }
    }

    /// The load to send now.
    pub fn load(&self) -> SteadyLoad {
        self.first.as_ref().map_or(self.load, |first| first.load)
    }

    /// Observes the effect of the load that is being sent, and returns the reason if the other one is to be sent. `now`
    /// is the time since the recording began.
    pub fn observe(&mut self, record: &Record, now: Duration) -> Option<String> {
        let state = &record.state;
        let deployment = state.deployment.as_ref()?;
        let pods = state.classify_pods(record.clock(now.as_secs_f64()));
        self.advance(deployment, pods, now)
    }

    fn advance(&mut self, deployment: &Deployment, pods: Pods, now: Duration) -> Option<String> {
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
        (now - since >= REST).then(|| {
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
            load: load(50),
            first: Some(First {
                load: load(60),
                rests: 12..=14,
            }),
            at_rest: None,
        };
        // The second after which the second load follows.
        let mut observe = |seconds: std::ops::Range<u64>, desired, ready, not_ready| {
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
            seconds.into_iter().find(|second| {
                let now = Duration::from_secs(*second);
                hold.advance(&deployment, pods, now).is_some()
            })
        };
        assert_eq!(observe(0..60, 4, 4, 0), None, "too few");
        assert_eq!(observe(60..100, 12, 11, 0), None, "one is not ready");
        assert_eq!(
            observe(100..140, 12, 12, 1),
            None,
            "its CPU does not count yet"
        );
        assert_eq!(observe(140..160, 12, 12, 0), None, "not at rest yet");
        assert_eq!(
            observe(160..200, 13, 13, 0),
            Some(190),
            "unchanged for two syncs"
        );
        assert_eq!(observe(200..300, 13, 13, 0), None, "there is no third load");
        assert_eq!(hold.load(), load(50));
    }
}

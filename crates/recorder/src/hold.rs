//! Scales the app to an exact number of replicas: chooses the next load by the reaction to the last one.

use std::{fmt, time::Duration};

use crate::{
    format::{self, replicas},
    record::{Deployment, Record},
    rules::Pods,
    steady_load::{Plan, REST, SteadyLoad, Way},
};

pub struct Hold {
    plan: Plan,
    is_from_above: bool,
    /// Whether the first of two loads is being sent.
    is_first: bool,
    /// The number of replicas, and since when all of them have been ready and counted.
    at_rest: Option<(u32, Duration)>,
    load_started: Duration,
}

impl Hold {
    pub fn new(plan: Plan) -> Self {
        let mut hold = Self {
            is_from_above: plan.from_below.is_none(),
            plan,
            is_first: false,
            at_rest: None,
            load_started: Duration::ZERO,
        };
        hold.is_first = hold.way().first.is_some();
        hold
    }

    fn way(&self) -> &Way {
        let Plan {
            from_below,
            from_above,
            ..
        } = &self.plan;
        let (first, other) = if self.is_from_above {
            (from_above, from_below)
        } else {
            (from_below, from_above)
        };
        first
            .as_ref()
            .or(other.as_ref())
            .expect("a plan has at least one way")
    }

    /// The load to send now.
    pub fn load(&self) -> SteadyLoad {
        match &self.way().first {
            Some(first) if self.is_first => first.load,
            _ => self.way().load,
        }
    }

    /// Updates the state, and returns the reason if another load is to be sent. `now` is the time since the
    /// recording began.
    pub fn observe(&mut self, record: &Record, now: Duration) -> Option<String> {
        let state = &record.state;
        let deployment = state.deployment.as_ref()?;
        let pods = state.classify_pods(record.clock(now.as_secs_f64()));
        self.advance(deployment, pods, now)
    }

    fn advance(&mut self, deployment: &Deployment, pods: Pods, now: Duration) -> Option<String> {
        let Deployment {
            desired,
            existing,
            ready,
            ..
        } = *deployment;
        let is_at_rest =
            [existing, ready] == [desired; 2] && (pods.not_ready, pods.without_metrics) == (0, 0);
        match self.at_rest {
            Some((replicas, _)) if is_at_rest && replicas == desired => {}
            _ => self.at_rest = is_at_rest.then_some((desired, now)),
        }
        let (rested, rested_for) = self
            .at_rest
            .map_or((None, Duration::ZERO), |(replicas, since)| {
                (Some(replicas), now - since.max(self.load_started))
            });
        let goal = self.plan.replicas;
        if self.is_first {
            let rests = self.way().first.as_ref().map(|first| first.rests.clone());
            if rests
                .zip(rested)
                .is_some_and(|(rests, rested)| rests.contains(&rested))
            {
                return (rested_for >= REST).then(|| {
                    self.is_first = false;
                    self.load_started = now;
                    format!("at rest with {}", replicas(desired))
                });
            }
        } else if rested == Some(goal) {
            return None;
        } else if !self.is_from_above && desired > goal {
            return Some(
                self.take_other_way(now, format!("there were {desired}, more than {goal}")),
            );
        }
        let stuck = rested_for >= self.way().timeout;
        stuck.then(|| self.take_other_way(now, format!("it stopped at {desired}")))
    }

    fn take_other_way(&mut self, now: Duration, why: String) -> String {
        let plan = &self.plan;
        self.is_from_above = match self.is_from_above {
            true => plan.from_below.is_none(),
            false => plan.from_above.is_some(),
        };
        self.is_first = self.way().first.is_some();
        self.load_started = now;
        why
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let goal = self.plan.replicas;
        write!(f, "For {}: {}", replicas(goal), describe(self.way()))?;
        write!(f, ". This takes about {}", minutes(self.way().takes))?;
        if let (Some(_), Some(above)) = (&self.plan.from_below, &self.plan.from_above) {
            write!(
                f,
                ", or up to {} if it stops at another number than {goal}, which is then approached from above: {}",
                minutes(self.plan.at_most),
                describe(above)
            )?;
        }
        Ok(())
    }
}

fn describe(way: &Way) -> String {
    let load = |load: SteadyLoad| format!("{load} ({}m)", load.total());
    match &way.first {
        Some(first) => format!(
            "{} until {} replicas are at rest, then {}",
            load(first.load),
            first.rested(),
            load(way.load)
        ),
        None => load(way.load),
    }
}

/// Rounded up to whole minutes.
fn minutes(duration: Duration) -> String {
    format::duration(Duration::from_secs(duration.as_secs().div_ceil(60) * 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Autoscaler;

    fn hold(replicas: u32) -> Hold {
        let deployment = Deployment {
            requests: [("app".into(), [("cpu".into(), 100)].into())].into(),
            ..Deployment::default()
        };
        let plan = Plan::new(replicas, &Autoscaler::of_the_tutorial(), &deployment, 3.0);
        Hold::new(plan.expect("it is in range"))
    }

    /// The load that is sent after this number of replicas has been ready and counted for some seconds.
    fn after(hold: &mut Hold, replicas: u32, seconds: std::ops::Range<u64>) -> Option<(u64, u32)> {
        let deployment = Deployment {
            desired: replicas,
            existing: replicas,
            ready: replicas,
            ..Deployment::default()
        };
        for second in seconds {
            let now = Duration::from_secs(second);
            if hold.advance(&deployment, Pods::default(), now).is_some() {
                return Some((second, hold.load().total()));
            }
        }
        None
    }

    #[test]
    fn from_below_the_load_for_the_goal_follows_once_the_first_one_rests() {
        let mut hold = hold(11);
        let goal = hold.way().load.total();
        assert!(hold.load().total() < goal);
        assert_eq!(after(&mut hold, 4, 0..60), None, "4 are too few");
        assert_eq!(after(&mut hold, 7, 60..100), Some((90, goal)));
        assert_eq!(after(&mut hold, 11, 100..1000), None, "it is there");
    }

    #[test]
    fn what_rests_short_comes_from_above() {
        let mut hold = hold(11);
        after(&mut hold, 7, 0..31);
        // 90 s for new pods, without a window on the way up.
        let (second, load) = after(&mut hold, 10, 40..200).expect("it does not wait for ever");
        assert_eq!(second, 130);
        assert!(load > 600, "{load}m lead to no more than 11");
        assert_eq!(after(&mut hold, 11, 131..200), None, "too few");
        let (second, load) = after(&mut hold, 14, 200..300).expect("the second load follows");
        assert_eq!(second, 230);
        assert!(load <= 550, "{load}m are too much for 11");
        assert_eq!(
            after(&mut hold, 14, 231..600),
            None,
            "the window is awaited"
        );
    }

    #[test]
    fn what_goes_past_comes_from_above_at_once() {
        let mut hold = hold(11);
        after(&mut hold, 7, 0..31);
        let (second, load) = after(&mut hold, 12, 40..100).expect("it went past");
        assert_eq!(second, 40);
        assert!(load > 600, "{load}m");
    }

    #[test]
    fn a_goal_with_one_way_tries_that_again() {
        let mut hold = hold(19);
        assert_eq!(hold.plan.from_above, None);
        let first = hold.way().first.clone().expect("18 tolerate its load");
        for start in [0, 500] {
            after(&mut hold, *first.rests.start(), start..start + 31);
            let again = after(&mut hold, 18, start + 40..start + 400);
            assert_eq!(again, Some((start + 130, first.load.total())));
        }
        after(&mut hold, *first.rests.start(), 1000..1031);
        let past = after(&mut hold, 20, 1040..1100);
        assert_eq!(past, Some((1040, first.load.total())));
    }

    #[test]
    fn how_long_it_may_take_is_said_beforehand() {
        let said = hold(11).to_string();
        for part in [
            "until 6–9 replicas are at rest",
            "takes about 5m",
            "or up to 20m",
            "approached from above",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!hold(19).to_string().contains("from above"));
    }
}

//! What happened beside the decisions: to the pods, to the Deployment, and to the number of
//! autoscalers.

use schemars::JsonSchema;
use serde::Serialize;

use crate::record::{ObservationKind, Record, State};

/// By this time after a recording began, in seconds, every object that exists has been listed.
pub const LISTED: f64 = 5.0;

/// An event to report with the decisions.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct Note {
    /// In seconds since the traffic started.
    #[serde(rename = "seconds")]
    pub at: f64,
    pub text: String,
}

/// What to say when a condition begins, or `None` while it is not there. The argument is whether it
/// already was.
type Find = fn(&State, bool) -> Option<String>;

/// The conditions that are noted, each with what to say when it ends.
const CONDITIONS: [(Find, &str); 4] = [
    (not_created, "pods are created again"),
    (not_scheduled, "all pods are scheduled"),
    (rollout, "the rollout is complete"),
    (
        |state, _| why_unscaled(state),
        "one autoscaler targets the Deployment",
    ),
];

/// The notes of a record; times in seconds since the recording began.
pub fn notes(record: &Record) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut are = [false; CONDITIONS.len()];
    let mut all = record.observations.iter();
    let listed = all.find(|one| matches!(one.kind, ObservationKind::Autoscaler(_)));
    let listed = listed.map_or(0.0, |one| one.at.min(LISTED));
    let mut is_gone = false;
    record.for_each(|observation, state| {
        // Without the Deployment, nothing ends well.
        is_gone |= matches!(observation.kind, ObservationKind::DeploymentGone(_));
        if is_gone || observation.at < listed {
            return;
        }
        for ((find, end), is) in CONDITIONS.iter().zip(&mut are) {
            let found = find(state, *is);
            if found.is_some() != *is {
                *is = !*is;
                notes.push(Note {
                    at: observation.at,
                    text: found.unwrap_or_else(|| end.to_string()),
                });
            }
        }
    });
    notes
}

fn not_created(state: &State, _: bool) -> Option<String> {
    let why = state.deployment.as_ref()?.failure.as_ref()?;
    Some(format!("pods are not created: {why}"))
}

fn not_scheduled(state: &State, _: bool) -> Option<String> {
    let pods = state.pods.values().filter(|pod| !pod.state.leaving);
    let why = pods.filter_map(|pod| pod.unscheduled.as_ref()).next()?;
    // What follows the first sentence is about preemption.
    let why = why.split(". ").next().unwrap_or_default();
    Some(format!("pods are not scheduled: {why}"))
}

/// Until all pods are of the new template and ready, as `kubectl rollout status` waits.
fn rollout(state: &State, is_rolling: bool) -> Option<String> {
    let deployment = state.deployment.as_ref()?;
    let is_incomplete = is_rolling && deployment.ready < deployment.desired;
    (deployment.updated < deployment.existing || is_incomplete)
        .then(|| "a rollout replaces the pods".into())
}

/// Why nothing scales the Deployment, unless one autoscaler targets it.
pub fn why_unscaled(state: &State) -> Option<String> {
    let names: Vec<_> = state.autoscalers.keys().map(String::as_str).collect();
    match *names {
        [] => Some(
            "no autoscaler targets the Deployment: \
             deploy one, or resume its ScaledObject if that is paused"
                .into(),
        ),
        [_] => None,
        _ => Some(format!(
            "several autoscalers target the Deployment, so that none of them acts: {}; \
             keep one of them",
            names.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::common::{self, hpa};

    fn noted(observations: &[(f64, Value)]) -> Vec<String> {
        let notes = notes(&common::record(observations.iter().cloned()));
        let text = |note: &Note| format!("{} s: {}", note.at, note.text);
        notes.iter().map(text).collect()
    }

    fn deployment(desired: u32, existing: u32, updated: u32, ready: u32) -> Value {
        let mut object = common::deployment(desired, ready);
        object["status"]["replicas"] = existing.into();
        object["status"]["updatedReplicas"] = updated.into();
        json!({"deployment": object})
    }

    #[test]
    fn pods_without_a_node_are_noted_until_all_of_them_have_one() {
        let pod = |name: &str, is_scheduled: bool| {
            let mut object = common::pod(name);
            object["status"]["conditions"] = json!([{
                "type": "PodScheduled", "status": if is_scheduled { "True" } else { "False" },
                "message": "0/1 nodes are available: 1 Insufficient cpu. no new claims to \
                            deallocate, preemption: 0/1 nodes are available: \
                            1 No preemption victims found.",
            }]);
            json!({"pod": object})
        };
        let noted = noted(&[
            (0.1, json!({"hpa": hpa(1, 1, 2)})),
            (20.0, pod("a", false)),
            (20.1, pod("b", false)),
            (50.0, pod("a", true)),
            (60.0, json!({"pod_gone": "b"})),
        ]);
        let why = "0/1 nodes are available: 1 Insufficient cpu";
        let begins = format!("20 s: pods are not scheduled: {why}");
        assert_eq!(noted, [&*begins, "60 s: all pods are scheduled"]);
    }

    #[test]
    fn a_rollout_lasts_until_all_pods_are_new_and_ready_and_a_scale_out_is_none() {
        let expected = [
            "30 s: a rollout replaces the pods",
            "50 s: the rollout is complete",
        ];
        let rolling = [
            (0.1, json!({"hpa": hpa(4, 4, 2)})),
            (0.2, deployment(1, 1, 1, 1)),
            (10.0, deployment(4, 4, 4, 1)),
            (20.0, deployment(4, 4, 4, 4)),
            (30.0, deployment(4, 5, 1, 4)),
            (40.0, deployment(4, 4, 4, 3)),
            (50.0, deployment(4, 4, 4, 4)),
        ];
        assert_eq!(noted(&rolling), expected);
        let recreating = [
            (0.1, json!({"hpa": hpa(4, 4, 2)})),
            (0.2, deployment(4, 4, 4, 4)),
            (30.0, deployment(4, 4, 0, 0)),
            (35.0, deployment(4, 0, 0, 0)),
            (40.0, deployment(4, 4, 4, 0)),
            (50.0, deployment(4, 4, 4, 4)),
        ];
        assert_eq!(noted(&recreating), expected);
        let mut deleted = recreating[..4].to_vec();
        deleted.push((38.0, json!({"deployment_gone": true})));
        assert_eq!(noted(&deleted), expected[..1]);
    }

    #[test]
    fn an_autoscaler_that_goes_and_comes_back_is_noted() {
        let none = why_unscaled(&State::default()).expect("there is no autoscaler");
        let none_at = |at: f64| format!("{at} s: {none}");
        let one = "60 s: one autoscaler targets the Deployment";
        let found = json!({"hpa": hpa(1, 1, 2)});
        let deployed = deployment(1, 1, 1, 1);
        // The Deployment is listed before the autoscaler.
        let mut paused = vec![(0.1, deployed.clone()), (0.2, found.clone())];
        assert!(noted(&paused).is_empty());
        let gone = json!({"hpa_gone": "keda-hpa-cpu-scaling"});
        paused.extend([(30.0, gone), (60.0, found.clone())]);
        assert_eq!(noted(&paused), [&*none_at(30.0), one]);
        assert_eq!(noted(&paused[..1]), [none_at(0.1)]);
        let resumed = [(0.1, deployed.clone()), (6.0, deployed), (60.0, found)];
        assert_eq!(noted(&resumed), [&*none_at(6.0), one]);
    }
}

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
    let mut later = record.observations.iter().skip(1);
    let mut is_gone = false;
    record.for_each(|observation, state| {
        let is_listing = later.next().is_some_and(|next| next.at <= listed);
        // Without the Deployment, nothing ends well.
        is_gone |= matches!(observation.kind, ObservationKind::DeploymentGone(_));
        if is_gone || is_listing {
            return;
        }
        for ((find, end), is) in CONDITIONS.iter().zip(&mut are) {
            let found = find(state, *is);
            if found.is_some() != *is {
                *is = !*is;
                notes.push(Note {
                    at: observation.at.max(listed),
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

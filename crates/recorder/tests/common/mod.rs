//! Objects of the API as a cluster returned them, changed for a test, and records of them.
#![allow(dead_code, reason = "each test needs only some of them")]

use std::{fs, path::Path};

use recorder::record::Record;
use serde_json::{Value, json};

/// A record of these observations: times, and lines of the file without them.
pub fn record(observations: impl IntoIterator<Item = (f64, Value)>) -> Record {
    let mut record = Record::default();
    for (at, line) in observations {
        let kind = serde_json::from_value(line).expect("it is an observation");
        record.add(at, kind);
    }
    record
}

pub fn object(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/objects/{name}.json"));
    let text = fs::read_to_string(&path).expect("the object is in the repository");
    serde_json::from_str(&text).expect("it is JSON")
}

/// All replicas exist, but not all of them are ready.
pub fn deployment(desired: u32, ready: u32) -> Value {
    let mut object = object("deployment");
    object["spec"]["replicas"] = desired.into();
    object["status"]["replicas"] = desired.into();
    object["status"]["updatedReplicas"] = desired.into();
    object["status"]["readyReplicas"] = ready.into();
    object
}

/// The HorizontalPodAutoscaler of the tutorial, after it read this CPU usage in percent.
pub fn hpa(from: u32, to: u32, cpu: u32) -> Value {
    let mut object = object("hpa");
    let status = &mut object["status"];
    status["currentReplicas"] = from.into();
    status["desiredReplicas"] = to.into();
    let current = json!({"averageUtilization": cpu, "averageValue": format!("{cpu}m")});
    status["currentMetrics"][0]["resource"]["current"] = current;
    let able = if from != to {
        "SucceededRescale"
    } else if cpu < 45 && from > 1 && (from - 1) * 50 >= from * cpu {
        "ScaleDownStabilized"
    } else {
        "ReadyForNewScale"
    };
    status["conditions"][0]["reason"] = able.into();
    object
}

pub fn pod(name: &str) -> Value {
    let mut object = object("pod");
    object["metadata"]["name"] = name.into();
    object
}

/// Each message is an event of its own.
pub fn event(message: &str) -> Value {
    let mut object = object("event");
    object["metadata"]["name"] = message.into();
    object["metadata"]["uid"] = message.into();
    object["message"] = message.into();
    object
}

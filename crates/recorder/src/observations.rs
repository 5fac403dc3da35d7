//! What is seen, and its file `observations.jsonl`, which has the objects of the API.
//!
//! The first line of the file says when the recording began and how it ended, each other line is
//! one observation: `{"at": 12.5, "pod": {…}}`. A live recording reads its own lines, so that one
//! that is read from such a file is the same.

use std::{
    fs,
    io::{self, BufRead, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v2::HorizontalPodAutoscaler, core::v1 as core,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    record::{Observation, ObservationKind, Record},
    rules::Flags,
};

/// Its name in the folder of a recording.
pub const FILE: &str = "observations.jsonl";
/// The name of the watch of autoscalers, in `lost` and `regained`.
pub const AUTOSCALERS: &str = "autoscalers";

/// What is seen: objects as the API has them.
pub type Seen = ObservationKind<apps::Deployment, HorizontalPodAutoscaler, core::Pod, core::Event>;

impl Seen {
    /// Its line of the file, without the fields that the explanation does not need.
    pub fn line(&self, at: f64) -> serde_json::Result<Value> {
        let mut line = serde_json::to_value(self)?;
        reduce(&mut line);
        line["at"] = at.into();
        Ok(line)
    }
}

/// The first line of the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Header {
    pub began: Timestamp,
    /// The name of the Deployment.
    pub deployment: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The flags of the controller manager that the explanation assumes.
    #[serde(default)]
    pub flags: Flags,
    /// How the recording ended.
    #[serde(default)]
    pub verdict: Verdict,
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

/// The file of a running recording. It has each line as soon as it is added, so that nothing is
/// lost if the recorder is killed or fails.
pub struct Log(fs::File);

impl Log {
    /// The header is the one that a recording has that never finishes.
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let mut log = Self(fs::File::create(path)?);
        log.write(header)?;
        Ok(log)
    }

    /// Replaces the header; the old file stays until the new one is complete.
    pub fn finish(self, path: &Path, header: &Header) -> io::Result<()> {
        let new_path = path.with_extension("jsonl.new");
        let mut old = io::BufReader::new(fs::File::open(path)?);
        old.skip_until(b'\n')?;
        let mut new = Self::create(&new_path, header)?;
        io::copy(&mut old, &mut new.0)?;
        fs::rename(new_path, path)
    }

    pub fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.0.write_all(&bytes)
    }
}

/// Reads a recording from the file of its observations. `flags` changes those that the recording
/// assumed.
///
/// # Errors
/// If the file cannot be read, or if a line of it is not an observation.
pub fn read(path: &Path, flags: impl FnOnce(Flags) -> Flags) -> Result<(Header, Record)> {
    let file = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("{file} cannot be read"))?;
    let mut lines = serde_json::Deserializer::from_str(&text);
    let mut header = Header::deserialize(&mut lines).with_context(|| {
        format!(
            "{file}: the first line must be \
             {{\"began\": \"<RFC 3339>\", \"deployment\": \"<name>\"}}"
        )
    })?;
    header.flags = flags(header.flags);
    let mut record = Record::new(header.began, header.flags);
    for line in lines.into_iter::<Observation>() {
        match line {
            Ok(Observation { at, kind }) => record.add(at, kind),
            // The disk was full, or the machine was turned off.
            Err(why) if why.is_eof() => {}
            Err(why) => bail!("{file}, line {}: not an observation: {why}", why.line()),
        }
    }
    Ok((header, record))
}

/// Removes the fields that the explanation does not need. Above all no secret may get into a file:
/// no environment, no command, no annotations (kubectl keeps whole objects there).
fn reduce(line: &mut Value) {
    for spec in ["/pod/spec", "/deployment/spec/template/spec"] {
        let fields = ["containers", "initContainers", "overhead", "resources"];
        keep(line.pointer_mut(spec), &fields);
        for containers in ["containers", "initContainers"] {
            let containers = line.pointer_mut(&format!("{spec}/{containers}"));
            let containers = containers.and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let fields = ["image", "name", "resources", "restartPolicy"];
                keep(Some(container), &fields);
            }
        }
    }
    // The states of containers include the last output of the app.
    let fields = ["conditions", "message", "phase", "reason", "startTime"];
    keep(line.pointer_mut("/pod/status"), &fields);
    remove_annotations(line);
}

fn keep(object: Option<&mut Value>, fields: &[&str]) {
    if let Some(object) = object.and_then(Value::as_object_mut) {
        object.retain(|field, _| fields.contains(&&**field));
    }
}

fn remove_annotations(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(remove_annotations),
        Value::Object(fields) => {
            fields.retain(|field, _| field != "annotations" && field != "managedFields");
            fields.values_mut().for_each(remove_annotations);
        }
        _ => {}
    }
}

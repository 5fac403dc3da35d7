//! The decisions of the autoscalers and their reasons, as rows. Like ones in succession are one
//! row.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    computation::Decision,
    evidence::Sightings,
    follower::Follower,
    notes::{Note, notes},
    record::{ObservationKind, Record},
    rules::Flags,
};

/// The decisions of a record, and what else happened; times in seconds since the traffic started.
pub fn decisions(record: &Record) -> (Vec<Decision>, Vec<Note>) {
    let sightings = Sightings::new(record);
    let mut rows: Vec<Decision> = Vec::new();
    let mut notes = notes(record);
    for name in autoscalers(record) {
        let (own_rows, own_notes) = Follower::new(record, &sightings, name).follow();
        rows.extend(own_rows.into_iter().filter(Decision::is_noteworthy));
        notes.extend(own_notes);
    }
    rows.sort_by(|one, other| one.at.total_cmp(&other.at));
    notes.extend(doubt(&rows, record.flags));
    notes.sort_by(|one, other| one.at.total_cmp(&other.at));
    rows.dedup_by(|row, last| {
        let is_like = last.is_like(row);
        if is_like {
            last.until = row.at;
            last.times += 1;
        }
        is_like
    });
    let origin = record.time_origin();
    for row in &mut rows {
        row.at -= origin;
        row.until -= origin;
    }
    for note in &mut notes {
        note.at -= origin;
    }
    (rows, notes)
}

/// The names of all autoscalers that were seen.
fn autoscalers(record: &Record) -> BTreeSet<&str> {
    let kinds = record.observations.iter().map(|one| &one.kind);
    kinds
        .filter_map(|kind| match kind {
            ObservationKind::Autoscaler(autoscaler) => Some(autoscaler.name.as_str()),
            _ => None,
        })
        .collect()
}

/// A note that the flags may differ, if many decisions contradict the rules.
fn doubt(rows: &[Decision], flags: Flags) -> Option<Note> {
    let doubtful: Vec<_> = rows.iter().filter(|row| row.by_rules.is_some()).collect();
    if doubtful.len() < 3 || doubtful.len() * 20 < rows.len() {
        return None;
    }
    let mut said: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &doubtful {
        let remark = row.remark.as_deref().unwrap_or_default();
        let reason = remark.split_once(':').map_or(remark, |(reason, _)| reason);
        *said.entry(reason).or_default() += 1;
    }
    let said = said.iter();
    let said: Vec<_> = said
        .map(|(said, count)| format!("{said} × {count}"))
        .collect();
    Some(Note {
        at: doubtful[0].at,
        text: format!(
            "{} of {} decisions contradict the rules ({}); the flags of the controller manager may \
             differ from those that are assumed: --sync-period {}s, --tolerance {}, \
             --downscale-stabilization {}s",
            doubtful.len(),
            rows.len(),
            said.join(", "),
            flags.sync_period,
            flags.tolerance,
            flags.downscale_stabilisation
        ),
    })
}

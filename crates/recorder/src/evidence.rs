//! What an autoscaler may have seen when it computed: the pods and their usage.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    objects::{Pod, Usage, total},
    record::{Observation, ObservationKind, Record},
    rules::{Class, Sample},
};

/// Pods may be seen up to this long before the decision that creates or removes them, in seconds.
const LEAD: f64 = 0.5;
/// An autoscaler may read usage up to this long before a poll sees it.
const LAG: f64 = 6.0;

/// The pods and their usage at one time, by the name of the pod.
pub struct Evidence<'a> {
    pub pods: BTreeMap<&'a str, &'a Pod>,
    pub usage: BTreeMap<&'a str, &'a Usage>,
    pub now: Timestamp,
}

impl Evidence<'_> {
    /// Each pod with its usage of a resource, also those that are gone but still have a usage.
    pub fn measure(&self, resource: &str, container: Option<&str>) -> Vec<Sample> {
        let of = |usage: &Usage| total(&usage.containers, resource, container);
        let pods = self.pods.iter().map(|(name, pod)| {
            let usage = self.usage.get(name);
            let measured = usage.and_then(|usage| Some((usage.window, of(usage)?)));
            let window = measured.map(|(window, _)| window);
            Sample {
                class: Class::of(pod.state, window, resource == "cpu", self.now),
                pods: 1,
                usage: measured.map_or(0, |(_, usage)| usage),
                request: total(&pod.requests, resource, container).unwrap_or_default(),
            }
        });
        let usages = self.usage.iter();
        let gone = usages.filter(|(name, _)| !self.pods.contains_key(*name));
        let gone = gone.filter_map(|(_, usage)| {
            Some(Sample {
                class: Class::Gone,
                pods: 1,
                usage: of(usage)?,
                request: 0,
            })
        });
        pods.chain(gone).collect()
    }
}

/// All pods and all their usage that were seen, with their times.
pub struct Sightings<'a> {
    record: &'a Record,
    /// Each change of a pod, by its name; `None` if it was gone.
    pods: Vec<(f64, &'a str, Option<&'a Pod>)>,
    usages: Vec<(f64, &'a [Usage])>,
}

impl<'a> Sightings<'a> {
    pub fn new(record: &'a Record) -> Self {
        let mut all = Self {
            record,
            pods: Vec::new(),
            usages: Vec::new(),
        };
        for Observation { at, kind } in &record.observations {
            match kind {
                ObservationKind::Pod(pod) => all.pods.push((*at, &pod.name, Some(pod))),
                ObservationKind::PodGone(name) => all.pods.push((*at, name, None)),
                ObservationKind::Usage(usage) => all.usages.push((*at, usage)),
                _ => {}
            }
        }
        all
    }

    /// What was seen shortly before and after a computation; the likeliest first.
    pub fn around(&self, at: f64, is_change: bool) -> Vec<Evidence<'a>> {
        let next = self.usages.partition_point(|(polled, _)| *polled <= at);
        let before = self.usages[..next].last();
        let by_name = |(_, usage): &(f64, &'a [Usage])| usage.iter().map(|one| (one.pod(), one));
        let before: BTreeMap<_, _> = before.into_iter().flat_map(by_name).collect();
        let after = self.usages.get(next);
        let after = after.filter(|(polled, _)| *polled <= at + LAG);
        let mut snapshots = [at, at - LEAD].map(|until| self.pods_at(until));
        if is_change {
            snapshots.reverse();
        }
        let mut evidence = Vec::new();
        for pods in snapshots {
            let mut later = BTreeMap::new();
            if let Some(after) = after {
                // A pod that was deleted before this poll had been measured.
                later = before.clone();
                later.retain(|name, _| pods.contains_key(name) && self.is_deleted(name, after.0));
                later.extend(by_name(after));
            }
            evidence.extend([before.clone(), later].map(|usage| Evidence {
                pods: pods.clone(),
                usage,
                now: self.record.clock(at),
            }));
        }
        evidence
    }

    fn pods_at(&self, until: f64) -> BTreeMap<&'a str, &'a Pod> {
        let mut pods = BTreeMap::new();
        for (_, name, pod) in self.pods.iter().take_while(|(at, ..)| *at <= until) {
            match pod {
                Some(pod) => pods.insert(*name, *pod),
                None => pods.remove(name),
            };
        }
        pods
    }

    /// Whether a pod was being deleted at this time, or gone.
    fn is_deleted(&self, name: &str, until: f64) -> bool {
        let seen = self.pods.iter().take_while(|(at, ..)| *at <= until);
        let mut own = seen.filter(|(_, seen, _)| *seen == name);
        own.any(|(.., pod)| pod.is_none_or(|pod| pod.state.leaving))
    }
}

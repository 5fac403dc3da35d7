//! Common and unusual autoscalers: the observations of each, and the report of the recorder.

mod common;

use std::{fs, io, path::Path};

use flate2::read::GzDecoder;
use jiff::Timestamp;
use proptest::{collection::vec, prelude::any, prop_assert, proptest, sample::Index};
use recorder::{
    chart, files,
    observations::{self, Header, Verdict},
    record::{ObservationKind, Record},
    report::Report,
    steady_load::Plan,
};
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::record;

fn header(record: &Record) -> Header {
    Header {
        began: record.began,
        deployment: "app".into(),
        expected: None,
        flags: record.flags,
        verdict: Verdict::default(),
    }
}

/// Compares a text with a file of the repository. If a change is intended, copy the new one.
fn assert_same(text: &str, folder: &str, name: &str) {
    let old = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join(name);
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&new, text).expect("the folder is writable");
    let is_same = fs::read_to_string(&old).is_ok_and(|old| old == text);
    assert!(is_same, "see diff {} {}", old.display(), new.display());
}

/// The run of the tutorial that the README shows: its report, and its chart by `make picture`.
#[test]
fn the_example_of_the_documentation_is_up_to_date() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example.jsonl");
    let recording = fs::File::open(docs.join("autoscale.jsonl.gz")).expect("the recording");
    let mut copy = fs::File::create(&file).expect("the folder is writable");
    io::copy(&mut GzDecoder::new(recording), &mut copy).expect("it is compressed");
    let (header, record) = observations::read(&file, |flags| flags).expect("observations");
    let report = Report::new(&header, &record);
    assert_same(&report.markdown(), "tests", "report.md");
    let chart = chart::draw(&report).expect("it can be drawn");
    assert_same(&chart, "../../docs", "autoscale.svg");
}

#[test]
fn the_schema_is_that_of_the_types() {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<Report>();
    let schema = format!("{:#}\n", schema.to_value());
    assert_same(&schema, ".", "autoscale.schema.json");
}

/// The autoscaler of the tutorial, with this reading and this number of replicas.
fn hpa(from: u32, to: u32, cpu: u32) -> Value {
    let mut object = common::hpa(from, to, cpu);
    object["metadata"]["name"] = "hpa".into();
    json!({"hpa": object})
}

/// A metric with its target or its current value.
fn resource(name: &str, key: &str, percent: u32) -> Value {
    let value = json!({"averageUtilization": percent, "averageValue": format!("{percent}m")});
    json!({"type": "Resource", "resource": {"name": name, key: value}})
}

fn condition(kind: &str, is_true: bool, reason: &str, message: &str) -> Value {
    let status = if is_true { "True" } else { "False" };
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// The same, while it cannot read its metrics: the old number of replicas stays in its status.
fn failing(from: u32, to: u32, reason: &str, message: &str) -> Value {
    let mut object = hpa(from, to, 0);
    object["hpa"]["status"]["currentMetrics"] = json!([{"type": ""}]);
    object["hpa"]["status"]["conditions"] = json!([
        condition("ScalingLimited", true, "ScaleUpLimit", ""),
        condition("ScalingActive", false, reason, message),
        condition("AbleToScale", true, "SucceededGetScale", ""),
    ]);
    object
}

fn new_hpa() -> Value {
    let mut object = hpa(0, 0, 0);
    object["hpa"]["status"] = json!({"desiredReplicas": 0, "currentMetrics": null});
    object
}

/// A pod that has been ready for a long time, with this request of CPU in each container.
fn pod(name: &str, containers: &[(&str, &str)]) -> Value {
    let mut object = common::pod(name);
    let containers = containers.iter();
    object["metadata"]["creationTimestamp"] = "1969-12-31T00:00:00Z".into();
    object["spec"]["containers"] = containers
        .map(|(name, cpu)| json!({"name": name, "resources": {"requests": {"cpu": cpu}}}))
        .collect();
    object["status"]["startTime"] = "1969-12-31T00:00:00Z".into();
    object["status"]["conditions"][0]["lastTransitionTime"] = "1969-12-31T00:00:10Z".into();
    json!({"pod": object})
}

fn usage(pods: &[(&str, &[(&str, &str)])]) -> Value {
    let pods = pods.iter().map(|(name, containers)| {
        let containers = containers.iter();
        let containers = containers.map(|(name, cpu)| json!({"name": name, "usage": {"cpu": cpu}}));
        json!({
            "metadata": {"name": name},
            "timestamp": "1970-01-01T00:00:00Z",
            "window": "15s",
            "containers": containers.collect::<Value>(),
        })
    });
    json!({"usage": pods.collect::<Value>()})
}

/// The replicas of a Deployment, its pods, those of the current template, and the ready ones.
fn pods(desired: u32, existing: u32, updated: u32, ready: u32) -> Value {
    let mut object = common::deployment(desired, ready);
    object["status"]["replicas"] = existing.into();
    object["status"]["updatedReplicas"] = updated.into();
    json!({"deployment": object})
}

/// All of its replicas are ready.
fn deployment(replicas: u32) -> Value {
    pods(replicas, replicas, replicas, replicas)
}

/// The autoscaler of a ScaledObject, while its metrics are not read for this reason.
fn keda(replicas: u32, reason: &str) -> Value {
    let mut object = failing(replicas, 1, reason, "");
    object["hpa"]["metadata"]["ownerReferences"] = json!([
        {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "app", "uid": "1"},
    ]);
    object
}

/// An autoscaler for metrics with these targets and current values, and the one that it names.
fn hpa_for(from: u32, to: u32, [target, current]: [Value; 2], deciding: &str) -> Value {
    let message = "the HPA was able to successfully calculate a replica count from";
    let mut object = hpa(from, to, 50);
    object["hpa"]["spec"]["metrics"] = target;
    object["hpa"]["status"]["currentMetrics"] = current;
    object["hpa"]["status"]["conditions"][1]["message"] = format!("{message} {deciding}").into();
    object
}

/// Scales for CPU and memory; both readings are of their targets 50 and 60.
fn both(from: u32, to: u32, cpu: u32, memory: u32) -> Value {
    let metrics = [("target", 50, 60), ("current", cpu, memory)];
    let metrics = metrics.map(|(key, cpu, memory)| {
        json!([resource("cpu", key, cpu), resource("memory", key, memory)])
    });
    let deciding = "memory resource utilization (percentage of request)";
    hpa_for(from, to, metrics, deciding)
}

/// Scales for CPU, and for KEDA's trigger of times with this average.
fn cron(from: u32, to: u32, average: &str) -> Value {
    let metrics = [("target", 50, "1"), ("current", 2, average)];
    let metrics = metrics.map(|(key, cpu, average)| {
        let source = json!({"metric": {"name": "s1-cron"}, key: {"averageValue": average}});
        json!([resource("cpu", key, cpu), {"type": "External", "external": source}])
    });
    let deciding = "external metric s1-cron(&LabelSelector{MatchLabels:map[string]string{},})";
    hpa_for(from, to, metrics, deciding)
}

/// Scales for the CPU of one container.
fn of_app(from: u32, to: u32, cpu: u32) -> Value {
    let metrics = [("target", 50), ("current", cpu)].map(|(key, percent)| {
        let value = json!({"averageUtilization": percent, "averageValue": "201m"});
        let source = json!({"name": "cpu", "container": "app", key: value});
        json!([{"type": "ContainerResource", "containerResource": source}])
    });
    let deciding = "cpu container resource utilization (percentage of request)";
    hpa_for(from, to, metrics, deciding)
}

/// The autoscaler is gone for a while; then it computes for the first time.
fn recreated(gone: f64, back: f64, sync: f64, to: u32) -> Vec<(f64, Value)> {
    vec![
        (0.0, hpa(1, 1, 2)),
        (15.0, hpa(1, 4, 1000)),
        (gone, json!({"hpa_gone": "hpa"})),
        (back, new_hpa()),
        (sync, hpa(4, to, 2)),
    ]
}

/// All watches are lost while an autoscaler changes the replicas, and the events come back last.
fn all_lost() -> Vec<(f64, Value)> {
    let event = |second: u32, to: u32| {
        let mut event = common::event(&format!("New size: {to}; reason: cpu"));
        event["involvedObject"]["name"] = "hpa".into();
        event["lastTimestamp"] = format!("1970-01-01T00:00:{second}Z").into();
        (91.0, json!({"event": event}))
    };
    let why = "connection refused";
    let lost = |what: &str| (5.0, json!({"lost": {"what": what, "why": why}}));
    let regained = |what: &str| (90.0, json!({"regained": {"what": what}}));
    let mut scaled = hpa(20, 20, 50);
    scaled["hpa"]["status"]["lastScaleTime"] = "1970-01-01T00:00:59Z".into();
    vec![
        (0.0, hpa(1, 1, 2)),
        (0.0, deployment(1)),
        lost("autoscalers"),
        lost("Deployments"),
        lost("events"),
        regained("autoscalers"),
        (90.0, scaled),
        regained("Deployments"),
        (90.0, deployment(20)),
        regained("events"),
        event(59, 20),
        event(44, 16),
        event(29, 8),
        event(14, 4),
        (105.0, hpa(20, 20, 60)),
    ]
}

#[test]
fn the_reports_are_those_in_the_repository() {
    let mut reports = String::new();
    let mut add = |title: &str, seen: Vec<(f64, Value)>| {
        let record = record(seen);
        let header = header(&record);
        let report = Report::new(&header, &record);
        reports += &format!("# {title}\n\n{}", report.markdown());
        chart::draw(&report).expect("it can be drawn")
    };
    let mut first_fails = both(2, 4, 0, 120);
    first_fails["hpa"]["status"]["currentMetrics"][0] = json!({"type": ""});
    let quota = "pods \"app-6d5c7b9f4d-xk2vz\" is forbidden: exceeded quota: cpu, \
                 requested: cpu=500m, used: cpu=2, limited: cpu=2";
    let failure = condition("ReplicaFailure", true, "FailedCreate", quota);
    let mut no_quota = deployment(1);
    no_quota["deployment"]["status"]["conditions"] = json!([failure]);
    let scheduled = |name: &str, is_scheduled: bool| {
        let why = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
                   preemption: 0/1 nodes are available: 1 No preemption victims found.";
        let mut object = pod(name, &[]);
        let scheduled = condition("PodScheduled", is_scheduled, "", why);
        object["pod"]["status"]["conditions"] = json!([scheduled]);
        object
    };
    let why = "pods are controlled by multiple HPAs";
    let ambiguous = failing(2, 2, "AmbiguousSelector", why);
    let other = |mut object: Value| {
        object["hpa"]["metadata"]["name"] = "other".into();
        object
    };
    let mut above = hpa(42, 20, 0);
    above["hpa"]["status"]["currentMetrics"] = Value::Null;
    let mut outage = vec![(0.0, hpa(1, 1, 2)), (15.0, hpa(1, 4, 200))];
    let blind = failing(4, 0, "FailedGetResourceMetric", "no metrics returned");
    outage.extend((2..=25).map(|sync| (f64::from(sync) * 15.02, blind.clone())));
    outage.push((391.0, hpa(4, 1, 2)));
    let mut unscalable = blind;
    unscalable["hpa"]["status"]["conditions"][2] =
        condition("AbleToScale", false, "FailedGetScale", "timed out");
    let (app, proxied) = ([("app", "100m")], [("app", "200m"), ("proxy", "1")]);
    let response = |seconds: u32| json!({"response": {"seconds": seconds}});
    let started = json!({"traffic_started": "40 connections"});
    let ended = json!({"traffic_ended": {}});
    let unscaled = vec![
        (0.0, hpa(1, 1, 2)),
        (5.0, response(0)),
        (10.0, started.clone()),
        (20.0, response(0)),
        (80.0, response(0)),
        (100.0, ended.clone()),
    ];
    let mut stuck = unscaled.clone();
    stuck.insert(3, (15.0, hpa(1, 4, 500)));
    add(
        "Memory leads from 2 to 4, not CPU",
        vec![(0.0, both(2, 2, 5, 60)), (15.0, both(2, 4, 5, 120))],
    );
    add(
        "While the status of CPU is empty, memory keeps its own target",
        vec![(0.0, both(2, 2, 5, 60)), (15.0, first_fails)],
    );
    add(
        "A metric that is not about pods has the name that the autoscaler gives it",
        vec![
            (0.0, cron(1, 1, "1")),
            (0.0, pod("a", &app)),
            (15.0, cron(1, 4, "9")),
        ],
    );
    // 402m of 600m are 67 %, so that 5 are recommended.
    add(
        "A metric of a container counts that container alone, and one pod has no metrics for it",
        vec![
            (0.0, of_app(3, 3, 50)),
            (0.0, pod("a", &proxied)),
            (0.0, pod("b", &proxied)),
            (0.0, pod("c", &proxied)),
            (
                1.0,
                usage(&[
                    ("a", &[("app", "201m"), ("proxy", "5m")]),
                    ("b", &[("app", "201m"), ("proxy", "900m")]),
                    ("c", &[("proxy", "900m")]),
                ]),
            ),
            (15.0, of_app(3, 5, 100)),
        ],
    );
    add(
        "A quota that prevents pods is noted once, and when it no longer does",
        vec![
            (0.0, deployment(1)),
            (30.0, no_quota.clone()),
            (40.0, no_quota),
            (60.0, deployment(1)),
        ],
    );
    add(
        "Pods without a node are noted until all of them have one",
        vec![
            (0.0, hpa(1, 1, 2)),
            (20.0, scheduled("a", false)),
            (20.1, scheduled("b", false)),
            (50.0, scheduled("a", true)),
            (60.0, json!({"pod_gone": "b"})),
        ],
    );
    add(
        "A rollout lasts until all pods are new and ready, and a scale-out is none",
        vec![
            (0.0, hpa(4, 4, 2)),
            (0.0, pods(1, 1, 1, 1)),
            (10.0, pods(4, 4, 4, 1)),
            (20.0, pods(4, 4, 4, 4)),
            (30.0, pods(4, 5, 1, 4)),
            (40.0, pods(4, 4, 4, 3)),
            (50.0, pods(4, 4, 4, 4)),
            // The strategy Recreate.
            (60.0, pods(4, 4, 0, 0)),
            (65.0, pods(4, 0, 0, 0)),
            (70.0, pods(4, 4, 4, 0)),
            (80.0, pods(4, 4, 4, 4)),
            (90.0, pods(4, 4, 0, 0)),
            (95.0, json!({"deployment_gone": true})),
        ],
    );
    add(
        "An autoscaler that is deployed late, goes and comes back",
        vec![
            (0.1, deployment(1)),
            (20.0, hpa(1, 1, 2)),
            (30.0, json!({"hpa_gone": "hpa"})),
            (60.0, hpa(1, 1, 2)),
        ],
    );
    add(
        "Two autoscalers of one Deployment are noted in one line, until one is gone",
        vec![
            (0.0, hpa(2, 2, 50)),
            (20.0, other(new_hpa())),
            (30.0, ambiguous.clone()),
            (35.0, other(ambiguous)),
            (60.0, json!({"hpa_gone": "other"})),
            (75.0, hpa(2, 4, 100)),
        ],
    );
    add(
        "KEDA is named with the time of its change, and each reason not to decide",
        vec![
            (0.0, keda(0, "ScalingDisabled")),
            (0.0, deployment(0)),
            (21.0, deployment(1)),
            (30.0, keda(1, "FailedGetExternalMetric")),
        ],
    );
    add(
        "KEDA does not scale to zero for CPU alone",
        vec![
            (0.0, keda(4, "FailedGetResourceMetric")),
            (15.0, keda(0, "ScalingDisabled")),
        ],
    );
    // 4 was recommended more than five minutes ago.
    add(
        "An outage of the metrics is noted once, and recommendations expire meanwhile",
        outage,
    );
    add(
        "That the replicas cannot be set is quoted before other reasons",
        vec![(0.0, unscalable)],
    );
    add(
        "All watches are lost, and the events of the changes come back last",
        all_lost(),
    );
    add(
        "Outside the bounds the bound is the reason",
        vec![(0.0, hpa(20, 20, 50)), (15.0, above)],
    );
    let statuses = [
        (0.0, 1, 1, 2),
        (15.0, 1, 4, 500),
        (30.0, 4, 8, 54),
        (45.0, 8, 10, 54),
        (60.0, 10, 10, 10),
        (75.0, 10, 10, 54),
        (90.0, 10, 10, 53),
        (105.0, 10, 10, 10),
    ];
    let chart = add(
        "A change is a row, and so is what held one back, once while it repeats",
        statuses
            .map(|(at, from, to, cpu)| (at, hpa(from, to, cpu)))
            .into(),
    );
    // An unchanged number is marked where its reason is new.
    for label in ["8→10 window", "10 tolerance", "10 window"] {
        let marks = chart.lines().filter(|line| *line == label);
        assert_eq!(marks.count(), 1, "{label}");
    }
    // 20 replicas were recommended before, and still are.
    add(
        "An autoscaler that is replaced between two computations keeps its memory",
        recreated(16.0, 28.0, 30.1, 8),
    );
    add(
        "An autoscaler that is gone at a computation loses its memory",
        recreated(29.0, 35.0, 50.0, 4),
    );
    add(
        "Only b is a new pod: c and d replace others, c with one pod more than replicas",
        vec![
            (0.0, hpa(1, 1, 2)),
            (1.0, pod("a", &app)),
            (5.0, started.clone()),
            (15.0, hpa(1, 2, 100)),
            (20.0, pod("b", &app)),
            (40.0, pod("c", &app)),
            (41.0, json!({"pod_gone": "a"})),
            (50.0, pod("d", &app)),
            (51.0, json!({"pod_gone": "b"})),
        ],
    );
    add(
        "Replicas that are ready when a recording begins are not new",
        vec![
            (0.05, pod("a", &app)),
            (0.06, pod("b", &app)),
            (0.10, deployment(2)),
            (0.11, hpa(2, 2, 50)),
            (30.0, deployment(3)),
            (40.0, pod("c", &app)),
        ],
    );
    add(
        "Each probe belongs to the phase in which it was sent, of all the loads of a hold",
        vec![
            (0.0, hpa(1, 1, 2)),
            (1.0, pod("old", &app)),
            (9.0, response(1)),
            (10.0, started.clone()),
            (30.0, hpa(1, 4, 500)),
            (40.0, pod("new", &app)),
            (45.0, ended.clone()),
            (45.0, started.clone()),
            (50.0, pod("newer", &app)),
            (52.0, response(4)),
            (53.0, json!({"response": {"seconds": 1, "failed": "503"}})),
            (100.0, ended.clone()),
        ],
    );
    add(
        "Idle once no pod is terminating and all are ready, also with none by KEDA",
        vec![
            (0.0, hpa(1, 1, 2)),
            (0.0, deployment(2)),
            (5.0, started),
            (20.0, ended),
            (25.0, pods(1, 2, 2, 1)),
            (30.0, pods(1, 1, 1, 0)),
            (40.0, deployment(0)),
        ],
    );
    add("Without a scale-out no probe is of one", unscaled);
    add("No new pod is ever ready", stuck);
    assert_same(&reports, "tests", "autoscalers.md");
}

#[test]
fn resource_requests_are_read_from_the_pods() {
    let mut limits = deployment(1);
    let container = &mut limits["deployment"]["spec"]["template"]["spec"]["containers"][0];
    container["resources"] = json!({"limits": {"cpu": "400m"}});
    let with = |pod: Option<&Value>| {
        let objects = [hpa(1, 1, 2), limits.clone()]
            .into_iter()
            .chain(pod.cloned());
        record(objects.map(|object| (0.0, object))).state
    };
    let target = |pod: Option<&Value>| with(pod).target_millicores();
    assert_eq!(target(None), Some(200.0), "the template has limits alone");
    let plan = Plan::new(3, &with(None), 3.0).expect("400m are requested");
    assert!((400..600).contains(&plan.load.total()), "{plan}");
    // A LimitRange's default, an injected sidecar, and one that is an init container.
    let mut injected = pod("a", &[("app", "100m"), ("proxy", "50m")]);
    injected["pod"]["spec"]["initContainers"] = json!([
        {"name": "setup", "resources": {"requests": {"cpu": "2"}}},
        {"name": "logs", "restartPolicy": "Always", "resources": {"requests": {"cpu": "30m"}}},
    ]);
    assert_eq!(target(Some(&injected)), Some(90.0));
    injected["pod"]["spec"]["resources"] = json!({"requests": {"cpu": "500m"}});
    assert_eq!(target(Some(&injected)), Some(250.0), "a request of the pod");
}

#[test]
fn a_limit_is_quoted_unless_something_fails() {
    for (is_limited, expected) in [(true, Some("ScalingLimited")), (false, None)] {
        let mut object = hpa(1, 1, 2);
        object["hpa"]["status"]["conditions"] = json!([
            condition("ScalingActive", true, "ValidMetricFound", ""),
            condition("ScalingLimited", is_limited, "TooFewReplicas", ""),
        ]);
        let state = record([(0.0, object)]).state;
        let autoscaler = state.autoscaler().expect("it is there");
        assert_eq!(autoscaler.complaint().map(|one| &*one.type_), expected);
    }
}

/// Objects with a value in every field that is read.
fn complete() -> [Value; 6] {
    let sources = "resource containerResource external object pods".split(' ');
    let metrics = |key: &str| -> Value {
        let metric = |source: &str| {
            json!({"type": source, source: {
                "name": "cpu",
                "container": "app",
                "metric": {"name": "queue"},
                "describedObject": {"kind": "Service", "name": "app"},
                key: {"type": "Value", "averageUtilization": 50, "averageValue": "1", "value": "1"},
            }})
        };
        sources.clone().map(metric).collect()
    };
    let rules = json!({
        "stabilizationWindowSeconds": 30,
        "selectPolicy": "Max",
        "tolerance": "100m",
        "policies": [
            {"type": "Pods", "value": 1, "periodSeconds": 60},
            {"type": "Percent", "value": 10, "periodSeconds": 60},
        ],
    });
    let mut hpa = hpa(2, 4, 2);
    let conditions = hpa["hpa"]["status"]["conditions"].as_array_mut();
    let limited = condition("ScalingLimited", true, "ScaleDownLimit", "");
    conditions.expect("an array").push(limited);
    hpa["hpa"]["spec"]["behavior"] = json!({"scaleUp": rules, "scaleDown": rules});
    hpa["hpa"]["spec"]["metrics"] = metrics("target");
    hpa["hpa"]["status"]["currentMetrics"] = metrics("current");
    hpa["hpa"]["status"]["lastScaleTime"] = "1970-01-01T00:00:00Z".into();
    [
        hpa.clone(),
        hpa,
        pod("a", &[("app", "100m"), ("proxy", "1")]),
        usage(&[("a", &[("app", "100m"), ("proxy", "1")])]),
        deployment(1),
        json!({"hpa_gone": "hpa"}),
    ]
}

/// The paths of a value and of all values in it.
fn paths(value: &Value, path: String) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, it)| (name.clone(), it)).collect(),
        Value::Array(items) => (0..).map(|at: u32| at.to_string()).zip(items).collect(),
        _ => Vec::new(),
    };
    let inner = inner.into_iter();
    let inner = inner.flat_map(|(name, it)| paths(it, format!("{path}/{name}")));
    inner.chain([path.clone()]).collect()
}

/// Values that may stand in place of this one; `null` stands for a missing field.
fn others(value: &Value) -> Vec<Value> {
    let words = |words: &str| words.split(' ').map(Value::from).collect();
    let mut others: Vec<_> = match value {
        Value::Number(_) => [0, 1, 2, 20, 300, -1, i32::MAX, i32::MIN]
            .map(Value::from)
            .into(),
        Value::String(text) if text.parse::<Timestamp>().is_ok() => {
            words("1970-01-01T00:01:00Z 0001-01-01T00:00:00Z 9999-12-30T22:00:00Z")
        }
        Value::String(text) if text == "15s" => words("0s 2562047h47m16s"),
        Value::String(text) if text.starts_with(|one: char| one.is_ascii_digit()) => words(
            "0 -1 250m 1n 1Gi 1e18 9E -9E 9223372036854775807 9223372036854775807m \
             -9223372036854775808m",
        ),
        Value::String(_) => words(
            "a b memory False Unknown Pending Failed Min Disabled SucceededRescale \
             ScaleDownStabilized DesiredWithinRange ScaleUpLimit TooFewReplicas",
        ),
        _ => Vec::new(),
    };
    others.push(Value::Null);
    others
}

proptest! {
    #[test]
    fn whatever_the_api_has_gives_a_report(
        changes in vec((any::<Index>(), vec(any::<[Index; 2]>(), 0..6)), 0..12),
        first_is_new in proptest::bool::ANY,
    ) {
        let created = first_is_new.then(new_hpa);
        let changed = changes.iter().map(|(which, changes)| {
            let mut object = which.get(&complete()).clone();
            for [path, other] in changes {
                let path = path.get(&paths(&object, String::new())).clone();
                if let Some(value) = object.pointer_mut(&path) {
                    *value = other.get(&others(value)).clone();
                }
            }
            object
        });
        let is_observation = |line: &Value| <ObservationKind>::deserialize(line).is_ok();
        let observations = created.into_iter().chain(changed).filter(is_observation).enumerate();
        let record = record(observations.map(|(index, one)| (index as f64 * 7.5, one)));
        let header = header(&record);
        let report = Report::new(&header, &record);
        prop_assert!(report.markdown().starts_with("## Scaling of app"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("properties");
        prop_assert!(files::write(&report, &folder).is_ok());
    }
}

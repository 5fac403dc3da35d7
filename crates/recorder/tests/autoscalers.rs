//! Common and unusual autoscalers: the observations of each, and the explanation of the recorder.

mod common;

use std::path::Path;

use proptest::{
    collection::vec,
    option, prop_assert, prop_oneof, proptest,
    sample::select,
    strategy::{Just, Strategy},
};
use recorder::{
    analysis::Milestones,
    decisions::{Decision, decisions},
    expectation::Verdict,
    files,
    notes::Note,
    observations::Header,
    record::{Record, Resources},
    report::Report,
    rules::Constraint,
    steady_load::Plan,
};
use serde_json::{Value, json};

use crate::common::record;

fn explained(observations: Vec<(f64, Value)>) -> (Vec<Decision>, Vec<Note>) {
    decisions(&record(observations))
}

fn texts(notes: &[Note]) -> Vec<&str> {
    notes.iter().map(|note| &*note.text).collect()
}

fn header(record: &Record) -> Header {
    Header {
        began: record.began,
        deployment: "app".into(),
        expected: None,
        flags: record.flags,
        verdict: Verdict::default(),
    }
}

fn report(record: &Record) -> String {
    Report::new(&header(record), record).markdown()
}

const MESSAGE: &str = "the HPA was able to successfully calculate a replica count from";

/// The autoscaler of the tutorial, with this reading and this number of replicas.
fn hpa(from: u32, to: u32, cpu: u32) -> Value {
    let mut object = common::hpa(from, to, cpu);
    object["metadata"]["name"] = "hpa".into();
    json!({"hpa": object})
}

fn resource(name: &str, target: u32) -> Value {
    json!({"type": "Resource", "resource": {
        "name": name,
        "target": {"type": "Utilization", "averageUtilization": target},
    }})
}

fn current(name: &str, current: u32) -> Value {
    json!({"type": "Resource", "resource": {
        "name": name,
        "current": {"averageUtilization": current, "averageValue": format!("{current}m")},
    }})
}

fn condition(kind: &str, is_true: bool, reason: &str, message: &str) -> Value {
    let status = if is_true { "True" } else { "False" };
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// The same, while it cannot read its metrics: the old number of replicas stays in its status.
fn blind(from: u32, to: u32) -> Value {
    let mut object = hpa(from, to, 0);
    object["hpa"]["status"]["currentMetrics"] = json!([{"type": ""}]);
    object["hpa"]["status"]["conditions"] = json!([
        condition("AbleToScale", true, "SucceededGetScale", ""),
        condition(
            "ScalingActive",
            false,
            "FailedGetResourceMetric",
            "no metrics returned"
        ),
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
    let pods: Vec<_> = pods
        .iter()
        .map(|(name, containers)| {
            let containers: Vec<_> = containers
                .iter()
                .map(|(name, cpu)| json!({"name": name, "usage": {"cpu": cpu}}))
                .collect();
            json!({
                "metadata": {"name": name},
                "timestamp": "1970-01-01T00:00:00Z",
                "window": "15s",
                "containers": containers,
            })
        })
        .collect();
    json!({"usage": pods})
}

#[test]
fn the_deciding_metric_of_several_is_named() {
    // 5 % of 50 % CPU, 120 % of 60 % memory: memory leads from 2 to 4.
    let both = |from, to, cpu, memory| {
        let mut object = hpa(from, to, cpu);
        object["hpa"]["spec"]["metrics"] = json!([resource("cpu", 50), resource("memory", 60)]);
        object["hpa"]["status"]["currentMetrics"] =
            json!([current("cpu", cpu), current("memory", memory)]);
        object["hpa"]["status"]["conditions"][1]["message"] =
            format!("{MESSAGE} memory resource utilization (percentage of request)").into();
        object
    };
    let (rows, _) = explained(vec![(0.0, both(2, 2, 5, 60)), (15.0, both(2, 4, 5, 120))]);
    assert_eq!(
        rows[0].metric.as_deref(),
        Some("memory resource utilization")
    );
    let reading = rows[0].reading.expect("memory was read");
    assert_eq!((reading.current, reading.target), (120, 60));
    assert_eq!((rows[0].computed, rows[0].by_rules), (Some(4), None));

    // While the first one fails, its place is empty, and the second keeps its own target.
    let mut failing = both(2, 4, 0, 120);
    failing["hpa"]["status"]["currentMetrics"][0] = json!({"type": ""});
    let (rows, _) = explained(vec![(0.0, both(2, 2, 5, 60)), (15.0, failing)]);
    let reading = rows[0].reading.expect("memory was read");
    assert_eq!((reading.current, reading.target), (120, 60));
}

#[test]
fn a_metric_that_is_not_about_pods_is_named_as_by_the_autoscaler() {
    let cron = |from: u32, to, average: &str| {
        let mut object = hpa(from, to, 2);
        let metric = json!({"name": "s1-cron"});
        object["hpa"]["spec"]["metrics"] = json!([resource("cpu", 50), {"type": "External", "external": {
            "metric": metric,
            "target": {"type": "AverageValue", "averageValue": "1"},
        }}]);
        object["hpa"]["status"]["currentMetrics"] = json!([current("cpu", 2), {"type": "External", "external": {
            "metric": metric,
            "current": {"averageValue": average},
        }}]);
        object["hpa"]["status"]["conditions"][1]["message"] =
            format!("{MESSAGE} external metric s1-cron(&LabelSelector{{MatchLabels:map[string]string{{}},}})").into();
        object
    };
    let record = record([
        (0.0, cron(1, 1, "1")),
        (0.0, pod("a", &[("app", "100m")])),
        (15.0, cron(1, 4, "9")),
    ]);
    let (rows, _) = decisions(&record);
    assert_eq!(rows[0].metric.as_deref(), Some("external metric s1-cron"));
    assert_eq!(rows[0].by_rules, None);
    assert_eq!(
        rows[0].constraints,
        [Constraint::LargestStep { replicas: 4 }]
    );
    assert!(report(&record).contains("9 / 1"), "{}", report(&record));
}

#[test]
fn a_container_metric_counts_only_that_container() {
    let of_app = |from, to, cpu: u32| {
        let mut object = hpa(from, to, cpu);
        object["hpa"]["spec"]["metrics"] = json!([{"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "app",
            "target": {"type": "Utilization", "averageUtilization": 50},
        }}]);
        object["hpa"]["status"]["currentMetrics"] = json!([{"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "app",
            "current": {"averageUtilization": cpu, "averageValue": "201m"},
        }}]);
        object
    };
    let containers = [("app", "200m"), ("proxy", "1")];
    // The third pod has no metrics for this container: 402m of 600m are 67 %, so that 5 are recommended.
    let (rows, _) = explained(vec![
        (0.0, of_app(3, 3, 50)),
        (0.0, pod("a", &containers)),
        (0.0, pod("b", &containers)),
        (0.0, pod("c", &containers)),
        (
            1.0,
            usage(&[
                ("a", &[("app", "201m"), ("proxy", "5m")]),
                ("b", &[("app", "201m"), ("proxy", "900m")]),
                ("c", &[("proxy", "900m")]),
            ]),
        ),
        (15.0, of_app(3, 5, 100)),
    ]);
    assert_eq!((rows[0].recommended, rows[0].by_rules), (Some(5), None));
    assert_eq!(
        rows[0].constraints,
        [Constraint::WithoutMetrics { pods: 1 }]
    );
}

fn deployment(resources: Value) -> Value {
    let mut object = common::deployment(1, 1);
    object["spec"]["template"]["spec"]["containers"][0]["resources"] = resources;
    json!({"deployment": object})
}

#[test]
fn resource_requests_are_read_from_the_pods() {
    let limits = deployment(json!({"limits": {"cpu": "400m"}}));
    let with = |pod: Option<Value>| {
        let pod = pod.into_iter().map(|pod| (2.0, pod));
        let first = [(0.0, hpa(1, 1, 2)), (1.0, limits.clone())];
        record(first.into_iter().chain(pod))
            .state
            .target_millicores()
    };
    assert_eq!(with(None), Some(200.0), "the template has limits alone");
    // A LimitRange's default, an injected sidecar, and one that is an init container.
    let mut injected = pod("a", &[("app", "100m"), ("proxy", "50m")]);
    injected["pod"]["spec"]["initContainers"] = json!([
        {"name": "setup", "resources": {"requests": {"cpu": "2"}}},
        {"name": "logs", "restartPolicy": "Always", "resources": {"requests": {"cpu": "30m"}}},
    ]);
    assert_eq!(with(Some(injected.clone())), Some(90.0));
    injected["pod"]["spec"]["resources"] = json!({"requests": {"cpu": "500m"}});
    assert_eq!(
        with(Some(injected)),
        Some(250.0),
        "a request of the pod itself"
    );
}

#[test]
fn exact_replicas_can_be_held_with_limits_but_no_requests() {
    let record = record([
        (0.0, hpa(1, 1, 2)),
        (1.0, deployment(json!({"limits": {"cpu": "500m"}}))),
    ]);
    let (autoscaler, deployment) = (record.state.autoscaler(), record.state.deployment.as_ref());
    let plan = Plan::new(
        3,
        autoscaler.expect("it is there"),
        deployment.expect("it is there"),
        3.0,
    );
    let load = plan.expect("500m are requested").load;
    assert!((500..750).contains(&load.total()), "{load}");
}

#[test]
fn the_reason_why_pods_are_not_created_is_reported() {
    let mut failing = deployment(json!({}));
    failing["deployment"]["status"]["conditions"] = json!([condition(
        "ReplicaFailure",
        true,
        "FailedCreate",
        "pods \"app-6d5c7b9f4d-xk2vz\" is forbidden: exceeded quota: cpu, requested: cpu=500m, used: cpu=2, limited: cpu=2",
    )]);
    let text = report(&record([
        (0.0, deployment(json!({}))),
        (30.0, failing.clone()),
        (40.0, failing),
        (60.0, deployment(json!({}))),
    ]));
    assert!(text.contains("30 s: pods are not created: pods"), "{text}");
    assert_eq!(text.matches("exceeded quota").count(), 1, "{text}");
    assert!(text.contains("60 s: pods are created again"), "{text}");
}

#[test]
fn the_most_relevant_condition_is_quoted() {
    let quoted = |conditions: &[(&str, bool)]| {
        let mut object = hpa(1, 1, 2);
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, is_true)| condition(kind, *is_true, kind, ""))
            .collect();
        object["hpa"]["status"]["conditions"] = conditions.into();
        let record = record([(0.0, object)]);
        let autoscaler = record.state.autoscaler().expect("it is there").clone();
        autoscaler
            .complaint()
            .map(|condition| condition.kind.clone())
    };
    let (able, active, limited) = ("AbleToScale", "ScalingActive", "ScalingLimited");
    let all = [(limited, true), (active, false), (able, false)];
    assert_eq!(quoted(&all).as_deref(), Some(able));
    assert_eq!(quoted(&all[..2]).as_deref(), Some(active));
    assert_eq!(
        quoted(&[(limited, true), (active, true), (able, true)]).as_deref(),
        Some(limited)
    );
    assert_eq!(quoted(&[(limited, false), (active, true)]), None);
}

#[test]
fn two_autoscalers_of_one_deployment_are_reported_in_one_line() {
    let ambiguous = |name: &str| {
        let mut object = blind(2, 2);
        object["hpa"]["metadata"]["name"] = name.into();
        object["hpa"]["status"]["conditions"][1] = condition(
            "ScalingActive",
            false,
            "AmbiguousSelector",
            "pods are controlled by multiple HPAs",
        );
        object
    };
    let mut other = new_hpa();
    other["hpa"]["metadata"]["name"] = "other".into();
    let record = record([
        (0.0, hpa(2, 2, 50)),
        (20.0, other),
        (30.0, ambiguous("hpa")),
        (35.0, ambiguous("other")),
        (60.0, json!({"hpa_gone": "other"})),
        (75.0, hpa(2, 4, 100)),
    ]);
    let (rows, notes) = decisions(&record);
    assert_eq!(
        rows.iter().map(|row| (row.at, row.to)).collect::<Vec<_>>(),
        [(75.0, 4)]
    );
    let texts = texts(&notes);
    let several = texts
        .iter()
        .filter(|text| text.starts_with("several autoscalers"));
    assert_eq!(several.count(), 1, "{texts:?}");
    assert!(
        !texts.iter().any(|text| text.contains("something else")),
        "{texts:?}"
    );
    assert_eq!(record.state.autoscaler().map(|one| &*one.name), Some("hpa"));
}

#[test]
fn a_status_is_not_always_a_decision() {
    let (rows, notes) = explained(vec![
        (0.0, hpa(1, 1, 2)),
        (15.0, blind(1, 0)),
        (30.0, hpa(1, 1, 2)),
    ]);
    assert!(rows.is_empty(), "{rows:?}");
    assert_eq!(
        texts(&notes),
        [
            "the autoscaler cannot decide: FailedGetResourceMetric: no metrics returned",
            "the autoscaler can decide again",
        ]
    );
}

/// The autoscaler of a ScaledObject, while its metrics are not read for this reason.
fn keda(replicas: u32, reason: &str) -> Value {
    let mut object = blind(replicas, 1);
    object["hpa"]["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "app", "uid": "1",
    }]);
    object["hpa"]["status"]["conditions"][1] = condition("ScalingActive", false, reason, "");
    object
}

fn replicas(replicas: u32) -> Value {
    let mut object = deployment(json!({}));
    object["deployment"]["spec"]["replicas"] = replicas.into();
    object
}

#[test]
fn keda_is_named_with_the_time_of_its_change_and_each_reason_not_to_decide_is_reported() {
    let (rows, notes) = explained(vec![
        (0.0, keda(0, "ScalingDisabled")),
        (0.0, replicas(0)),
        (21.0, replicas(1)),
        (30.0, keda(1, "FailedGetExternalMetric")),
    ]);
    assert!(rows.is_empty(), "{rows:?}");
    let notes: Vec<_> = notes.iter().map(|note| (note.at, &*note.text)).collect();
    assert_eq!(
        notes,
        [
            (0.0, "the autoscaler cannot decide: ScalingDisabled: "),
            (21.0, "KEDA set the replicas: from 0 to 1"),
            (
                30.0,
                "the autoscaler cannot decide: FailedGetExternalMetric: "
            ),
        ]
    );
}

#[test]
fn a_step_that_depends_on_changes_before_the_recording_is_a_step() {
    let down = |from: u32, to, reason: &str| {
        let mut object = hpa(from, to, 2);
        object["hpa"]["spec"]["behavior"] = json!({"scaleDown": {
            "stabilizationWindowSeconds": 30, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}],
        }});
        let limited = condition("ScalingLimited", true, reason, "");
        let conditions = object["hpa"]["status"]["conditions"].as_array_mut();
        conditions.expect("an array").push(limited);
        object
    };
    let mut first = down(17, 15, "ScaleDownLimit");
    first["hpa"]["status"]["lastScaleTime"] = "1969-12-31T23:59:54Z".into();
    let (rows, _) = explained(vec![(0.0, first), (40.0, down(15, 14, "ScaleDownLimit"))]);
    assert_eq!(rows[0].by_rules, None, "{rows:?}");
    assert_eq!(
        rows[0].constraints,
        [Constraint::LargestStep { replicas: 14 }]
    );
}

#[test]
fn a_metrics_outage_is_reported_once_and_recommendations_expire_meanwhile() {
    let mut statuses = vec![(0.0, hpa(1, 1, 2)), (15.0, hpa(1, 4, 200))];
    statuses.extend((2..=25).map(|sync| (f64::from(sync) * 15.02, blind(4, 4))));
    // 4 was recommended more than five minutes ago.
    statuses.push((391.0, hpa(4, 1, 2)));
    let (rows, notes) = explained(statuses);
    let last = rows.last().expect("it scaled in");
    assert_eq!((last.from, last.to, last.by_rules), (4, 1, None));
    assert!(last.constraints.is_empty(), "{last:?}");
    assert_eq!(notes.len(), 2, "{notes:?}");
}

#[test]
fn outside_the_bounds_the_bound_is_the_reason() {
    let mut beyond = hpa(42, 20, 0);
    beyond["hpa"]["status"]["currentMetrics"] = Value::Null;
    let (rows, notes) = explained(vec![(0.0, hpa(20, 20, 50)), (15.0, beyond)]);
    assert_eq!((rows[0].from, rows[0].to, rows[0].reading), (42, 20, None));
    assert_eq!(rows[0].constraints, [Constraint::Maximum { replicas: 20 }]);
    assert_eq!(
        texts(&notes),
        ["something else than the autoscaler set the replicas: from 20 to 42"]
    );
}

#[test]
fn a_new_autoscaler_begins_with_the_current_replicas() {
    let (rows, notes) = explained(vec![(0.0, new_hpa()), (15.0, hpa(5, 5, 28))]);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (rows[0].to, rows[0].computed, rows[0].by_rules),
        (5, Some(3), None)
    );
    assert_eq!(
        rows[0].constraints,
        [Constraint::StabilisationWindow { seconds: 300 }]
    );
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn a_recreated_autoscaler_loses_its_memory_unless_replaced_between_two_computations() {
    let recreated = |gone: f64, back: f64, sync: f64, to: u32| {
        explained(vec![
            (0.0, hpa(1, 1, 2)),
            (15.0, hpa(1, 4, 1000)),
            (30.0, hpa(4, 4, 2)),
            (gone, json!({"hpa_gone": "hpa"})),
            (back, new_hpa()),
            (sync, hpa(4, to, 2)),
        ])
    };
    // Gone for 12 s between two computations: 20 replicas were recommended before, and still are.
    let (rows, notes) = recreated(31.0, 43.0, 45.1, 8);
    let last = rows.last().expect("it scaled out");
    assert_eq!((last.to, last.by_rules, last.computed), (8, None, Some(1)));
    assert_eq!(
        last.constraints,
        [
            Constraint::StabilisationWindow { seconds: 300 },
            Constraint::LargestStep { replicas: 8 }
        ]
    );
    assert_eq!(notes.len(), 2, "it was gone, and came back: {notes:?}");
    // Gone at a computation.
    let (rows, notes) = recreated(44.0, 50.0, 65.0, 4);
    let last = rows.last().expect("the new one holds");
    assert_eq!((last.to, last.by_rules), (4, None));
    assert_eq!(
        last.constraints,
        [Constraint::StabilisationWindow { seconds: 300 }]
    );
    assert_eq!(notes.len(), 2, "it was gone, and came back: {notes:?}");
}

#[test]
fn earlier_recommendations_explain_a_decision() {
    // It stays at 20 because of earlier recommendations, and scales in when they expire.
    let mut resting = hpa(20, 20, 2);
    resting["hpa"]["status"]["conditions"][0]["reason"] = "ScaleDownStabilized".into();
    let (rows, _) = explained(vec![
        (0.0, resting),
        (7.0, hpa(20, 20, 1)),
        (100.0, hpa(20, 1, 2)),
    ]);
    assert!(rows.iter().all(|row| row.by_rules.is_none()), "{rows:?}");
    assert_eq!(rows.last().map(|row| row.to), Some(1));
}

#[test]
fn pods_that_replace_others_are_not_new_ones() {
    let gone = |name: &str| json!({"pod_gone": name});
    let containers = [("app", "100m")];
    let record = record([
        (0.0, hpa(1, 1, 2)),
        (1.0, pod("a", &containers)),
        (5.0, json!({"load_started": "40 connections"})),
        (15.0, hpa(1, 2, 100)),
        (20.0, pod("b", &containers)),
        // A rollout with one pod more than replicas.
        (40.0, pod("c", &containers)),
        (41.0, gone("a")),
        (50.0, pod("d", &containers)),
        (51.0, gone("b")),
    ]);
    let milestones = Milestones::of(&record, &decisions(&record).0);
    assert_eq!(milestones.first_new_pod_ready, Some(15.0));
    assert_eq!(milestones.last_new_pod_ready, Some(15.0));
}

#[test]
fn the_usage_of_a_pod_is_the_sum_of_its_containers() {
    let resources = |containers: &[(&str, i64)]| -> Resources {
        let containers = containers.iter();
        containers
            .map(|(name, cpu)| (name.to_string(), [("cpu".to_string(), *cpu)].into()))
            .collect()
    };
    let total =
        |container| recorder::record::total(&resources(&[("a", 3), ("b", 4)]), "cpu", container);
    assert_eq!(
        (total(None), total(Some("b")), total(Some("c"))),
        (Some(7), Some(4), None)
    );
    assert_eq!(recorder::record::total(&resources(&[]), "cpu", None), None);
}

fn quantity() -> impl Strategy<Value = Value> {
    let quantities = [
        "0",
        "1",
        "-1",
        "100m",
        "250m",
        "1n",
        "1Gi",
        "1e18",
        "9E",
        "-9E",
        "9223372036854775807",
        "9223372036854775807m",
        "-9223372036854775808m",
    ];
    select(quantities.to_vec()).prop_map(Value::from)
}

fn number() -> impl Strategy<Value = Value> {
    select(&[0, 1, 2, 20, 300, -1, i32::MAX, i32::MIN][..]).prop_map(Value::from)
}

fn time() -> impl Strategy<Value = Value> {
    let times = [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:01:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-30T22:00:00Z",
    ];
    select(times.to_vec()).prop_map(Value::from)
}

/// An object with any of these fields, the others are missing.
fn object<const N: usize>(
    fields: [(&'static str, proptest::strategy::BoxedStrategy<Value>); N],
) -> impl Strategy<Value = Value> {
    let fields = fields.map(|(name, value)| option::of(value).prop_map(move |value| (name, value)));
    Vec::from(fields).prop_map(|fields| {
        let fields = fields.into_iter();
        let fields = fields.filter_map(|(name, value)| Some((name.to_string(), value?)));
        Value::Object(fields.collect())
    })
}

/// The name of a metric, the type of its source, and a target or a reading.
fn metric(of: &'static str) -> impl Strategy<Value = Value> {
    let value = object([
        ("averageUtilization", number().boxed()),
        ("averageValue", quantity().boxed()),
        ("value", quantity().boxed()),
    ]);
    let sources = [
        "resource",
        "containerResource",
        "external",
        "object",
        "pods",
    ];
    (select(sources.to_vec()), value).prop_map(move |(source, mut value)| {
        if of == "target" {
            value["type"] = "Value".into();
        }
        let target = json!({"kind": "Service", "name": "app"});
        json!({"type": source, source: {
            "name": "cpu", "container": "app", "metric": {"name": "queue"},
            "describedObject": target, of: value,
        }})
    })
}

fn any_hpa() -> impl Strategy<Value = Value> {
    let policy = (select(&["Pods", "Percent"][..]), number(), number()).prop_map(
        |(kind, value, period)| json!({"type": kind, "value": value, "periodSeconds": period}),
    );
    let rules = object([
        ("stabilizationWindowSeconds", number().boxed()),
        ("tolerance", quantity().boxed()),
        (
            "selectPolicy",
            select(&["Max", "Min", "Disabled"][..])
                .prop_map(Value::from)
                .boxed(),
        ),
        ("policies", vec(policy, 0..3).prop_map(Value::from).boxed()),
    ]);
    let rules = rules.boxed();
    let behavior = object([("scaleUp", rules.clone()), ("scaleDown", rules)]);
    let spec = object([
        ("minReplicas", number().boxed()),
        (
            "metrics",
            vec(metric("target"), 0..3).prop_map(Value::from).boxed(),
        ),
        ("behavior", behavior.boxed()),
    ]);
    let reasons = [
        ("AbleToScale", "ReadyForNewScale"),
        ("AbleToScale", "SucceededRescale"),
        ("AbleToScale", "ScaleDownStabilized"),
        ("ScalingActive", "ValidMetricFound"),
        ("ScalingLimited", "DesiredWithinRange"),
        ("ScalingLimited", "ScaleUpLimit"),
        ("ScalingLimited", "TooFewReplicas"),
    ];
    let conditions = vec(select(reasons.to_vec()), 0..4).prop_map(|conditions| {
        let conditions = conditions.into_iter();
        conditions
            .map(|(kind, reason)| condition(kind, true, reason, MESSAGE))
            .collect::<Value>()
    });
    let status = object([
        ("currentReplicas", number().boxed()),
        ("lastScaleTime", time().boxed()),
        (
            "currentMetrics",
            vec(metric("current"), 0..3).prop_map(Value::from).boxed(),
        ),
        ("conditions", conditions.boxed()),
    ]);
    (spec, status, number(), number()).prop_map(|(mut spec, mut status, most, desired)| {
        spec["scaleTargetRef"] = json!({"kind": "Deployment", "name": "app"});
        spec["maxReplicas"] = most;
        status["desiredReplicas"] = desired;
        json!({"hpa": {"metadata": {"name": "hpa"}, "spec": spec, "status": status}})
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let requests = object([("cpu", quantity().boxed()), ("memory", quantity().boxed())]);
    let ready = (select(&["True", "False", "Unknown"][..]), time()).prop_map(
        |(status, since)| json!([{"type": "Ready", "status": status, "lastTransitionTime": since}]),
    );
    let status = object([
        (
            "phase",
            select(&["Pending", "Running", "Failed"][..])
                .prop_map(Value::from)
                .boxed(),
        ),
        ("startTime", time().boxed()),
        ("conditions", ready.boxed()),
    ]);
    (select(&["a", "b"][..]), requests, status).prop_map(|(name, requests, status)| {
        let containers =
            ["app", "proxy"].map(|name| json!({"name": name, "resources": {"requests": requests}}));
        json!({"pod": {
            "metadata": {"name": name}, "spec": {"containers": containers}, "status": status,
        }})
    })
}

fn any_usage() -> impl Strategy<Value = Value> {
    let usage = object([("cpu", quantity().boxed()), ("memory", quantity().boxed())]);
    let windows = ["0s", "15s", "2562047h47m16s"];
    (
        select(&["a", "b"][..]),
        usage,
        time(),
        select(windows.to_vec()),
    )
        .prop_map(|(name, usage, time, window)| {
            let containers = ["app", "proxy"].map(|name| json!({"name": name, "usage": usage}));
            json!({"usage": [{
                "metadata": {"name": name}, "timestamp": time, "window": window,
                "containers": containers,
            }]})
        })
}

fn any_deployment() -> impl Strategy<Value = Value> {
    (number(), number()).prop_map(|(desired, existing)| {
        let mut object = deployment(json!({}));
        object["deployment"]["spec"]["replicas"] = desired;
        object["deployment"]["status"]["replicas"] = existing;
        object
    })
}

proptest! {
    #[test]
    fn whatever_the_api_has_gives_a_report(
        observations in vec(
            prop_oneof![
                4 => any_hpa(),
                2 => any_pod(),
                2 => any_usage(),
                1 => any_deployment(),
                1 => Just(json!({"pod_gone": "a"})),
                1 => Just(json!({"hpa_gone": "hpa"})),
            ],
            1..12,
        ),
        first_is_new in proptest::bool::ANY,
    ) {
        let created = first_is_new.then(new_hpa);
        let observations = created.into_iter().chain(observations).enumerate();
        let record = record(observations.map(|(index, one)| (index as f64 * 7.5, one)));
        let header = header(&record);
        let report = Report::new(&header, &record);
        prop_assert!(report.markdown().starts_with("## Scaling of app"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("properties");
        prop_assert!(files::write(&report, &folder).is_ok());
    }
}

//! The manifests of `config/samples` are what they must be, and agree with one another and with `spin.toml`.

use super::{APP, HPA, INGRESS, NETWORK_POLICY, SCALED_OBJECT, at, manifest, read, text_at};
use serde_json::{Value, json};

/// Millicores of a CPU quantity of the manifests.
pub fn millicores(value: &Value, pointer: &str) -> u32 {
    let quantity = text_at(value, pointer);
    quantity
        .strip_suffix('m')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{pointer} is {quantity}, not in millicores"))
}

fn assert_all(file: &str, expected: &[(&str, Value)]) {
    let found = manifest(file);
    for (pointer, value) in expected {
        assert_eq!(at(&found, pointer), value, "{pointer} of {file}");
    }
}

#[test]
fn the_app_can_be_autoscaled_by_cpu() {
    // Without `httpHeaders` Spin Operator's webhook makes a null of it, which its CRD refuses.
    let health = json!({"path": "/.well-known/spin/health", "httpHeaders": []});
    assert_all(
        APP,
        &[
            ("/apiVersion", json!("core.spinkube.dev/v1alpha1")),
            ("/kind", json!("SpinApp")),
            ("/metadata", json!({"name": "keda-spinapp"})),
            ("/spec/image", json!("ttl.sh/cpu-load-gen:1h")),
            ("/spec/executor", json!("containerd-shim-spin")),
            ("/spec/enableAutoscaling", json!(true)),
            (
                "/spec/resources",
                json!({
                    "limits": {"cpu": "500m", "memory": "500Mi"},
                    "requests": {"cpu": "100m", "memory": "400Mi"},
                }),
            ),
            ("/spec/checks/liveness/httpGet", health.clone()),
            ("/spec/checks/readiness/httpGet", health),
        ],
    );
    assert_eq!(
        manifest(APP).pointer("/spec/replicas"),
        None,
        "Spin Operator refuses replicas together with enableAutoscaling"
    );
}

#[test]
fn the_app_sets_variables_that_the_component_has() {
    let app = manifest(APP);
    let spin: toml::Table = read("spin.toml").parse().expect("spin.toml parses");
    let variables = at(&app, "/spec/variables").as_array().expect("a list");
    for variable in variables {
        let name = text_at(variable, "/name");
        assert!(
            spin["variables"].get(name).is_some(),
            "spin.toml has no variable {name}"
        );
    }
    let variable = |name| {
        variables
            .iter()
            .find(|variable| variable["name"] == name)
            .unwrap_or_else(|| panic!("{APP} does not set {name}"))
    };
    assert_eq!(
        text_at(variable("load"), "/value"),
        spin["variables"]["load"]["default"]
            .as_str()
            .expect("a string"),
        "the load to change is at first the default"
    );
    assert_eq!(
        text_at(variable("replica"), "/valueFrom/fieldRef/fieldPath"),
        "metadata.name"
    );
}

#[test]
fn the_scaled_object_keeps_cpu_at_half_of_the_request() {
    assert_all(
        SCALED_OBJECT,
        &[
            ("/apiVersion", json!("keda.sh/v1alpha1")),
            ("/kind", json!("ScaledObject")),
            ("/metadata", json!({"name": "cpu-scaling"})),
            (
                "/spec/scaleTargetRef/name",
                at(&manifest(APP), "/metadata/name").clone(),
            ),
            ("/spec/minReplicaCount", json!(1)),
            ("/spec/maxReplicaCount", json!(20)),
            (
                "/spec/triggers",
                json!([{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}}]),
            ),
        ],
    );
}

#[test]
fn the_hpa_scales_as_the_scaled_object_does() {
    let scaled_object = manifest(SCALED_OBJECT);
    let target: u32 = text_at(&scaled_object, "/spec/triggers/0/metadata/value")
        .parse()
        .expect("a number");
    assert_all(
        HPA,
        &[
            ("/apiVersion", json!("autoscaling/v2")),
            ("/kind", json!("HorizontalPodAutoscaler")),
            (
                "/metadata/name",
                at(&scaled_object, "/metadata/name").clone(),
            ),
            (
                "/spec/scaleTargetRef",
                json!({
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": at(&scaled_object, "/spec/scaleTargetRef/name"),
                }),
            ),
            (
                "/spec/minReplicas",
                at(&scaled_object, "/spec/minReplicaCount").clone(),
            ),
            (
                "/spec/maxReplicas",
                at(&scaled_object, "/spec/maxReplicaCount").clone(),
            ),
            (
                "/spec/metrics",
                json!([{
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}},
                }]),
            ),
        ],
    );
}

#[test]
fn the_ingress_leads_to_the_service_of_the_app() {
    assert_all(
        INGRESS,
        &[
            ("/apiVersion", json!("networking.k8s.io/v1")),
            ("/kind", json!("Ingress")),
            (
                "/spec/rules",
                json!([{"http": {"paths": [{
                    "path": "/",
                    "pathType": "Prefix",
                    "backend": {"service": {
                        "name": at(&manifest(APP), "/metadata/name"),
                        "port": {"number": 80},
                    }},
                }]}}]),
            ),
        ],
    );
}

#[test]
fn the_network_policy_guards_the_pods_of_the_app() {
    // The label that Spin Operator gives them, and the port on which the shim serves.
    assert_all(
        NETWORK_POLICY,
        &[
            (
                "/spec/podSelector/matchLabels",
                json!({"core.spinkube.dev/app-name": at(&manifest(APP), "/metadata/name")}),
            ),
            ("/spec/ingress/0/ports/0/port", json!(80)),
        ],
    );
}

#[test]
fn no_manifest_names_a_namespace() {
    for file in [APP, SCALED_OBJECT, HPA, INGRESS, NETWORK_POLICY] {
        assert_eq!(
            manifest(file).pointer("/metadata/namespace"),
            None,
            "{file}: `make deploy NAMESPACE=…` chooses it"
        );
    }
}

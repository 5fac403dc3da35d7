//! The manifests agree with one another and with `spin.toml`.

use super::{APP, HPA, INGRESS, NETWORK_POLICY, SCALED_OBJECT, at, manifest, read, text_at};
use serde_json::json;

#[test]
fn spin_operator_accepts_the_app() {
    let app = manifest(APP);
    assert_eq!(at(&app, "/spec/enableAutoscaling"), &json!(true));
    // Refused beside enableAutoscaling.
    assert_eq!(app.pointer("/spec/replicas"), None);
    for (name, check) in at(&app, "/spec/checks").as_object().expect("a map") {
        // The webhook makes a null of an absent one, which the CRD refuses.
        assert_eq!(at(check, "/httpGet/httpHeaders"), &json!([]), "{name}");
    }
}

#[test]
fn the_app_sets_variables_that_the_component_has() {
    let spin: toml::Table = read("spin.toml").parse().expect("spin.toml parses");
    let app = manifest(APP);
    for variable in at(&app, "/spec/variables").as_array().expect("a list") {
        let name = text_at(variable, "/name");
        assert!(spin["variables"].get(name).is_some(), "no variable {name}");
    }
}

#[test]
fn the_manifests_name_the_same_app() {
    let name = manifest(APP);
    let name = text_at(&name, "/metadata/name");
    for (file, pointer) in [
        (SCALED_OBJECT, "/spec/scaleTargetRef/name"),
        (HPA, "/spec/scaleTargetRef/name"),
        (INGRESS, "/metadata/name"),
        (INGRESS, "/spec/rules/0/http/paths/0/backend/service/name"),
        (
            NETWORK_POLICY,
            "/spec/podSelector/matchLabels/core.spinkube.dev~1app-name",
        ),
    ] {
        assert_eq!(text_at(&manifest(file), pointer), name, "{file}{pointer}");
    }
    let (scaled_object, hpa) = (manifest(SCALED_OBJECT), manifest(HPA));
    let scaler = text_at(&scaled_object, "/metadata/name");
    assert_eq!(text_at(&hpa, "/metadata/name"), scaler);
}

#[test]
fn the_hpa_scales_as_the_scaled_object_does() {
    let (scaled_object, hpa) = (manifest(SCALED_OBJECT), manifest(HPA));
    for (keda, plain) in [
        ("/spec/minReplicaCount", "/spec/minReplicas"),
        ("/spec/maxReplicaCount", "/spec/maxReplicas"),
    ] {
        assert_eq!(at(&scaled_object, keda), at(&hpa, plain), "{plain}");
    }
    assert_eq!(
        text_at(&scaled_object, "/spec/triggers/0/metadata/value"),
        at(&hpa, "/spec/metrics/0/resource/target/averageUtilization").to_string()
    );
}

//! The manifests agree with one another, with `spin.toml` and with the scripts.

use super::{
    APP, HPA, INGRESS, NETWORK_POLICY, ROOT, SCALED_OBJECT, at, manifest, parse, read, read_all,
    text_at,
};
use serde_json::{Value, json};
use std::path::Path;

/// Millicores of a CPU quantity of the manifests.
pub fn millicores(value: &Value, pointer: &str) -> u32 {
    let quantity = text_at(value, pointer);
    quantity
        .strip_suffix('m')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{pointer} is {quantity}, not in millicores"))
}

#[test]
fn spin_operator_accepts_the_app() {
    let app = manifest(APP);
    assert_eq!(at(&app, "/spec/enableAutoscaling"), &json!(true));
    assert_eq!(
        app.pointer("/spec/replicas"),
        None,
        "refused beside enableAutoscaling"
    );
    for (name, check) in at(&app, "/spec/checks").as_object().expect("a map") {
        // The webhook makes a null of an absent one, which the CRD refuses.
        assert_eq!(at(check, "/httpGet/httpHeaders"), &json!([]), "{name}");
    }
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
    let load = variables
        .iter()
        .find(|variable| variable["name"] == "load")
        .expect("the app sets load");
    assert_eq!(
        text_at(load, "/value"),
        spin["variables"]["load"]["default"]
            .as_str()
            .expect("a string"),
        "the load to change is at first the default"
    );
}

#[test]
fn the_manifests_and_scripts_name_the_same_app() {
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
        assert_eq!(
            text_at(&manifest(file), pointer),
            name,
            "{pointer} of {file}"
        );
    }
    let lib = read("scripts/lib.sh");
    let scaler = manifest(SCALED_OBJECT);
    let scaler = text_at(&scaler, "/metadata/name");
    assert_eq!(text_at(&manifest(HPA), "/metadata/name"), scaler);
    assert!(lib.contains(&format!("app={name}\n")) && lib.contains(&format!("scaler={scaler}\n")));
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

/// `kubectl apply -f config/samples` reads them all.
#[test]
fn the_samples_have_one_autoscaler() {
    let autoscalers = read_all("config/samples", ".yaml")
        .into_iter()
        .map(|(name, text)| parse(&text, &name))
        .filter(|object| {
            ["ScaledObject", "HorizontalPodAutoscaler"].contains(&text_at(object, "/kind"))
        })
        .count();
    assert_eq!(autoscalers, 1);
}

#[test]
fn the_kustomizations_name_files_that_exist() {
    for folder in ["samples", "keda", "hpa", "networkpolicy"] {
        let folder = format!("config/{folder}");
        let file = ["kustomization.yaml", "Kustomization"]
            .map(|name| format!("{folder}/{name}"))
            .into_iter()
            .find(|file| Path::new(ROOT).join(file).exists())
            .unwrap_or_else(|| panic!("{folder} is no kustomization"));
        let kustomization = manifest(&file);
        for key in ["/resources", "/configurations"] {
            for path in kustomization
                .pointer(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let path = path.as_str().expect("a path");
                assert!(
                    Path::new(ROOT).join(&folder).join(path).exists(),
                    "{file}: {path}"
                );
            }
        }
    }
}

#[test]
fn every_object_has_the_recommended_labels_and_no_namespace() {
    let labels = json!({
        "app.kubernetes.io/name": "cpu-load-gen",
        "app.kubernetes.io/part-of": "cpu-load-gen",
    });
    for file in [APP, SCALED_OBJECT, HPA, INGRESS, NETWORK_POLICY] {
        let object = manifest(file);
        assert_eq!(at(&object, "/metadata/labels"), &labels, "{file}");
        assert_eq!(
            object.pointer("/metadata/namespace"),
            None,
            "{file}: `make deploy NAMESPACE=…` chooses it"
        );
    }
    assert_eq!(at(&manifest(APP), "/spec/podLabels"), &labels);
}

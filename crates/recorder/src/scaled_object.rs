//! KEDA's ScaledObjects: a paused one has no HorizontalPodAutoscaler.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The name of the ScaledObject that targets a Deployment, if it is paused. A cluster without KEDA has none, and where
/// they may not be listed nothing is known of them.
pub async fn paused(client: Client, namespace: &str, deployment: &str) -> Option<String> {
    let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
    let kind = ApiResource::from_gvk_with_plural(&kind, "scaledobjects");
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &kind);
    let listed = timeout(TIMEOUT, api.list(&ListParams::default()))
        .await
        .ok()?
        .ok()?;
    listed
        .items
        .into_iter()
        .find(|object| targets(object, deployment) && is_paused(object))
        .and_then(|object| object.metadata.name)
}

fn targets(object: &DynamicObject, deployment: &str) -> bool {
    let target = &object.data["spec"]["scaleTargetRef"];
    target["name"] == deployment && matches!(target["kind"].as_str(), None | Some("Deployment"))
}

/// By KEDA's annotations: <https://keda.sh/docs/latest/concepts/scaling-deployments/#pausing-autoscaling>.
fn is_paused(object: &DynamicObject) -> bool {
    object
        .metadata
        .annotations
        .iter()
        .flatten()
        .any(|(key, value)| match key.as_str() {
            "autoscaling.keda.sh/paused-replicas" => true,
            // Of the booleans of Go; KEDA takes anything else as true.
            "autoscaling.keda.sh/paused" => {
                !["0", "f", "F", "false", "False", "FALSE"].contains(&value.as_str())
            }
            _ => false,
        })
}

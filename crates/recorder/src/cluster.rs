//! Observes the cluster: watches the Deployment, its pods, its autoscaler and their events, and polls the
//! CPU of the pods, which cannot be watched. Writes nothing to it.

use std::{
    cell::RefCell, collections::BTreeSet, env, fmt::Debug, mem::replace, net::IpAddr, pin::pin,
    rc::Rc, time::Duration,
};

use futures::StreamExt;
use hyper_util::client::proxy::matcher::Matcher;
use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v2::HorizontalPodAutoscaler, core::v1 as core,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
    core::{NamespaceResourceScope, Selector},
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{sleep, timeout},
};

use crate::{
    format::root_cause,
    observations::{AUTOSCALERS, PodMetrics, RawObservation, Reduced},
    record::{Autoscaler, Deployment, ObservationKind, State},
    scaled_object,
};

/// metrics-server measures every 15 s.
const METRICS_EVERY: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no usable kubeconfig: {0}")]
    NoConfig(String),
    #[error("the cluster {0} does not respond")]
    Silent(String),
    #[error("the cluster {cluster} does not list {what}: {why}")]
    Refused {
        cluster: String,
        what: &'static str,
        why: String,
    },
    #[error(
        "there is no Deployment {name} in namespace {namespace}: deploy the app first (make deploy)"
    )]
    NoDeployment { name: String, namespace: String },
    #[error("the selector of the Deployment {name} cannot be used: {why}")]
    Selector { name: String, why: String },
    #[error("{} autoscalers target the Deployment {name}: {}; keep one of them", .found.len(), .found.join(", "))]
    Many { name: String, found: Vec<String> },
}

/// A Deployment and its autoscaler.
pub struct Target {
    client: Client,
    namespace: String,
    name: String,
    /// The selector of its pods.
    selector: Selector,
    /// Including the requests of its pods.
    pub deployment: Deployment,
    pub autoscaler: Option<Autoscaler>,
}

impl Target {
    pub async fn find(namespace: &str, name: &str) -> Result<Self, Error> {
        let mut config = Config::infer()
            .await
            .map_err(|error| Error::NoConfig(error.to_string()))?;
        choose_proxy(&mut config);
        let cluster = config.cluster_url.to_string();
        let no = |error: kube::Error| Error::NoConfig(why(&error));
        let client = Client::try_from(config).map_err(no)?;
        match timeout(ANSWER_WITHIN, Self::ask(client, &cluster, namespace, name)).await {
            Ok(target) => target,
            Err(_) => Err(Error::Silent(cluster)),
        }
    }

    async fn ask(
        client: Client,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Self, Error> {
        let refused = |what| {
            let cluster = cluster.to_string();
            move |error| Error::Refused {
                cluster,
                what,
                why: why(&error),
            }
        };
        let deployments: Api<apps::Deployment> = Api::namespaced(client.clone(), namespace);
        let deployment = deployments
            .get_opt(name)
            .await
            .map_err(refused("Deployments"))?
            .ok_or_else(|| Error::NoDeployment {
                name: name.into(),
                namespace: namespace.into(),
            })?;
        let selector = deployment.spec.clone().unwrap_or_default().selector;
        let selector = Selector::try_from(selector).map_err(|error| Error::Selector {
            name: name.into(),
            why: error.to_string(),
        })?;
        let pods: Api<core::Pod> = Api::namespaced(client.clone(), namespace);
        let pods = pods
            .list(&ListParams::default().labels_from(&selector))
            .await
            .map_err(refused("pods"))?;
        let mut state = State::default();
        for pod in pods {
            state.apply(&ObservationKind::Pod(pod.into()));
        }
        let mut deployment = Deployment::from(deployment);
        if let Some(requests) = state.requests() {
            deployment.requests = requests.clone();
        }
        let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), namespace);
        let listed = autoscalers
            .list(&ListParams::default())
            .await
            .map_err(refused("HorizontalPodAutoscalers"))?;
        let mut found: Vec<_> = listed
            .items
            .into_iter()
            .filter(|one| targets(one, name))
            .map(Autoscaler::from)
            .collect();
        if found.len() > 1 {
            let found = found.into_iter().map(|one| one.name).collect();
            return Err(Error::Many {
                name: name.into(),
                found,
            });
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
            selector,
            deployment,
            autoscaler: found.pop(),
            client,
        })
    }

    /// The name of the ScaledObject that targets the Deployment, if it is paused.
    pub fn paused(&self) -> impl Future<Output = Option<String>> + use<> {
        let (client, namespace, name) = (
            self.client.clone(),
            self.namespace.clone(),
            self.name.clone(),
        );
        async move { scaled_object::paused(client, &namespace, &name).await }
    }

    /// Watches until the receiver is dropped. Reconnects when a connection breaks, and then observes the
    /// changes made meanwhile.
    pub fn watch(&self, seen: &UnboundedSender<RawObservation>) {
        let everything = watcher::Config::default();
        let only = everything
            .clone()
            .fields(&format!("metadata.name={}", self.name));
        let own = everything.clone().labels_from(&self.selector);
        self.follow(
            "Deployments",
            only,
            seen,
            |one: apps::Deployment, _| Some(RawObservation::Deployment(Box::new(one.reduced()))),
            |_| Some(RawObservation::DeploymentGone(true.into())),
        );
        self.follow(
            "pods",
            own,
            seen,
            |one: core::Pod, _| Some(RawObservation::Pod(Box::new(one.reduced()))),
            |name| Some(RawObservation::PodGone(name)),
        );
        // Those that target the Deployment, also those that are created later.
        let autoscalers = Rc::new(RefCell::new(BTreeSet::new()));
        let name = self.name.clone();
        let found = autoscalers.clone();
        self.follow(
            AUTOSCALERS,
            everything.clone(),
            seen,
            move |one: HorizontalPodAutoscaler, _| {
                let is_own = targets(&one, &name);
                let mut found = found.borrow_mut();
                match is_own {
                    true => found.insert(one.name_any()),
                    false => found.remove(&one.name_any()),
                };
                is_own.then(|| RawObservation::Hpa(Box::new(one.reduced())))
            },
            |name| Some(RawObservation::HpaGone(name.into())),
        );
        let name = self.name.clone();
        let mut known = BTreeSet::new();
        self.follow(
            "events",
            everything,
            seen,
            // Older events may be about an earlier deployment.
            move |event: core::Event, is_old| {
                let is_new = known.insert((event.uid(), event.resource_version())) && !is_old;
                let is_own = concerns(&event, &name, &autoscalers.borrow());
                (is_new && is_own).then(|| RawObservation::Event(Box::new(event.reduced())))
            },
            |_| None,
        );
        tokio::task::spawn_local(poll_usage(
            self.client.clone(),
            self.namespace.clone(),
            self.selector.clone(),
            seen.clone(),
        ));
    }

    /// `changed` is called with every object, and whether it existed when the watch began; `gone` with the
    /// name of every object for which `changed` returned an observation, once it is deleted or `changed` returns none.
    fn follow<K>(
        &self,
        what: &'static str,
        config: watcher::Config,
        seen: &UnboundedSender<RawObservation>,
        mut changed: impl FnMut(K, bool) -> Option<RawObservation> + 'static,
        gone: impl Fn(String) -> Option<RawObservation> + 'static,
    ) where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut send = sender(what, seen);
        tokio::task::spawn_local(async move {
            let mut is_first_list = true;
            let mut known = BTreeSet::new();
            let mut unlisted = BTreeSet::new();
            let mut events = pin!(watcher(api, config).backoff(EverySecond));
            while let Some(event) = events.next().await {
                let news: Result<Vec<RawObservation>, String> = event
                    .map_err(|error| watch_error(&error))
                    .map(|event| match event {
                        Event::Init => {
                            unlisted = known.clone();
                            Vec::new()
                        }
                        Event::InitApply(one) | Event::Apply(one) => {
                            let name = one.name_any();
                            unlisted.remove(&name);
                            let news = match changed(one, is_first_list) {
                                Some(news) => {
                                    known.insert(name);
                                    Some(news)
                                }
                                // An autoscaler that now targets something else.
                                None => known.take(&name).and_then(&gone),
                            };
                            news.into_iter().collect()
                        }
                        // An object that is no longer listed was deleted while the connection was lost.
                        Event::InitDone => {
                            is_first_list = false;
                            known.retain(|name| !unlisted.contains(name));
                            std::mem::take(&mut unlisted)
                                .into_iter()
                                .filter_map(&gone)
                                .collect()
                        }
                        Event::Delete(one) => known
                            .take(&one.name_any())
                            .and_then(&gone)
                            .into_iter()
                            .collect(),
                    });
                if send(news).is_err() {
                    return;
                }
            }
        });
    }
}

/// Chooses the proxy as kubectl does: that of the kubeconfig, or else that of the environment unless
/// the cluster is on this machine or in `NO_PROXY`. kube looks for the proxy in `NO_PROXY`, not the cluster.
fn choose_proxy(config: &mut Config) {
    let variables = ["HTTPS_PROXY", "https_proxy"].into_iter();
    let set = variables.filter_map(|name| env::var(name).ok());
    let https = set.filter_map(|url| url.parse().ok()).next();
    if config.proxy_url.is_some() && config.proxy_url != https {
        return;
    }
    let host = config.cluster_url.host().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let is_local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    let proxy = Matcher::from_env().intercept(&config.cluster_url);
    // The proxy of the environment has its credentials too.
    let is_https = config.cluster_url.scheme_str() == Some("https");
    let proxy = proxy.map(|proxy| https.filter(|_| is_https).unwrap_or(proxy.uri().clone()));
    config.proxy_url = proxy.filter(|_| !is_local);
}

/// Whether an event is about the Deployment, its ReplicaSets, its pods or its autoscaler.
fn concerns(event: &core::Event, deployment: &str, autoscalers: &BTreeSet<String>) -> bool {
    let object = &event.involved_object;
    let (Some(kind), Some(name)) = (&object.kind, &object.name) else {
        return false;
    };
    // Names of other apps may begin with this name; only generated parts may follow it.
    let generated = || {
        let parts = name.strip_prefix(deployment)?.strip_prefix('-')?.split('-');
        let is_generated = |part: &str| {
            part.chars()
                .all(|one| "bcdfghjklmnpqrstvwxz2456789".contains(one))
        };
        parts.clone().all(is_generated).then(|| parts.count())
    };
    let is_warning = event.type_.as_deref() == Some("Warning");
    match kind.as_str() {
        "Deployment" => name == deployment,
        "HorizontalPodAutoscaler" => autoscalers.contains(name),
        // Pods have events for every step of their start.
        "ReplicaSet" => is_warning && generated() == Some(1),
        "Pod" => is_warning && generated() == Some(2),
        _ => false,
    }
}

/// Ticks that are missed are skipped, so that delays do not add up.
struct EverySecond;

impl Iterator for EverySecond {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

impl Backoff for EverySecond {
    fn reset(&mut self) {}
}

/// Sends each observation, and reports once that the connection is lost and once that it is back.
fn sender(
    what: &'static str,
    seen: &UnboundedSender<RawObservation>,
) -> impl FnMut(Result<Vec<RawObservation>, String>) -> Result<(), ()> + 'static {
    let seen = seen.clone();
    let mut is_lost = false;
    move |news| {
        let news = match news {
            Ok(mut news) => {
                if replace(&mut is_lost, false) {
                    news.insert(0, RawObservation::Regained { what: what.into() });
                }
                news
            }
            Err(_) if replace(&mut is_lost, true) => Vec::new(),
            Err(why) => vec![RawObservation::Lost {
                what: what.into(),
                why,
            }],
        };
        for one in news {
            seen.send(one).map_err(|_| ())?;
        }
        if seen.is_closed() { Err(()) } else { Ok(()) }
    }
}

async fn poll_usage(
    client: Client,
    namespace: String,
    selector: Selector,
    seen: UnboundedSender<RawObservation>,
) {
    let kind = GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", "PodMetrics");
    let kind = ApiResource::from_gvk_with_plural(&kind, "pods");
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
    let list = ListParams::default().labels_from(&selector);
    let mut send = sender("the metrics API", &seen);
    let mut last = None;
    loop {
        let polled = match timeout(ANSWER_WITHIN, api.list(&list)).await {
            Ok(Ok(pods)) => pods.items.into_iter().map(pod_metrics).collect(),
            Ok(Err(error)) => Err(why(&error)),
            Err(_) => Err("no response in time".into()),
        };
        let news = polled.map(|usage: Vec<PodMetrics>| {
            let is_new = last.as_ref() != Some(&usage);
            last = Some(usage.clone());
            is_new
                .then_some(RawObservation::Usage(usage))
                .into_iter()
                .collect()
        });
        if send(news).is_err() {
            return;
        }
        sleep(METRICS_EVERY).await;
    }
}

fn pod_metrics(object: DynamicObject) -> Result<PodMetrics, String> {
    let DynamicObject {
        metadata, mut data, ..
    } = object;
    let metadata = serde_json::to_value(metadata.reduced()).map_err(|error| error.to_string())?;
    data["metadata"] = metadata;
    serde_json::from_value(data).map_err(|error| format!("usage of a pod: {error}"))
}

fn watch_error(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => why(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// The message of the API, or else the root cause.
fn why(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return if status.message.is_empty() {
            status.reason.clone()
        } else {
            status.message.clone()
        };
    }
    root_cause(error)
}

fn targets(autoscaler: &HorizontalPodAutoscaler, deployment: &str) -> bool {
    autoscaler.spec.as_ref().is_some_and(|spec| {
        spec.scale_target_ref.kind == "Deployment" && spec.scale_target_ref.name == deployment
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_recorded(kind: &str, name: &str, type_: &str) -> bool {
        let mut event = core::Event {
            type_: Some(type_.into()),
            ..Default::default()
        };
        event.involved_object.kind = Some(kind.into());
        event.involved_object.name = Some(name.into());
        concerns(&event, "app", &["hpa".to_string()].into())
    }

    #[test]
    fn events_of_other_apps_are_not_recorded() {
        for (kind, name, type_) in [
            ("Deployment", "app", "Normal"),
            ("ReplicaSet", "app-6d5c7b9f4d", "Warning"),
            ("Pod", "app-6d5c7b9f4d-xk2vz", "Warning"),
            ("HorizontalPodAutoscaler", "hpa", "Normal"),
        ] {
            assert!(is_recorded(kind, name, type_), "{kind} {name}");
        }
        for (kind, name, type_) in [
            ("Deployment", "app-two", "Normal"),
            ("ReplicaSet", "app-two-6d5c7b9f4d", "Warning"),
            ("Pod", "app-two-6d5c7b9f4d-xk2vz", "Warning"),
            ("Pod", "app-2-6d5c7b9f4d-xk2vz", "Warning"),
            ("Pod", "apply-6d5c7b9f4d-xk2vz", "Warning"),
            ("Pod", "app-6d5c7b9f4d-xk2vz", "Normal"),
            ("HorizontalPodAutoscaler", "hpa-2", "Normal"),
        ] {
            assert!(!is_recorded(kind, name, type_), "{kind} {name}");
        }
    }
}

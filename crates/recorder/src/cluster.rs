//! Observes the cluster: watches the Deployment, its pods, its autoscaler and their events, and
//! polls the CPU of the pods, which cannot be watched. Writes nothing to it.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    env,
    fmt::Debug,
    mem::{replace, take},
    net::IpAddr,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures::StreamExt;
use hyper_util::client::proxy::matcher::Matcher;
use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v2::HorizontalPodAutoscaler, core::v1 as core,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Request},
    core::{NamespaceResourceScope, Selector},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    sync::mpsc::UnboundedSender,
    task::spawn_local,
    time::{sleep, timeout},
};

use crate::{
    format::root_cause,
    observations::{AUTOSCALERS, PodMetrics, RawObservation, Reduced},
    record::{ObservationKind, State},
};

/// metrics-server measures every 15 s.
const METRICS_EVERY: Duration = Duration::from_secs(5);
const RESPONSE_WITHIN: Duration = Duration::from_secs(20);

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
        "there is no Deployment `{name}` in namespace `{namespace}`: deploy the app first (`make deploy`)"
    )]
    NoDeployment { name: String, namespace: String },
    #[error("the selector of the Deployment `{name}` cannot be used: {why}")]
    Selector { name: String, why: String },
}

/// A Deployment, and what targets it.
pub struct Target {
    client: Client,
    namespace: String,
    name: String,
    /// The selector of its pods.
    selector: Selector,
    /// The Deployment, its pods and its autoscalers when they were listed.
    pub state: State,
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
        match timeout(
            RESPONSE_WITHIN,
            Self::ask(client, &cluster, namespace, name),
        )
        .await
        {
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
        let deployment = Api::<apps::Deployment>::namespaced(client.clone(), namespace)
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
        let pods = Api::<core::Pod>::namespaced(client.clone(), namespace)
            .list(&ListParams::default().labels_from(&selector))
            .await
            .map_err(refused("pods"))?;
        let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), namespace)
            .list(&ListParams::default())
            .await
            .map_err(refused("HorizontalPodAutoscalers"))?;
        let own = autoscalers.items.into_iter();
        let own = own.filter(|one| targets(one, name)).map(Box::new);
        let mut state = State::default();
        [RawObservation::Deployment(Box::new(deployment))]
            .into_iter()
            .chain(
                pods.items
                    .into_iter()
                    .map(Box::new)
                    .map(RawObservation::Pod),
            )
            .chain(own.map(RawObservation::Hpa))
            .for_each(|seen| state.apply(&ObservationKind::from(seen)));
        Ok(Self {
            client,
            namespace: namespace.into(),
            name: name.into(),
            selector,
            state,
        })
    }

    /// Watches until the receiver is dropped. Reconnects when a connection breaks, and then
    /// observes the changes made meanwhile.
    pub fn watch(&self, seen: &UnboundedSender<RawObservation>) {
        let everything = watcher::Config::default();
        let only = format!("metadata.name={}", self.name);
        self.follow(
            "Deployments",
            everything.clone().fields(&only),
            seen,
            |one: apps::Deployment, _| Some(RawObservation::Deployment(Box::new(one.reduced()))),
            |_| Some(RawObservation::DeploymentGone(true.into())),
        );
        self.follow(
            "pods",
            everything.clone().labels_from(&self.selector),
            seen,
            |one: core::Pod, _| Some(RawObservation::Pod(Box::new(one.reduced()))),
            |name| Some(RawObservation::PodGone(name)),
        );
        // Those that target the Deployment, also those that are created later.
        let autoscalers = Rc::new(RefCell::new(BTreeSet::new()));
        let (name, found) = (self.name.clone(), autoscalers.clone());
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
        spawn_local(poll_usage(
            self.client.clone(),
            self.namespace.clone(),
            self.selector.clone(),
            seen.clone(),
        ));
    }

    fn follow<K>(
        &self,
        what: &'static str,
        config: watcher::Config,
        seen: &UnboundedSender<RawObservation>,
        changed: impl FnMut(K, bool) -> Option<RawObservation> + 'static,
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
        let mut reported = Reported {
            changed,
            gone,
            is_first_list: true,
            names: BTreeSet::new(),
            unlisted: BTreeSet::new(),
        };
        spawn_local(async move {
            let mut events = pin!(watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                let news = event.map(|event| reported.news(event));
                if send(news.map_err(|error| watch_error(&error))).is_err() {
                    return;
                }
            }
        });
    }
}

/// What was reported of the objects of a watch.
struct Reported<C, G> {
    /// The observation of an object, unless it does not matter. It is told whether the object is
    /// from the first list.
    changed: C,
    /// The observation that the object with this name is gone.
    gone: G,
    is_first_list: bool,
    /// The objects of which there was an observation.
    names: BTreeSet<String>,
    /// Those of them that the present list has not named yet.
    unlisted: BTreeSet<String>,
}

impl<C, G> Reported<C, G> {
    fn news<K: ResourceExt>(&mut self, event: Event<K>) -> Vec<RawObservation>
    where
        C: FnMut(K, bool) -> Option<RawObservation>,
        G: Fn(String) -> Option<RawObservation>,
    {
        let gone = match event {
            Event::Init => {
                self.unlisted = self.names.clone();
                return Vec::new();
            }
            Event::InitApply(one) | Event::Apply(one) => {
                let name = one.name_any();
                self.unlisted.remove(&name);
                if let Some(news) = (self.changed)(one, self.is_first_list) {
                    self.names.insert(name);
                    return vec![news];
                }
                // An autoscaler that now targets something else.
                [name].into()
            }
            // Objects that are no longer listed were deleted while the connection was lost.
            Event::InitDone => {
                self.is_first_list = false;
                take(&mut self.unlisted)
            }
            Event::Delete(one) => [one.name_any()].into(),
        };
        let gone = gone.into_iter().filter(|name| self.names.remove(name));
        gone.filter_map(&self.gone).collect()
    }
}

/// Chooses the proxy as kubectl does: that of the kubeconfig, or else that of the environment
/// unless the cluster is on this machine or in `NO_PROXY`. kube looks for the proxy in `NO_PROXY`,
/// not the cluster.
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
    #[derive(Deserialize)]
    struct List {
        items: Vec<PodMetrics>,
    }
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
    let (pods, own) = (
        Request::new(path),
        ListParams::default().labels_from(&selector),
    );
    let mut send = sender("the metrics API", &seen);
    let mut last = None;
    loop {
        let request = pods.list(&own).expect("the selector is valid");
        let polled = match timeout(RESPONSE_WITHIN, client.request::<List>(request)).await {
            Ok(polled) => polled.map_err(|error| why(&error)),
            Err(_) => Err("no response in time".into()),
        };
        let news = polled.map(|List { items }| {
            let usage: Vec<_> = items.into_iter().map(Reduced::reduced).collect();
            let is_new = last.as_ref() != Some(&usage);
            last = Some(usage.clone());
            let news = is_new.then_some(RawObservation::Usage(usage));
            news.into_iter().collect()
        });
        if send(news).is_err() {
            return;
        }
        sleep(METRICS_EVERY).await;
    }
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

//! Observes the cluster: watches the Deployment, its pods, its autoscaler and their events, and
//! polls the CPU of the pods, which cannot be watched. Writes nothing to it.

use std::{
    collections::BTreeSet, env, fmt::Debug, mem::replace, net::IpAddr, pin::pin, time::Duration,
};

use anyhow::{Context, Result, anyhow};
use futures::{Stream, StreamExt};
use hyper_util::client::proxy::matcher::Matcher;
use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v2::HorizontalPodAutoscaler, core::v1 as core,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, ObjectList, Request},
    core::{NamespaceResourceScope, Selector},
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc::UnboundedSender,
    task::spawn_local,
    time::{sleep, timeout},
};

use crate::{
    format::{root_cause, without_login},
    observations::{AUTOSCALERS, PodMetrics, RawObservation},
    record::{ObservationKind, State},
};

/// metrics-server measures every 15 s.
const METRICS_EVERY: Duration = Duration::from_secs(5);
const RESPONSE_WITHIN: Duration = Duration::from_secs(20);
/// An autoscaler computes every 15 s, so that a connection is not lost for long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    /// # Errors
    /// If there is no cluster, or no such Deployment.
    pub async fn find(namespace: &str, name: &str) -> Result<Self> {
        let no = |why: String| anyhow!("no usable kubeconfig: {why}");
        let config = Config::infer().await;
        let mut config = config.map_err(|error| no(error.to_string()))?;
        choose_proxy(&mut config);
        let cluster = without_login(&config.cluster_url.to_string());
        let client = Client::try_from(config).map_err(|error| no(root_cause(&error)))?;
        let target = timeout(
            RESPONSE_WITHIN,
            Self::ask(client, &cluster, namespace, name),
        )
        .await;
        target.unwrap_or_else(|_| Err(anyhow!("the cluster {cluster:?} does not respond")))
    }

    async fn ask(client: Client, cluster: &str, namespace: &str, name: &str) -> Result<Self> {
        let refused = |what| {
            move |error: kube::Error| {
                let why = root_cause(&error);
                anyhow!("the cluster {cluster:?} does not list {what}: {why}")
            }
        };
        let deployment = Api::<apps::Deployment>::namespaced(client.clone(), namespace)
            .get_opt(name)
            .await
            .map_err(refused("Deployments"))?
            .with_context(|| {
                format!(
                    "there is no Deployment `{name}` in namespace `{namespace}`: \
                     deploy the app first (`make deploy`)"
                )
            })?;
        let selector = deployment.spec.clone().unwrap_or_default().selector;
        let selector = Selector::try_from(selector)
            .with_context(|| format!("the selector of the Deployment `{name}` cannot be used"))?;
        let pods = Api::<core::Pod>::namespaced(client.clone(), namespace)
            .list(&ListParams::default().labels_from(&selector))
            .await
            .map_err(refused("pods"))?;
        let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), namespace)
            .list(&ListParams::default())
            .await
            .map_err(refused("HorizontalPodAutoscalers"))?;
        let mut state = State::default();
        state.apply(&ObservationKind::Deployment(deployment.into()));
        for pod in pods {
            state.apply(&ObservationKind::Pod(pod.into()));
        }
        for autoscaler in autoscalers.into_iter().filter(|one| targets(one, name)) {
            state.apply(&ObservationKind::Autoscaler(autoscaler.into()));
        }
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
        let all = watcher::Config::default();
        self.follow(
            Sender::new("Deployments", seen),
            all.clone().fields(&format!("metadata.name={}", self.name)),
            |_| true,
            RawObservation::Deployment,
            |_| RawObservation::DeploymentGone(true.into()),
        );
        self.follow(
            Sender::new("pods", seen),
            all.clone().labels_from(&self.selector),
            |_| true,
            RawObservation::Pod,
            RawObservation::PodGone,
        );
        let name = self.name.clone();
        let autoscalers = self.follow(
            Sender::new(AUTOSCALERS, seen),
            all.clone(),
            move |one| targets(one, &name),
            RawObservation::Hpa,
            |name| RawObservation::HpaGone(name.into()),
        );
        let events = Api::<core::Event>::namespaced(self.client.clone(), &self.namespace);
        let events = watcher(events, all);
        let news = new_events(self.name.clone(), autoscalers);
        spawn_local(forward(events, Sender::new("events", seen), news));
        spawn_local(poll_usage(
            self.client.clone(),
            self.namespace.clone(),
            self.selector.clone(),
            Sender::new("the metrics API", seen),
        ));
    }

    /// Sends each change of the objects that matter, and which of them are gone. Returns all
    /// objects as they were last seen.
    fn follow<K>(
        &self,
        sender: Sender,
        config: watcher::Config,
        matters: impl Fn(&K) -> bool + 'static,
        changed: fn(Box<K>) -> RawObservation,
        gone: fn(String) -> RawObservation,
    ) -> Store<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (store, writer) = reflector::store();
        let api = Api::<K>::namespaced(self.client.clone(), &self.namespace);
        let events = watcher(api, config).reflect(writer);
        let (seen, mut known) = (store.clone(), BTreeSet::<String>::new());
        let news = move |event: Event<K>| {
            // An object that was deleted while the connection was lost is not in the next list.
            let present = seen.state_filter(&matters);
            let present = present.iter().map(|one| one.name_any()).collect();
            let before = replace(&mut known, present);
            let mut news: Vec<_> = before.difference(&known).cloned().map(gone).collect();
            if let Event::InitApply(one) | Event::Apply(one) = event
                && matters(&one)
            {
                news.push(changed(Box::new(one)));
            }
            news
        };
        spawn_local(forward(events, sender, news));
        store
    }
}

/// Sends what the events of a watch say.
async fn forward<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    mut sender: Sender,
    mut news: impl FnMut(Event<K>) -> Vec<RawObservation>,
) {
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        // Its list is not even asked for yet.
        if matches!(event, Ok(Event::Init)) {
            continue;
        }
        let has_failed = event.is_err();
        let news = event.map(&mut news).map_err(|error| root_cause(&error));
        if !sender.send(news) {
            return;
        }
        if has_failed {
            sleep(RETRY_AFTER).await;
        }
    }
}

/// The events that are not in the first list, which may be about an earlier deployment.
fn new_events(
    deployment: String,
    autoscalers: Store<HorizontalPodAutoscaler>,
) -> impl FnMut(Event<core::Event>) -> Vec<RawObservation> {
    let (mut known, mut is_listed) = (BTreeSet::new(), false);
    move |event| {
        let event = match event {
            Event::InitApply(event) | Event::Apply(event) => event,
            event => {
                is_listed |= matches!(event, Event::InitDone);
                return Vec::new();
            }
        };
        let is_new = known.insert((event.uid(), event.resource_version())) && is_listed;
        let is_autoscaler = |name: &str| {
            let found = autoscalers.find(|one| one.name_any() == name);
            found.is_some_and(|one| targets(&one, &deployment))
        };
        let is_own = is_new && concerns(&event, &deployment, is_autoscaler);
        let observed = is_own.then(|| RawObservation::Event(Box::new(event)));
        observed.into_iter().collect()
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
fn concerns(event: &core::Event, deployment: &str, is_autoscaler: impl Fn(&str) -> bool) -> bool {
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
        "HorizontalPodAutoscaler" => is_autoscaler(name),
        // Pods have events for every step of their start.
        "ReplicaSet" => is_warning && generated() == Some(1),
        "Pod" => is_warning && generated() == Some(2),
        _ => false,
    }
}

/// Sends observations; reports once that a connection is lost, and once that it is back.
struct Sender {
    what: &'static str,
    seen: UnboundedSender<RawObservation>,
    is_lost: bool,
}

impl Sender {
    fn new(what: &'static str, seen: &UnboundedSender<RawObservation>) -> Self {
        Self {
            what,
            seen: seen.clone(),
            is_lost: false,
        }
    }

    /// Returns whether there still is a receiver.
    fn send(&mut self, news: Result<Vec<RawObservation>, String>) -> bool {
        let what = self.what.to_string();
        let was_lost = replace(&mut self.is_lost, news.is_err());
        let news = match news {
            Ok(mut news) => {
                if was_lost {
                    news.insert(0, RawObservation::Regained { what });
                }
                news
            }
            Err(_) if was_lost => Vec::new(),
            Err(why) => vec![RawObservation::Lost { what, why }],
        };
        let mut news = news.into_iter();
        news.all(|one| self.seen.send(one.reduced()).is_ok()) && !self.seen.is_closed()
    }
}

async fn poll_usage(client: Client, namespace: String, selector: Selector, mut sender: Sender) {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
    let pods = Request::new(path);
    let own = ListParams::default().labels_from(&selector);
    let mut last = None;
    loop {
        let request = pods.list(&own).expect("the selector is valid");
        let polled = client.request::<ObjectList<PodMetrics>>(request);
        let polled = match timeout(RESPONSE_WITHIN, polled).await {
            Ok(polled) => polled.map_err(|error| root_cause(&error)),
            Err(_) => Err("no response in time".into()),
        };
        let news = polled.map(|pods| {
            let usage: Vec<_> = pods.into_iter().collect();
            if last.as_ref() == Some(&usage) {
                return Vec::new();
            }
            last = Some(usage.clone());
            vec![RawObservation::Usage(usage)]
        });
        if !sender.send(news) {
            return;
        }
        sleep(METRICS_EVERY).await;
    }
}

fn targets(autoscaler: &HorizontalPodAutoscaler, deployment: &str) -> bool {
    autoscaler.spec.as_ref().is_some_and(|spec| {
        spec.scale_target_ref.kind == "Deployment" && spec.scale_target_ref.name == deployment
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_other_apps_are_not_recorded() {
        for (is_recorded, kind, name, type_) in [
            (true, "Deployment", "app", "Normal"),
            (true, "ReplicaSet", "app-6d5c7b9f4d", "Warning"),
            (true, "Pod", "app-6d5c7b9f4d-xk2vz", "Warning"),
            (true, "HorizontalPodAutoscaler", "hpa", "Normal"),
            (false, "Deployment", "app-two", "Normal"),
            (false, "ReplicaSet", "app-two-6d5c7b9f4d", "Warning"),
            (false, "Pod", "app-two-6d5c7b9f4d-xk2vz", "Warning"),
            (false, "Pod", "app-2-6d5c7b9f4d-xk2vz", "Warning"),
            (false, "Pod", "apply-6d5c7b9f4d-xk2vz", "Warning"),
            (false, "Pod", "app-6d5c7b9f4d-xk2vz", "Normal"),
            (false, "HorizontalPodAutoscaler", "hpa-2", "Normal"),
        ] {
            let mut event = core::Event {
                type_: Some(type_.into()),
                ..Default::default()
            };
            event.involved_object.kind = Some(kind.into());
            event.involved_object.name = Some(name.into());
            let concerns = concerns(&event, "app", |name| name == "hpa");
            assert_eq!(concerns, is_recorded, "{kind} {name}");
        }
    }
}

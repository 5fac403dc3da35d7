//! Observes the cluster: watches the Deployment, its pods, its autoscaler and their events, and
//! polls the CPU of the pods, which cannot be watched. Writes nothing to it.

use std::{
    collections::BTreeSet, env, fmt::Debug, mem::replace, net::IpAddr, pin::pin, time::Duration,
};

use anyhow::{Context, Result, anyhow};
use futures::{Stream, StreamExt, future::ready, stream};
use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;
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
    objects::Usage,
    observations::{AUTOSCALERS, Seen},
    record::{ObservationKind, Record, State},
    rules::Flags,
};

/// metrics-server measures every 15 s.
const METRICS_EVERY: Duration = Duration::from_secs(5);
const RESPONSE_WITHIN: Duration = Duration::from_secs(20);
/// An autoscaler computes every 15 s, so that a connection is not lost for long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is seen, or why nothing is.
type News = Result<Vec<Seen>, String>;

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
    /// `flags` are those of the controller manager.
    ///
    /// # Errors
    /// If there is no cluster, or no such Deployment.
    pub async fn find(namespace: &str, name: &str, flags: Flags) -> Result<Self> {
        let no = |why: String| anyhow!("no usable kubeconfig: {why}");
        let config = Config::infer().await;
        let mut config = config.map_err(|error| no(error.to_string()))?;
        choose_proxy(&mut config);
        let cluster = without_login(&config.cluster_url.to_string());
        let client = Client::try_from(config).map_err(|error| no(root_cause(&error)))?;
        let target = Self::ask(client, &cluster, namespace, name, flags);
        let target = timeout(RESPONSE_WITHIN, target).await;
        target.unwrap_or_else(|_| Err(anyhow!("the cluster {cluster:?} does not respond")))
    }

    async fn ask(
        client: Client,
        cluster: &str,
        namespace: &str,
        name: &str,
        flags: Flags,
    ) -> Result<Self> {
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
        let autoscalers = autoscalers.into_iter().filter(|one| targets(one, name));
        let autoscalers = autoscalers.map(|one| ObservationKind::Autoscaler(one.into()));
        let pods = pods.into_iter().map(|one| ObservationKind::Pod(one.into()));
        let deployment = ObservationKind::Deployment(deployment.into());
        let mut listed = Record::new(Timestamp::default(), flags);
        for object in pods.chain(autoscalers).chain([deployment]) {
            listed.add(0.0, object);
        }
        Ok(Self {
            client,
            namespace: namespace.into(),
            name: name.into(),
            selector,
            state: listed.state,
        })
    }

    /// Sends what it sees until the receiver is dropped. Reconnects when a connection breaks, and
    /// then sends the changes made meanwhile.
    pub fn watch(&self, seen: &UnboundedSender<Seen>) {
        let all = watcher::Config::default();
        self.follow(
            ("Deployments", seen),
            all.clone().fields(&format!("metadata.name={}", self.name)),
            |_: &apps::Deployment| true,
            Seen::Deployment,
            |_| Seen::DeploymentGone(true.into()),
        );
        self.follow(
            ("pods", seen),
            all.clone().labels_from(&self.selector),
            |_: &core::Pod| true,
            Seen::Pod,
            Seen::PodGone,
        );
        let name = self.name.clone();
        let autoscalers = self.follow(
            (AUTOSCALERS, seen),
            all.clone(),
            move |one| targets(one, &name),
            Seen::Autoscaler,
            Seen::AutoscalerGone,
        );
        let events = Api::<core::Event>::namespaced(self.client.clone(), &self.namespace);
        let events = watcher(events, all);
        let events = news(events, new_events(self.name.clone(), autoscalers));
        spawn_local(forward("events", events, seen.clone()));
        spawn_local(forward("the metrics API", self.usage(), seen.clone()));
    }

    /// Sends each change of the objects that matter, and which of them are gone. Returns all
    /// objects as they were last seen.
    fn follow<K>(
        &self,
        (what, seen): (&'static str, &UnboundedSender<Seen>),
        config: watcher::Config,
        matters: impl Fn(&K) -> bool + 'static,
        changed: fn(K) -> Seen,
        gone: fn(String) -> Seen,
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
        let (all, mut known) = (store.clone(), BTreeSet::<String>::new());
        let news = news(events, move |event| {
            // An object that was deleted while the connection was lost is not in the next list.
            let present = all.state_filter(&matters);
            let present = present.iter().map(|one| one.name_any()).collect();
            let before = replace(&mut known, present);
            let mut news: Vec<_> = before.difference(&known).cloned().map(gone).collect();
            if let Event::InitApply(one) | Event::Apply(one) = event
                && matters(&one)
            {
                news.push(changed(one));
            }
            news
        });
        spawn_local(forward(what, news, seen.clone()));
        store
    }

    /// The usage of the pods, whenever it has changed.
    fn usage(&self) -> impl Stream<Item = News> + use<> {
        let namespace = &self.namespace;
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let (client, pods) = (self.client.clone(), Request::new(path));
        let own = ListParams::default().labels_from(&self.selector);
        let polls = stream::unfold(Duration::ZERO, move |wait| {
            let request = pods.list(&own).expect("the selector is valid");
            let client = client.clone();
            async move {
                sleep(wait).await;
                let polled = client.request::<ObjectList<Usage>>(request);
                Some((timeout(RESPONSE_WITHIN, polled).await, METRICS_EVERY))
            }
        });
        let mut last = None;
        polls.map(move |polled| {
            let polled = polled.map_err(|_| "no response in time".to_string())?;
            let usage = polled.map_err(|error| root_cause(&error))?.items;
            let is_new = last.as_ref() != Some(&usage);
            let news = is_new.then(|| Seen::Usage(usage.clone()));
            last = Some(usage);
            Ok(news.into_iter().collect())
        })
    }
}

/// What the events of a watch say.
fn news<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    mut tell: impl FnMut(Event<K>) -> Vec<Seen>,
) -> impl Stream<Item = News> {
    events.filter_map(move |event| {
        ready(match event {
            // Its list is not even asked for yet.
            Ok(Event::Init) => None,
            event => Some(event.map(&mut tell).map_err(|error| root_cause(&error))),
        })
    })
}

/// Sends news until the receiver is dropped; reports once that they are lost, and once that they
/// are back.
async fn forward(what: &'static str, news: impl Stream<Item = News>, seen: UnboundedSender<Seen>) {
    let (mut news, mut is_lost) = (pin!(news), false);
    while let Some(news) = news.next().await {
        let was_lost = replace(&mut is_lost, news.is_err());
        let change = match &news {
            Err(why) if !was_lost => Some(Seen::Lost {
                what: what.into(),
                why: why.clone(),
            }),
            Ok(_) if was_lost => Some(Seen::Regained { what: what.into() }),
            _ => None,
        };
        let mut news = change.into_iter().chain(news.unwrap_or_default());
        if news.any(|one| seen.send(one).is_err()) || seen.is_closed() {
            return;
        }
        if is_lost {
            sleep(RETRY_AFTER).await;
        }
    }
}

/// The events that are not in the first list, which may be about an earlier deployment.
fn new_events(
    deployment: String,
    autoscalers: Store<HorizontalPodAutoscaler>,
) -> impl FnMut(Event<core::Event>) -> Vec<Seen> {
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
        let observed = is_own.then_some(Seen::Event(event));
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

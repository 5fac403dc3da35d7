//! The cluster: what it says of the Deployment, its pods, its autoscaler and their events is watched;
//! the CPU of the pods, which cannot be watched, is asked for. Nothing is written to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    mem::replace,
    pin::pin,
    time::Duration,
};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1 as apps,
    autoscaling::v2::{self as autoscaling, HorizontalPodAutoscaler},
    core::v1 as core,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{sleep, timeout},
};

use crate::{
    decision::{
        Amount, Direction, Policies, Policy, Reading, Rules, SCALE_DOWN_WINDOW, Select, TOLERANCE,
        Unit,
    },
    record::{Autoscaler, Condition, Deployment, KubeEvent, ObservationKind, Pod, Usage},
    scaled_object,
};

/// metrics-server measures every 15 s.
const METRICS_EVERY: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no cluster to ask: {0}")]
    NoConfig(String),
    #[error("the cluster {0} does not answer")]
    Silent(String),
    #[error("the cluster {cluster} does not say what {what} there are: {why}")]
    Refused {
        cluster: String,
        what: &'static str,
        why: String,
    },
    #[error(
        "there is no Deployment {name} in namespace {namespace}: deploy the app first (make deploy)"
    )]
    NoDeployment { name: String, namespace: String },
    #[error("the Deployment {0} selects its pods by more than labels (matchExpressions)")]
    Selector(String),
    #[error("{} autoscalers target the Deployment {name}: {}; keep one of them", .found.len(), .found.join(", "))]
    Many { name: String, found: Vec<String> },
}

/// A Deployment and its autoscaler.
pub struct Target {
    client: Client,
    namespace: String,
    name: String,
    /// The labels of its pods.
    labels: String,
    pub deployment: Deployment,
    pub autoscaler: Option<Autoscaler>,
}

impl Target {
    pub async fn find(namespace: &str, name: &str) -> Result<Self, Error> {
        let config = Config::infer()
            .await
            .map_err(|error| Error::NoConfig(error.to_string()))?;
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
        let selector = deployment
            .spec
            .as_ref()
            .map(|spec| spec.selector.clone())
            .unwrap_or_default();
        if selector
            .match_expressions
            .is_some_and(|expressions| !expressions.is_empty())
        {
            return Err(Error::Selector(name.into()));
        }
        let labels = selector.match_labels.unwrap_or_default();
        let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
        let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), namespace);
        let listed = autoscalers
            .list(&ListParams::default())
            .await
            .map_err(refused("HorizontalPodAutoscalers"))?;
        let mut found: Vec<_> = listed
            .items
            .iter()
            .filter(|one| targets(one, name))
            .map(autoscaler)
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
            labels: labels.collect::<Vec<_>>().join(","),
            deployment: self::deployment(&deployment),
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

    /// Watches until nobody listens. Connections that break are opened anew, and what changed
    /// meanwhile is seen then.
    pub fn watch(&self, seen: &UnboundedSender<ObservationKind>) {
        let everything = watcher::Config::default();
        let only = everything
            .clone()
            .fields(&format!("metadata.name={}", self.name));
        let own = everything.clone().labels(&self.labels);
        self.follow("Deployments", only, seen, deployment_seen, |_| {
            Some(ObservationKind::DeploymentGone)
        });
        self.follow("pods", own, seen, pod_seen, |name| {
            Some(ObservationKind::PodGone(name))
        });
        let name = self.name.clone();
        let autoscaler_seen = move |one: &HorizontalPodAutoscaler, _| {
            targets(one, &name).then(|| ObservationKind::Autoscaler(autoscaler(one)))
        };
        self.follow(
            "autoscalers",
            everything.clone(),
            seen,
            autoscaler_seen,
            |_| Some(ObservationKind::AutoscalerGone),
        );
        self.follow("events", everything, seen, self.event_seen(), |_| None);
        tokio::task::spawn_local(poll_usage(
            self.client.clone(),
            self.namespace.clone(),
            self.labels.clone(),
            seen.clone(),
        ));
    }

    /// `changed` is told of every object, and whether it was there when the watch began; `gone` of the
    /// name of every one that it found worth telling.
    fn follow<K>(
        &self,
        what: &'static str,
        config: watcher::Config,
        seen: &UnboundedSender<ObservationKind>,
        mut changed: impl FnMut(&K, bool) -> Option<ObservationKind> + 'static,
        gone: impl Fn(String) -> Option<ObservationKind> + 'static,
    ) where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut tell = teller(what, seen);
        tokio::task::spawn_local(async move {
            let mut is_first_list = true;
            let mut known = BTreeSet::new();
            let mut unlisted = BTreeSet::new();
            let mut events = pin!(watcher(api, config).backoff(EverySecond));
            while let Some(event) = events.next().await {
                let news: Result<Vec<ObservationKind>, String> = event
                    .map_err(|error| watch_error(&error))
                    .map(|event| match event {
                        Event::Init => {
                            unlisted = known.clone();
                            Vec::new()
                        }
                        Event::InitApply(one) | Event::Apply(one) => {
                            unlisted.remove(&one.name_any());
                            let news = changed(&one, is_first_list);
                            if news.is_some() {
                                known.insert(one.name_any());
                            }
                            news.into_iter().collect()
                        }
                        // What is not listed any more went while nobody watched.
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
                if tell(news).is_err() {
                    return;
                }
            }
        });
    }

    /// New events; those that were there before are of an earlier time, perhaps of an earlier deployment.
    fn event_seen(&self) -> impl FnMut(&core::Event, bool) -> Option<ObservationKind> + 'static {
        let deployment = self.name.clone();
        let pods = format!("{deployment}-");
        let autoscaler = self
            .autoscaler
            .as_ref()
            .map(|autoscaler| autoscaler.name.clone());
        let mut known = BTreeSet::new();
        move |event, is_old| {
            let is_known = !known.insert((event.uid(), event.resource_version()));
            let about = event.involved_object.name.as_deref()?;
            let concerns = match event.involved_object.kind.as_deref()? {
                "Deployment" => about == deployment,
                "HorizontalPodAutoscaler" => Some(about) == autoscaler.as_deref(),
                // Pods have an event for every step of their start.
                "Pod" => about.starts_with(&pods) && event.type_.as_deref() == Some("Warning"),
                _ => false,
            };
            (concerns && !is_old && !is_known).then(|| {
                ObservationKind::Event(KubeEvent {
                    about: about.into(),
                    reason: event.reason.clone().unwrap_or_default(),
                    message: event.message.clone().unwrap_or_default(),
                })
            })
        }
    }
}

fn deployment_seen(object: &apps::Deployment, _: bool) -> Option<ObservationKind> {
    Some(ObservationKind::Deployment(deployment(object)))
}

fn pod_seen(object: &core::Pod, _: bool) -> Option<ObservationKind> {
    Some(ObservationKind::Pod(pod(object)))
}

/// A recorder that is late has gaps, so that it does not wait longer and longer.
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

/// Passes on what is new; says once that it is lost, and once that it is back.
fn teller(
    what: &'static str,
    seen: &UnboundedSender<ObservationKind>,
) -> impl FnMut(Result<Vec<ObservationKind>, String>) -> Result<(), ()> + 'static {
    let seen = seen.clone();
    let mut is_lost = false;
    move |news| {
        let news = match news {
            Ok(mut news) => {
                if replace(&mut is_lost, false) {
                    news.insert(0, ObservationKind::Regained { what: what.into() });
                }
                news
            }
            Err(_) if replace(&mut is_lost, true) => Vec::new(),
            Err(why) => vec![ObservationKind::Lost {
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
    labels: String,
    seen: UnboundedSender<ObservationKind>,
) {
    let kind = GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", "PodMetrics");
    let kind = ApiResource::from_gvk_with_plural(&kind, "pods");
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
    let list = ListParams::default().labels(&labels);
    let mut tell = teller("the metrics API", &seen);
    let mut last = BTreeMap::new();
    loop {
        let asked = match timeout(ANSWER_WITHIN, api.list(&list)).await {
            Ok(Ok(pods)) => Ok(pods.items.iter().filter_map(usage).collect()),
            Ok(Err(error)) => Err(why(&error)),
            Err(_) => Err("no answer in time".into()),
        };
        let news = asked.map(|usage: BTreeMap<_, _>| {
            let is_new = usage != last;
            last = usage.clone();
            is_new
                .then_some(ObservationKind::Usage(usage))
                .into_iter()
                .collect()
        });
        if tell(news).is_err() {
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

/// The API's own words, or else what is at the bottom of it.
fn why(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return if status.message.is_empty() {
            status.reason.clone()
        } else {
            status.message.clone()
        };
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn targets(autoscaler: &HorizontalPodAutoscaler, deployment: &str) -> bool {
    autoscaler.spec.as_ref().is_some_and(|spec| {
        spec.scale_target_ref.kind == "Deployment" && spec.scale_target_ref.name == deployment
    })
}

fn count(number: Option<i32>) -> u32 {
    number.unwrap_or_default().try_into().unwrap_or_default()
}

fn deployment(object: &apps::Deployment) -> Deployment {
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    let containers = spec
        .and_then(|spec| spec.template.spec.as_ref())
        .map_or(&[][..], |pod| &pod.containers[..]);
    let requests = containers.iter().map(|container| {
        let requests = container.resources.as_ref()?.requests.as_ref()?;
        millicores(&requests.get("cpu")?.0)
    });
    Deployment {
        desired: spec.map_or(0, |spec| count(spec.replicas.or(Some(1)))),
        existing: count(status.and_then(|status| status.replicas)),
        ready: count(status.and_then(|status| status.ready_replicas)),
        request: requests
            .sum::<Option<f64>>()
            .map(|request| request.round() as u32),
    }
}

fn autoscaler(object: &HorizontalPodAutoscaler) -> Autoscaler {
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let target = spec.metrics.iter().flatten().find_map(target);
    let current = status.current_metrics.iter().flatten().find_map(current);
    let reading = target.zip(current).and_then(|((target, unit), current)| {
        let current = match unit {
            Unit::Percent => count(Some(current.average_utilization?)),
            Unit::Millicores => millicores(&current.average_value?.0)?.round() as u32,
        };
        Some(Reading {
            current,
            target,
            unit,
        })
    });
    let conditions = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .map(|one| Condition {
            kind: one.type_,
            is_true: one.status == "True",
            reason: one.reason.unwrap_or_default(),
            message: one.message.unwrap_or_default(),
        });
    let behavior = spec.behavior.unwrap_or_default();
    Autoscaler {
        name: object.name_any(),
        rules: Rules {
            min: count(spec.min_replicas.or(Some(1))),
            max: count(Some(spec.max_replicas)),
            up: direction(behavior.scale_up, 0),
            down: direction(behavior.scale_down, SCALE_DOWN_WINDOW),
        },
        target,
        from: count(status.current_replicas),
        to: count(Some(status.desired_replicas)),
        reading,
        conditions: conditions.collect(),
    }
}

/// The target of a CPU metric, of the whole pod or of one container.
fn target(metric: &autoscaling::MetricSpec) -> Option<(u32, Unit)> {
    let (name, target) = match (&metric.resource, &metric.container_resource) {
        (Some(resource), _) => (&resource.name, &resource.target),
        (_, Some(resource)) => (&resource.name, &resource.target),
        _ => return None,
    };
    let (target, unit) = match (target.average_utilization, &target.average_value) {
        _ if name != "cpu" => return None,
        (Some(percent), _) => (count(Some(percent)), Unit::Percent),
        (_, Some(value)) => (millicores(&value.0)?.round() as u32, Unit::Millicores),
        _ => return None,
    };
    (target > 0).then_some((target, unit))
}

fn current(metric: &autoscaling::MetricStatus) -> Option<autoscaling::MetricValueStatus> {
    let (name, current) = match (&metric.resource, &metric.container_resource) {
        (Some(resource), _) => (&resource.name, &resource.current),
        (_, Some(resource)) => (&resource.name, &resource.current),
        _ => return None,
    };
    (name == "cpu").then(|| current.clone())
}

fn direction(rules: Option<autoscaling::HPAScalingRules>, window: u32) -> Direction {
    let rules = rules.unwrap_or_default();
    let tolerance = rules
        .tolerance
        .as_ref()
        .and_then(|tolerance| millicores(&tolerance.0));
    let policies = rules.policies.map(|policies| Policies {
        select: match rules.select_policy.as_deref() {
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            _ => Select::Max,
        },
        policies: policies
            .into_iter()
            .map(|policy| {
                let value = count(Some(policy.value));
                let is_percent = policy.type_ == "Percent";
                Policy {
                    amount: if is_percent {
                        Amount::Percent(value)
                    } else {
                        Amount::Pods(value)
                    },
                    period: count(Some(policy.period_seconds)),
                }
            })
            .collect(),
    });
    Direction {
        tolerance: tolerance.map_or(TOLERANCE, |thousandths| thousandths / 1000.0),
        window: rules
            .stabilization_window_seconds
            .map_or(window, |seconds| count(Some(seconds))),
        policies,
    }
}

fn pod(object: &core::Pod) -> Pod {
    let status = object.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref();
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    Pod {
        name: object.name_any(),
        created: object.creation_timestamp().map(|time| time.0),
        started: status.start_time.as_ref().map(|time| time.0),
        ready: ready.is_some_and(|condition| condition.status == "True"),
        since: ready.and_then(|condition| Some(condition.last_transition_time.as_ref()?.0)),
        pending: phase == Some("Pending"),
        leaving: phase == Some("Failed") || object.metadata.deletion_timestamp.is_some(),
    }
}

fn usage(object: &DynamicObject) -> Option<(String, Usage)> {
    #[derive(Deserialize)]
    struct PodMetrics {
        timestamp: Timestamp,
        window: SignedDuration,
        containers: Vec<Container>,
    }
    #[derive(Deserialize)]
    struct Container {
        usage: BTreeMap<String, String>,
    }
    let metrics: PodMetrics = serde_json::from_value(object.data.clone()).ok()?;
    let containers = metrics.containers.iter();
    let all: Option<f64> = containers
        .map(|container| millicores(container.usage.get("cpu")?))
        .sum();
    let usage = Usage {
        millicores: all?,
        ended: metrics.timestamp,
        window: metrics.window,
    };
    Some((object.name_any(), usage))
}

/// A Kubernetes quantity in thousandths: `0.1`, `100m`, `24756128n`.
// By hand: kube_quantity brings a decimal library and counts bytes, k8s_quantity_parser knows no nanocores.
fn millicores(quantity: &str) -> Option<f64> {
    let number = quantity.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let thousandths = match &quantity[number.len()..] {
        "n" => 1e-6,
        "u" => 1e-3,
        "m" => 1.0,
        "" => 1e3,
        "k" => 1e6,
        _ => return None,
    };
    number
        .parse::<f64>()
        .ok()
        .map(|number| number * thousandths)
}

//! A small API server over HTTP: lists, watch streams that can break, and the metrics of pods.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    mem::take,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Duration, sleep},
};

pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const EVENTS: &str = "/api/v1/namespaces/default/events";
pub const METRICS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

/// The objects of the server, and their changes: the number of a change is its place in the log.
#[derive(Default)]
struct Objects {
    current: HashMap<&'static str, Vec<Value>>,
    log: Vec<(&'static str, Value)>,
}

pub struct Fake {
    objects: Mutex<Objects>,
    changed: watch::Sender<()>,
    broken: watch::Sender<usize>,
    watches: AtomicUsize,
    /// The label selectors of the requests.
    selectors: Mutex<Vec<String>>,
    /// The queries of the GET requests to an app.
    queries: Mutex<Vec<String>>,
    pub kubeconfig: PathBuf,
    pub url: String,
}

impl Fake {
    /// Listens on a free port of the loopback interface until the test ends.
    pub async fn start(test: &str) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let folder = folder(test);
        fs::create_dir_all(&folder).expect("the folder of the tests is writable");
        let kubeconfig = folder.join("kubeconfig.json");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": url}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        });
        fs::write(&kubeconfig, config.to_string()).expect("the folder is writable");
        let fake = Arc::new(Self {
            objects: Mutex::default(),
            changed: watch::Sender::new(()),
            broken: watch::Sender::new(0),
            watches: AtomicUsize::new(0),
            selectors: Mutex::default(),
            queries: Mutex::default(),
            kubeconfig,
            url,
        });
        let app = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    pub fn set(&self, path: &'static str, object: Value) {
        let mut objects = self.objects.lock().expect("nobody panicked");
        let all = objects.current.entry(path).or_default();
        let before = all.len();
        all.retain(|one| name(one) != name(&object));
        let kind = if all.len() < before {
            "MODIFIED"
        } else {
            "ADDED"
        };
        all.push(object.clone());
        objects.change(path, kind, object);
        self.changed.send_replace(());
    }

    pub fn delete(&self, path: &'static str, of: &str) {
        let mut objects = self.objects.lock().expect("nobody panicked");
        let all = objects.current.entry(path).or_default();
        let place = all
            .iter()
            .position(|one| name(one) == of)
            .expect("it is there");
        let object = all.remove(place);
        objects.change(path, "DELETED", object);
        self.changed.send_replace(());
    }

    /// Interrupts all watches.
    pub fn break_watches(&self) {
        self.broken.send_modify(|times| *times += 1);
    }

    /// Waits until the recorder has begun this number of watches.
    pub async fn watched(&self, times: usize) {
        while self.watches.load(Ordering::Relaxed) < times {
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn selectors(&self) -> String {
        self.selectors.lock().expect("nobody panicked").join("\n")
    }

    pub fn take_queries(&self) -> Vec<String> {
        take(&mut self.queries.lock().expect("nobody panicked"))
    }

    /// The response of an app: of cpu-load-gen, of one that fails after its first response, or of
    /// another one.
    fn respond(&self, path: &str, method: &Method, query: &str) -> Option<Response> {
        let mut queries = self.queries.lock().expect("nobody panicked");
        let response = match path {
            "/app" => "hello".into_response(),
            "/cpu-load-gen" => [("load", "cpu_time=20ms"), ("max-cpu-time", "10s")].into_response(),
            "/flaky" if queries.is_empty() => "hello".into_response(),
            "/flaky" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            _ => return None,
        };
        if *method == Method::GET {
            queries.push(query.into());
        }
        Some(response)
    }

    fn list(&self, path: &str) -> Option<Value> {
        let objects = self.objects.lock().expect("nobody panicked");
        let items = objects.current.get(path)?;
        let version = objects.log.len().to_string();
        Some(json!({"kind": "List", "metadata": {"resourceVersion": version}, "items": items}))
    }

    fn get(&self, path: &str) -> Option<Value> {
        let (folder, wanted) = path.rsplit_once('/')?;
        let objects = self.objects.lock().expect("nobody panicked");
        objects
            .current
            .get(folder)?
            .iter()
            .find(|one| name(one) == wanted)
            .cloned()
    }

    /// Every change after the given one, and all future ones.
    fn stream(self: Arc<Self>, path: String, since: usize) -> Body {
        self.watches.fetch_add(1, Ordering::Relaxed);
        let (changed, broken) = (self.changed.subscribe(), self.broken.subscribe());
        let state = (self, path, since, changed, broken);
        Body::from_stream(stream::unfold(state, |state| async move {
            let (fake, path, since, mut changed, mut broken) = state;
            loop {
                changed.mark_unchanged();
                let (next, lines) = fake.changes(&path, since);
                if !lines.is_empty() {
                    let bytes = Ok::<_, std::io::Error>(Bytes::from(lines));
                    return Some((bytes, (fake, path, next, changed, broken)));
                }
                tokio::select! {
                    _ = changed.changed() => {}
                    _ = broken.changed() => {
                        let broken_pipe = std::io::ErrorKind::BrokenPipe.into();
                        return Some((Err(broken_pipe), (fake, path, since, changed, broken)));
                    }
                }
            }
        }))
    }

    fn changes(&self, path: &str, since: usize) -> (usize, String) {
        let objects = self.objects.lock().expect("nobody panicked");
        let new = objects.log.iter().skip(since).filter(|(of, _)| *of == path);
        (
            objects.log.len(),
            new.map(|(_, change)| format!("{change}\n")).collect(),
        )
    }
}

impl Objects {
    fn change(&mut self, path: &'static str, kind: &str, mut object: Value) {
        let version = (self.log.len() + 1).to_string();
        object["metadata"]["resourceVersion"] = version.clone().into();
        if let Some(all) = self.current.get_mut(path) {
            all.iter_mut()
                .filter(|one| name(one) == name(&object))
                .for_each(|one| *one = object.clone());
        }
        self.log
            .push((path, json!({"type": kind, "object": object})));
    }
}

async fn answer(
    State(fake): State<Arc<Fake>>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    uri: Uri,
) -> Result<Response, Infallible> {
    let path = uri.path();
    if let Some(response) = fake.respond(path, &method, uri.query().unwrap_or_default()) {
        return Ok(response);
    }
    if let Some(selector) = query.get("labelSelector") {
        let mut selectors = fake.selectors.lock().expect("nobody panicked");
        selectors.push(selector.clone());
    }
    if query.contains_key("watch") {
        let since = query
            .get("resourceVersion")
            .and_then(|version| version.parse().ok());
        return Ok(fake.stream(path.into(), since.unwrap_or(0)).into_response());
    }
    Ok(match fake.list(path).or_else(|| fake.get(path)) {
        Some(object) => object.to_string().into_response(),
        None => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": format!("{path} not found"), "reason": "NotFound", "code": 404,
            });
            (StatusCode::NOT_FOUND, status.to_string()).into_response()
        }
    })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"]
        .as_str()
        .expect("every object has a name")
}

/// The folder for the files of a test.
pub fn folder(test: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test)
}

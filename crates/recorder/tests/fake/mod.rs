//! A small API server over HTTP: lists, watch streams that can break, and the metrics of pods.

use std::{
    collections::HashMap,
    fs, io,
    mem::take,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::channel::mpsc::{UnboundedSender, unbounded};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Duration, sleep},
};

pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const EVENTS: &str = "/api/v1/namespaces/default/events";
pub const METRICS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

#[derive(Default)]
struct Server {
    /// The path and the event of each change: the number of a change is its place.
    log: Vec<(&'static str, Value)>,
    /// The watches that have not been broken, by path.
    watches: Vec<(String, UnboundedSender<io::Result<String>>)>,
    /// What the recorder may not read.
    forbidden: Option<&'static str>,
    /// Such as `GET /app?iterations=0`.
    requests: Vec<String>,
}

pub struct Fake {
    server: Mutex<Server>,
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
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": url}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        });
        fs::write(&kubeconfig, config.to_string()).expect("the folder is writable");
        let fake = Arc::new(Self {
            server: Mutex::default(),
            kubeconfig,
            url,
        });
        let app = Router::new().fallback(respond).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        self.server.lock().expect("nobody panicked")
    }

    pub fn set(&self, path: &'static str, object: Value) {
        self.lock().change(path, "ADDED", object);
    }

    pub fn delete(&self, path: &'static str, of: &str) {
        let mut server = self.lock();
        let object = server.get(&format!("{path}/{of}"));
        server.change(path, "DELETED", object.expect("it is there"));
    }

    /// Interrupts all watches, and has forgotten the changes when they are asked for again.
    pub fn break_watches(&self) {
        let status = json!({"status": "Failure", "reason": "Expired", "code": 410});
        let expired = json!({"type": "ERROR", "object": status});
        for (_, watch) in take(&mut self.lock().watches) {
            let _ = watch.unbounded_send(Ok(format!("{expired}\n")));
            let _ = watch.unbounded_send(Err(io::ErrorKind::BrokenPipe.into()));
        }
    }

    /// Waits until the recorder has begun this number of watches.
    pub async fn watched(&self, times: usize) {
        self.asked("watch=true", times).await;
    }

    /// Waits until this number of requests contain a text.
    pub async fn asked(&self, text: &str, times: usize) {
        let asked = |one: &&String| one.contains(text);
        while self.lock().requests.iter().filter(asked).count() < times {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<String> {
        take(&mut self.lock().requests)
    }

    /// Lets the recorder list everything but this.
    pub fn forbid(&self, path: Option<&'static str>) {
        self.lock().forbidden = path;
    }
}

impl Server {
    fn change(&mut self, path: &'static str, kind: &str, mut object: Value) {
        let version = (self.log.len() + 1).to_string();
        object["metadata"]["resourceVersion"] = version.into();
        let event = json!({"type": kind, "object": object});
        for (_, watch) in self.watches.iter().filter(|(of, _)| of == path) {
            // A recorder that has ended does not receive it.
            let _ = watch.unbounded_send(Ok(format!("{event}\n")));
        }
        self.log.push((path, event));
    }

    fn objects(&self, path: &str) -> Vec<&Value> {
        let mut objects: Vec<&Value> = Vec::new();
        for (_, event) in self.log.iter().filter(|(of, _)| *of == path) {
            let object = &event["object"];
            objects.retain(|one| name(one) != name(object));
            if event["type"] != "DELETED" {
                objects.push(object);
            }
        }
        objects
    }

    /// Every change after the given one, and all future ones.
    fn watch(&mut self, path: &str, since: usize) -> Body {
        let (sender, lines) = unbounded();
        let past = self.log.iter().skip(since);
        for (_, event) in past.filter(|(of, _)| *of == path) {
            let _ = sender.unbounded_send(Ok(format!("{event}\n")));
        }
        self.watches.push((path.into(), sender));
        Body::from_stream(lines)
    }

    /// A list of the objects, or one of them.
    fn get(&self, path: &str) -> Option<Value> {
        if self.log.iter().any(|(of, _)| *of == path) {
            let metadata = json!({"resourceVersion": self.log.len().to_string()});
            let items = self.objects(path);
            return Some(json!({"kind": "List", "metadata": metadata, "items": items}));
        }
        let (folder, wanted) = path.rsplit_once('/')?;
        let mut objects = self.objects(folder).into_iter();
        objects.find(|one| name(one) == wanted).cloned()
    }

    /// The response of an app: of cpu-load-gen, of one that fails after its first response, or of
    /// another one.
    fn ask_app(&self, path: &str) -> Option<Response> {
        let is_get = |one: &&String| one.starts_with("GET /flaky");
        Some(match path {
            "/app" => "hello".into_response(),
            "/cpu-load-gen" => [("load", "cpu_time=20ms"), ("max-cpu-time", "10s")].into_response(),
            "/flaky" if self.requests.iter().filter(is_get).count() < 2 => "hello".into_response(),
            "/flaky" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            _ => return None,
        })
    }
}

async fn respond(
    State(fake): State<Arc<Fake>>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    uri: Uri,
) -> Response {
    let path = uri.path();
    let mut server = fake.lock();
    server.requests.push(format!("{method} {uri}"));
    if let Some(response) = server.ask_app(path) {
        return response;
    }
    if query.contains_key("watch") {
        let version = query.get("resourceVersion");
        let since = version.and_then(|version| version.parse().ok());
        return server.watch(path, since.unwrap_or(0)).into_response();
    }
    if server.forbidden == Some(path) {
        return failure(StatusCode::FORBIDDEN, path, "Forbidden");
    }
    match server.get(path) {
        Some(object) => object.to_string().into_response(),
        // As if metrics-server is not installed, so that its paths are unknown.
        None if path == METRICS => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
        None => failure(StatusCode::NOT_FOUND, path, "NotFound"),
    }
}

fn failure(code: StatusCode, path: &str, reason: &str) -> Response {
    let status = json!({
        "status": "Failure",
        "message": format!("{path}: {reason}"),
        "reason": reason,
        "code": code.as_u16(),
    });
    (code, status.to_string()).into_response()
}

fn name(object: &Value) -> &str {
    let name = object["metadata"]["name"].as_str();
    name.expect("every object has a name")
}

/// The folder for the files of a test.
pub fn folder(test: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test)
}

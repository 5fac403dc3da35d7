//! A page that shows a recording while it runs: the chart, the decisions and the verdict so far.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::{
        Html, IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::stream::{self, Stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    chart::{self, Theme},
    decisions::decisions,
    format::duration,
    progress::cpu,
    record::{ObservationKind, Record},
    report::{DECISION, cells},
};

const PAGE: &str = include_str!("page.html");
/// The shortest time between two updates of the page.
const REDRAW: Duration = Duration::from_secs(1);
/// How long browsers may take to receive the last update.
const GRACE: Duration = Duration::from_secs(2);

/// The recording's end of the page. Everything is drawn in a thread of its own, so that the probes are not delayed.
pub struct Page {
    updates: Sender<Update>,
    snapshots: Snapshots,
    stop: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

/// The newest one; each open page has a receiver.
type Snapshots = Arc<watch::Sender<Option<Arc<Snapshot>>>>;

enum Update {
    Observation(f64, ObservationKind),
    /// The time since the recording began, in seconds, and what it waits for.
    Status(f64, String),
    End(String),
}

/// Everything that the page shows at one time, so that it can be reloaded.
#[derive(Serialize)]
struct Snapshot {
    title: String,
    status: String,
    numbers: Vec<(&'static str, String)>,
    /// The header, and a row for each.
    decisions: Vec<[String; 6]>,
    ended: bool,
    #[serde(skip)]
    light: String,
    #[serde(skip)]
    dark: String,
}

impl Page {
    /// Serves the page at an address until the recording ends; port 0 is any free one.
    pub async fn serve(
        address: SocketAddr,
        deployment: &str,
        began: Timestamp,
    ) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let snapshots = Snapshots::default();
        let (updates, received) = channel();
        let view = View {
            title: format!("Scaling of {deployment}"),
            deployment: deployment.into(),
            record: Record::new(began),
            now: 0.0,
            status: String::new(),
            ended: false,
        };
        let published = snapshots.clone();
        thread::spawn(move || view.run(&received, &published));
        let router = Router::new()
            .route("/", get(page))
            .route("/events", get(events))
            .with_state(snapshots.clone())
            .layer(middleware::from_fn(only_get));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let server = axum::serve(listener, router).with_graceful_shutdown(stopped);
        let page = Self {
            updates,
            snapshots,
            stop,
            server: tokio::spawn(server.into_future()),
        };
        Ok((page, address))
    }

    /// `at` in seconds since the recording began.
    pub fn observe(&self, at: f64, kind: &ObservationKind) {
        self.update(Update::Observation(at, kind.clone()));
    }

    pub fn show(&self, now: f64, status: &str) {
        self.update(Update::Status(now, status.into()));
    }

    fn update(&self, update: Update) {
        // The thread ends with the page.
        let _ = self.updates.send(update);
    }

    /// Shows the verdict, and returns once the open pages have received it.
    pub async fn end(self, verdict: &str) {
        self.update(Update::End(verdict.into()));
        let has_ended =
            |snapshot: &Option<Arc<Snapshot>>| snapshot.as_ref().is_some_and(|one| one.ended);
        let received = async {
            let _ = self.snapshots.subscribe().wait_for(has_ended).await;
            self.stop.cancel();
            self.server.await
        };
        let _ = timeout(REDRAW + GRACE, received).await;
    }
}

/// The state of the page.
struct View {
    title: String,
    deployment: String,
    record: Record,
    now: f64,
    status: String,
    ended: bool,
}

impl View {
    fn run(mut self, updates: &Receiver<Update>, snapshots: &Snapshots) {
        let mut is_new = true;
        while !self.ended {
            match updates.recv_timeout(REDRAW) {
                Ok(update) => {
                    self.apply(update);
                    is_new = true;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if is_new && (self.ended || snapshots.receiver_count() > 0) {
                thread::sleep(REDRAW);
                updates.try_iter().for_each(|update| self.apply(update));
                snapshots.send_replace(Some(Arc::new(self.snapshot())));
                is_new = false;
            }
        }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Observation(at, kind) => self.record.add(at, kind),
            Update::Status(now, status) => (self.now, self.status) = (now, status),
            Update::End(verdict) => (self.status, self.ended) = (verdict, true),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let (decisions, _) = decisions(&self.record);
        let draw = |theme| {
            chart::draw(&self.deployment, &self.record, &decisions, theme).unwrap_or_else(|error| {
                format!("<svg xmlns='http://www.w3.org/2000/svg'><title>{error}</title></svg>")
            })
        };
        Snapshot {
            light: draw(Theme::Light),
            dark: draw(Theme::Dark),
            title: self.title.clone(),
            status: self.status.clone(),
            numbers: self.numbers(),
            decisions: [DECISION.map(Into::into)]
                .into_iter()
                .chain(decisions.iter().map(cells))
                .collect(),
            ended: self.ended,
        }
    }

    fn numbers(&self) -> Vec<(&'static str, String)> {
        let state = &self.record.state;
        let unknown = || "unknown".to_string();
        let deployment = state.deployment.as_ref();
        let ready =
            deployment.map_or_else(unknown, |one| format!("{} of {}", one.ready, one.existing));
        let desired = deployment.map_or_else(unknown, |one| one.desired.to_string());
        let latency = state
            .answer
            .as_ref()
            .map_or_else(unknown, |answer| match answer.failed {
                None => duration(answer.took.as_secs_f64()),
                Some(_) => "failed".into(),
            });
        vec![
            (
                "seconds",
                format!("{:.0}", self.now - self.record.time_origin()),
            ),
            ("replicas ready", ready),
            ("desired", desired),
            ("CPU of target", cpu(state).replace("CPU ", "")),
            ("latency", latency),
        ]
    }
}

async fn only_get(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")]).into_response()
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
        (header::CACHE_CONTROL, "no-store".into()),
    ];
    (headers, Html(PAGE))
}

/// Allows the style and the script of the page alone, by their hashes, and requests to the recorder.
fn policy() -> String {
    let hash = |tag: &str| {
        let (_, rest) = PAGE
            .split_once(&format!("<{tag}>"))
            .expect("the page has it");
        let (content, _) = rest.split_once(&format!("</{tag}>")).expect("it is closed");
        BASE64_STANDARD.encode(Sha256::digest(content))
    };
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    )
}

#[derive(Deserialize)]
struct Look {
    theme: Theme,
}

/// The newest snapshot, and every further one until the end.
async fn events(
    State(snapshots): State<Snapshots>,
    Query(look): Query<Look>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut receiver = snapshots.subscribe();
    receiver.mark_changed();
    let all = stream::unfold(Some(receiver), move |receiver| async move {
        let mut receiver = receiver?;
        let snapshot = loop {
            receiver.changed().await.ok()?;
            if let Some(snapshot) = receiver.borrow_and_update().clone() {
                break snapshot;
            }
        };
        let event = snapshot.event(look.theme);
        Some((Ok(event), (!snapshot.ended).then_some(receiver)))
    });
    Sse::new(all).keep_alive(KeepAlive::default())
}

impl Snapshot {
    fn event(&self, theme: Theme) -> Event {
        #[derive(Serialize)]
        struct Message<'a> {
            #[serde(flatten)]
            snapshot: &'a Snapshot,
            chart: &'a str,
        }
        let chart = match theme {
            Theme::Light => &self.light,
            Theme::Dark => &self.dark,
        };
        let message = Message {
            snapshot: self,
            chart,
        };
        Event::default().data(serde_json::to_string(&message).expect("it is JSON"))
    }
}

//! A page that shows a recording while it runs: the chart, the decisions and the verdict so far.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, LazyLock,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{HeaderValue, Method, StatusCode, header, uri::Authority},
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
    decisions::{Decision, decisions},
    format::latency,
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

/// The newest snapshot for each theme; each open page has a receiver.
type Snapshots = Arc<[watch::Sender<Option<Snapshot>>; 2]>;

enum Update {
    Observation(f64, ObservationKind),
    /// The time since the recording began, in seconds, and what it waits for.
    Status(f64, String),
    End(String),
}

/// Everything that the page shows at one time, so that it can be reloaded.
#[derive(Clone, Serialize)]
struct Snapshot {
    title: String,
    status: String,
    numbers: Vec<(&'static str, String)>,
    ended: bool,
    #[serde(skip)]
    picture: Arc<Picture>,
}

/// The part of the page that changes with an observation only.
#[derive(Serialize)]
struct Picture {
    /// The header, and a row for each.
    decisions: Vec<[String; 6]>,
    chart: String,
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
        let view = View::new(deployment, began);
        let published = snapshots.clone();
        thread::spawn(move || view.run(&received, &published));
        let router = Router::new()
            .route("/", get(page))
            .route("/events", get(events))
            .with_state(snapshots.clone())
            .layer(middleware::from_fn(protect));
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
            |snapshot: &Option<Snapshot>| snapshot.as_ref().is_some_and(|one| one.ended);
        let received = async {
            for theme in self.snapshots.iter() {
                let _ = theme.subscribe().wait_for(has_ended).await;
            }
            self.stop.cancel();
            self.server.await
        };
        let _ = timeout(REDRAW + GRACE, received).await;
    }
}

/// The state of the page.
struct View {
    deployment: String,
    record: Record,
    now: f64,
    status: String,
    ended: bool,
    /// Made when a page is open, and kept until an observation changes them.
    decisions: Option<Vec<Decision>>,
    pictures: [Option<Arc<Picture>>; 2],
}

impl View {
    fn new(deployment: &str, began: Timestamp) -> Self {
        Self {
            deployment: deployment.into(),
            record: Record::new(began),
            now: 0.0,
            status: String::new(),
            ended: false,
            decisions: None,
            pictures: [None, None],
        }
    }

    fn run(mut self, updates: &Receiver<Update>, snapshots: &Snapshots) {
        while !self.ended {
            thread::sleep(REDRAW);
            loop {
                match updates.try_recv() {
                    Ok(update) => self.apply(update),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            for theme in [Theme::Light, Theme::Dark] {
                let snapshots = &snapshots[theme as usize];
                if self.ended || snapshots.receiver_count() > 0 {
                    snapshots.send_replace(Some(self.snapshot(theme)));
                }
            }
        }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Observation(at, kind) => {
                // Events are not drawn, and a response decides nothing.
                if !matches!(kind, ObservationKind::Event(_)) {
                    self.pictures = [None, None];
                }
                if !matches!(
                    kind,
                    ObservationKind::Event(_) | ObservationKind::Response(_)
                ) {
                    self.decisions = None;
                }
                self.record.add(at, kind);
            }
            Update::Status(now, status) => (self.now, self.status) = (now, status),
            Update::End(verdict) => (self.status, self.ended) = (verdict, true),
        }
    }

    fn snapshot(&mut self, theme: Theme) -> Snapshot {
        Snapshot {
            picture: self.picture(theme),
            title: format!("Scaling of {}", self.deployment),
            status: self.status.clone(),
            numbers: self.numbers(),
            ended: self.ended,
        }
    }

    fn picture(&mut self, theme: Theme) -> Arc<Picture> {
        let (deployment, record) = (&self.deployment, &self.record);
        let decisions = self.decisions.get_or_insert_with(|| decisions(record).0);
        let picture = self.pictures[theme as usize].get_or_insert_with(|| {
            let chart = chart::draw(deployment, record, decisions, theme).unwrap_or_else(|error| {
                format!("<svg xmlns='http://www.w3.org/2000/svg'><title>{error}</title></svg>")
            });
            let rows = decisions.iter().map(cells);
            let decisions = [DECISION.map(Into::into)].into_iter().chain(rows).collect();
            Arc::new(Picture { decisions, chart })
        });
        picture.clone()
    }

    fn numbers(&self) -> Vec<(&'static str, String)> {
        let state = &self.record.state;
        let unknown = || "unknown".to_string();
        let deployment = state.deployment.as_ref();
        let ready =
            deployment.map_or_else(unknown, |one| format!("{} of {}", one.ready, one.existing));
        let desired = deployment.map_or_else(unknown, |one| one.desired.to_string());
        let latency =
            state
                .response
                .as_ref()
                .map_or_else(unknown, |response| match response.failed {
                    None => latency(response.took.as_secs_f64()),
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

/// Refuses other methods than GET, and names that a foreign page could have pointed at this machine (DNS rebinding).
async fn protect(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let mut response = if !host.is_some_and(is_address) {
        let why = "Open this page by an IP address, or as localhost";
        (StatusCode::FORBIDDEN, why).into_response()
    } else if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")]).into_response()
    } else {
        next.run(request).await
    };
    static POLICY: LazyLock<HeaderValue> =
        LazyLock::new(|| policy().try_into().expect("it is ASCII"));
    response.headers_mut().extend([
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    response
}

/// Whether a `Host` is an IP address or localhost, with or without a port.
fn is_address(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.is_ok() || host.eq_ignore_ascii_case("localhost")
}

async fn page() -> Html<&'static str> {
    Html(PAGE)
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
    #[serde(default)]
    theme: Theme,
}

/// The newest snapshot, and every further one until the end; with its picture only if that is a new one.
async fn events(
    State(snapshots): State<Snapshots>,
    Query(look): Query<Look>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut receiver = snapshots[look.theme as usize].subscribe();
    receiver.mark_changed();
    let all = stream::unfold(Some((receiver, None)), move |state| async move {
        let (mut receiver, shown) = state?;
        let snapshot = loop {
            receiver.changed().await.ok()?;
            if let Some(snapshot) = receiver.borrow_and_update().clone() {
                break snapshot;
            }
        };
        let event = snapshot.event(shown.as_ref());
        let (ended, picture) = (snapshot.ended, snapshot.picture);
        Some((Ok(event), (!ended).then_some((receiver, Some(picture)))))
    });
    Sse::new(all).keep_alive(KeepAlive::default())
}

impl Snapshot {
    fn event(&self, shown: Option<&Arc<Picture>>) -> Event {
        #[derive(Serialize)]
        struct Message<'a> {
            #[serde(flatten)]
            snapshot: &'a Snapshot,
            #[serde(flatten)]
            picture: Option<&'a Picture>,
        }
        let is_shown = shown.is_some_and(|shown| Arc::ptr_eq(shown, &self.picture));
        let message = Message {
            snapshot: self,
            picture: (!is_shown).then_some(&self.picture),
        };
        Event::default().data(serde_json::to_string(&message).expect("it is JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Autoscaler, Response};

    #[test]
    fn a_picture_is_drawn_only_after_an_observation_and_for_an_open_page() {
        let mut view = View::new("app", Timestamp::UNIX_EPOCH);
        let autoscaler = |from, to| ObservationKind::Autoscaler(Autoscaler::decided(from, to, 500));
        view.apply(Update::Observation(0.0, autoscaler(1, 1)));
        view.apply(Update::Observation(15.0, autoscaler(1, 4)));
        let first = view.picture(Theme::Light);
        assert_eq!(first.decisions.len(), 2);
        assert!(view.pictures[Theme::Dark as usize].is_none());

        view.apply(Update::Status(16.0, "until Ctrl-C".into()));
        assert!(Arc::ptr_eq(&first, &view.picture(Theme::Light)));

        let response = Response {
            took: Duration::from_millis(5),
            failed: None,
        };
        view.apply(Update::Observation(
            17.0,
            ObservationKind::Response(response),
        ));
        assert!(view.decisions.is_some(), "a response decides nothing");
        let second = view.picture(Theme::Light);
        assert_ne!(first.chart, second.chart);

        view.apply(Update::Observation(30.0, autoscaler(4, 8)));
        assert_eq!(view.picture(Theme::Dark).decisions.len(), 3);
    }

    #[test]
    fn only_addresses_and_localhost_are_hosts() {
        let is_host = |host: &str| is_address(&HeaderValue::from_str(host).expect("ASCII"));
        for host in [
            "127.0.0.1",
            "10.0.0.7:8082",
            "[::1]:8082",
            "LOCALHOST:8082",
            "localhost",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com:8082",
            "127.0.0.1.example.com",
            "::1",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }
}

//! A page that shows a recording while it runs: the numbers, the chart and the report so far.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anyhow::Error;
use axum::{
    Router,
    extract::{self, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use crate::{
    chart,
    observations::Header,
    progress::numbers,
    record::{ObservationKind, Record},
    report::Report,
};

/// How long an open page may take to ask again, which it does every second.
const GRACE: Duration = Duration::from_secs(4);

/// Everything comes from the recorder itself, and no other page may show or load any of it.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; \
         style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The recording's end of the page.
pub struct Page {
    state: Arc<State>,
    server: JoinHandle<io::Result<()>>,
}

/// What the recording and the server share.
struct State {
    header: Header,
    recorded: Mutex<Recorded>,
    explained: Mutex<Explained>,
}

type Shared = extract::State<Arc<State>>;

/// The recording so far.
struct Recorded {
    /// Copied only if an observation is made while it is being explained.
    record: Arc<Record>,
    /// What the page shows above the chart.
    status: Value,
    /// When a page last asked.
    asked: Option<Instant>,
}

/// What was last asked for, which all pages are shown.
#[derive(Default)]
struct Explained {
    /// The number of observations that it explains.
    count: Option<usize>,
    report: String,
    chart: String,
}

impl Page {
    /// Serves the page at an address until the recording ends; port 0 is any free one.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn serve(address: SocketAddr, header: Header, record: Record) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let deployment = &header.deployment;
        let recorded = Recorded {
            record: Arc::new(record),
            status: json!({"deployment": deployment, "numbers": "", "status": "", "ended": false}),
            asked: None,
        };
        let state = Arc::new(State {
            header,
            recorded: Mutex::new(recorded),
            explained: Mutex::default(),
        });
        let mut router = Router::new();
        for (path, content_type, content) in [
            ("/", "text/html; charset=utf-8", include_str!("page.html")),
            ("/page.css", "text/css", include_str!("page.css")),
            ("/page.js", "text/javascript", include_str!("page.js")),
        ] {
            router = router.route(path, get(async move || of_type(content_type, content)));
        }
        let router = router
            .route("/status", get(status))
            .route(
                "/report.md",
                get(|state| explained(state, "text/markdown; charset=utf-8", |it| &it.report)),
            )
            .route(
                "/autoscale.svg",
                get(|state| explained(state, "image/svg+xml", |it| &it.chart)),
            )
            .with_state(state.clone())
            .layer(middleware::from_fn(protect));
        let server = tokio::spawn(axum::serve(listener, router).into_future());
        eprintln!("Serving http://{address}/ until the recording ends");
        Ok(Self { state, server })
    }

    /// `at` in seconds since the recording began.
    pub fn observe(&self, at: f64, kind: &ObservationKind) {
        Arc::make_mut(&mut lock(&self.state.recorded).record).add(at, kind.clone());
    }

    pub fn show(&self, at: f64, status: String) {
        let mut recorded = lock(&self.state.recorded);
        recorded.status["numbers"] = numbers(&recorded.record, at).into();
        recorded.status["status"] = status.into();
    }

    /// Shows the verdict until an open page has had the time to ask for it.
    pub async fn end(self, verdict: &str) {
        let asked = {
            let mut recorded = lock(&self.state.recorded);
            recorded.status["status"] = verdict.into();
            recorded.status["ended"] = true.into();
            recorded.asked
        };
        if asked.is_some_and(|asked| asked.elapsed() < GRACE) {
            sleep(GRACE).await;
        }
        self.server.abort();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nothing panics while it is locked")
}

async fn status(state: Shared) -> impl IntoResponse {
    let mut recorded = lock(&state.recorded);
    recorded.asked = Some(Instant::now());
    of_type("application/json", recorded.status.to_string())
}

/// A part of the explanation, which is made once for each number of observations, in a thread of
/// its own: one that waits would delay the probes.
async fn explained(
    extract::State(state): Shared,
    content_type: &'static str,
    part: fn(&Explained) -> &String,
) -> impl IntoResponse {
    let explained = spawn_blocking(move || {
        let mut explained = lock(&state.explained);
        let record = lock(&state.recorded).record.clone();
        let count = Some(record.observations.len());
        if explained.count != count {
            let report = Report::new(&state.header, &record);
            *explained = Explained {
                count,
                report: report.markdown(),
                chart: chart::draw(&report)?,
            };
        }
        Ok::<_, Error>(part(&explained).clone())
    });
    match explained.await.map_err(Into::into).flatten() {
        Ok(part) => of_type(content_type, part).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn of_type(content_type: &'static str, content: impl IntoResponse) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, content_type)], content)
}

/// Rejects other methods than GET, and names that a foreign page could have pointed at this machine
/// (DNS rebinding).
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
    let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
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

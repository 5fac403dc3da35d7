//! A page that shows a recording while it runs: the numbers, the chart and the report so far.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anyhow::Error;
use axum::{
    Router,
    extract::{self, Request},
    http::{HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use crate::{
    chart,
    observations::{self, Header},
    report::Report,
};

/// How long an open page may take to ask again, which it does every second.
const GRACE: Duration = Duration::from_secs(4);

/// Everything comes from the recorder itself, and no other page may show or load any of it.
const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; \
         style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
];

/// The recording's end of the page.
pub struct Page {
    state: Arc<State>,
    server: JoinHandle<io::Result<()>>,
}

/// What the recording and the server share.
struct State {
    header: Header,
    /// The observations so far.
    file: PathBuf,
    shown: Mutex<Shown>,
    explained: Mutex<Explained>,
}

type Shared = extract::State<Arc<State>>;

/// What the page shows above the chart.
#[derive(Default, Serialize)]
struct Shown {
    deployment: String,
    numbers: String,
    status: String,
    ended: bool,
    /// When a page last asked.
    #[serde(skip)]
    asked: Option<Instant>,
}

/// What was last asked for, which all pages are shown.
#[derive(Default)]
struct Explained {
    /// The length of the file that it explains.
    length: Option<u64>,
    report: String,
    chart: String,
}

impl Page {
    /// Serves the page at an address until the recording ends; port 0 is any free one. `file` has
    /// the observations so far.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn serve(address: SocketAddr, header: Header, file: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shown = Shown {
            deployment: header.deployment.clone(),
            ..Shown::default()
        };
        let state = Arc::new(State {
            header,
            file,
            shown: Mutex::new(shown),
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

    pub fn show(&self, numbers: String, status: String) {
        let mut shown = lock(&self.state.shown);
        shown.numbers = numbers;
        shown.status = status;
    }

    /// Shows the verdict until an open page has had the time to ask for it.
    pub async fn end(self, verdict: &str) {
        let asked = {
            let mut shown = lock(&self.state.shown);
            shown.status = verdict.into();
            shown.ended = true;
            shown.asked
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
    let mut shown = lock(&state.shown);
    shown.asked = Some(Instant::now());
    let json = serde_json::to_string(&*shown).expect("it is JSON");
    of_type("application/json", json)
}

/// A part of the explanation, which is made once while nothing new is observed, in a thread of its
/// own: one that waits would delay the probes.
async fn explained(
    extract::State(state): Shared,
    content_type: &'static str,
    part: fn(&Explained) -> &String,
) -> impl IntoResponse {
    let explained = spawn_blocking(move || {
        let mut explained = lock(&state.explained);
        let length = Some(fs::metadata(&state.file)?.len());
        if explained.length != length {
            let (_, record) = observations::read(&state.file, |flags| flags)?;
            let report = Report::new(&state.header, &record);
            *explained = Explained {
                length,
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
async fn protect(request: Request, next: Next) -> impl IntoResponse {
    let host = request.headers().get(header::HOST);
    let response = if !host.is_some_and(is_address) {
        let why = "Open this page by an IP address, or as localhost";
        (StatusCode::FORBIDDEN, why).into_response()
    } else if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")]).into_response()
    } else {
        next.run(request).await
    };
    (HEADERS, response)
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

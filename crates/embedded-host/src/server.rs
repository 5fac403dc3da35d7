//! The HTTP server: connections, Spin's own paths, and the guest for all others.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::HOST,
    http::uri::Authority,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, time::sleep};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::guest::{Guest, report};

/// The paths that belong to Spin itself.
const WELL_KNOWN: &str = "/.well-known/spin/";

/// A guest and its route.
pub struct App {
    pub guest: Guest,
    /// What the paths of the route start with, without a slash at its end; empty for all paths.
    pub prefix: String,
}

/// Serves every connection of `listener`, for ever.
pub async fn serve(listener: TcpListener, app: App) -> ! {
    let app = Arc::new(app);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                let service = service_fn(move |request| respond(request, app.clone()));
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    // It fails if the client disconnects or does not speak HTTP: the host can do
                    // nothing about that.
                    let _ = connection.await;
                });
            }
            Err(error) => {
                // Mostly too many open files: some will close.
                eprintln!("Cannot accept a connection: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl App {
    fn is_at(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&self.prefix);
        self.prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

async fn respond(
    request: Request<Incoming>,
    app: Arc<App>,
) -> Result<Response<HyperOutgoingBody>, &'static str> {
    if let Some(name) = request.uri().path().strip_prefix(WELL_KNOWN) {
        return Ok(match name {
            "health" => plain(StatusCode::OK, "OK"),
            _ => plain(StatusCode::NOT_FOUND, ""),
        });
    }
    if !has_one_authority(&request) {
        return Err("the connection is closed without a response, as by Spin");
    }
    if !app.is_at(request.uri().path()) {
        return Ok(plain(StatusCode::NOT_FOUND, ""));
    }
    // As Spin, which reads a target as a URL.
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| !target.as_str().is_ascii()) {
        return Ok(plain(StatusCode::BAD_REQUEST, ""));
    }
    Ok(app.guest.respond(request).await.unwrap_or_else(|error| {
        report(&error);
        plain(StatusCode::INTERNAL_SERVER_ERROR, "")
    }))
}

/// Whether it is clear which host is asked: by the `Host` header, by the target, or by both alike.
fn has_one_authority(request: &Request<Incoming>) -> bool {
    let header = request.headers().get(HOST);
    let header = header.map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    match (header, request.uri().authority()) {
        (None, None) | (Some(None), _) => false,
        (Some(Some(header)), Some(target)) => header == *target,
        (None, Some(_)) | (Some(Some(_)), None) => true,
    }
}

fn plain(status: StatusCode, body: &'static str) -> Response<HyperOutgoingBody> {
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

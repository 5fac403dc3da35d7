//! The HTTP server: connections, Spin's own paths, and the guest for all others.

use std::{
    collections::BTreeMap, convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::{
    Error,
    guest::{Guest, report},
    manifest::Application,
};

/// What Spin keeps for itself.
const WELL_KNOWN: &str = "/.well-known/spin/";

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The path of the `spin.toml`. The source of its component is relative to it.
    pub manifest: PathBuf,
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Values by the name of the variable, in place of the manifest's defaults. Names that the manifest does not
    /// declare are ignored.
    pub variables: BTreeMap<String, String>,
}

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    accepting: JoinHandle<()>,
    stop: DropGuard,
}

impl Server {
    /// Compiles the component and starts to serve it on the current Tokio runtime, which must have I/O and time.
    ///
    /// # Errors
    /// Every [`Error`]; nothing is left running.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let application = Application::read(&options.manifest, &options.variables)?;
        let guest = Guest::load(&application.source, application.variables)?;
        let error = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => Error::InUse {
                addr: options.listen,
            },
            _ => Error::Listen {
                addr: options.listen,
                source,
            },
        };
        let listener = TcpListener::bind(options.listen).await.map_err(error)?;
        let addr = listener.local_addr().map_err(error)?;
        let stop = CancellationToken::new();
        let accepting = tokio::spawn(accept(listener, Arc::new(guest), stop.clone()));
        Ok(Self {
            addr,
            accepting,
            stop: stop.drop_guard(),
        })
    }

    /// The address that is served, with its real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops at once: the port is free, connections are closed, and each guest ends at its next wait on the host.
    /// A guest that never waits runs to its end.
    pub async fn stop(self) {
        drop(self.stop);
        // It fails only if it panicked, and then it has stopped as well.
        let _ = self.accepting.await;
    }
}

async fn accept(listener: TcpListener, guest: Arc<Guest>, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let connection = serve(stream, guest.clone(), stop.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
            }
            Err(error) => {
                // Mostly too many open files: some will close.
                eprintln!("Cannot accept a connection: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, guest: Arc<Guest>, stop: CancellationToken) {
    let service = service_fn(move |request| answer(request, guest.clone(), stop.clone()));
    // It fails when the client leaves or does not speak HTTP: nothing that the host could do about.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    guest: Arc<Guest>,
    stop: CancellationToken,
) -> Result<Response<HyperOutgoingBody>, Infallible> {
    if let Some(name) = request.uri().path().strip_prefix(WELL_KNOWN) {
        return Ok(match name {
            "health" => plain(StatusCode::OK, "OK"),
            _ => plain(StatusCode::NOT_FOUND, ""),
        });
    }
    Ok(guest.answer(request, stop).await.unwrap_or_else(|error| {
        report(&error);
        plain(StatusCode::INTERNAL_SERVER_ERROR, "")
    }))
}

fn plain(status: StatusCode, body: &'static str) -> Response<HyperOutgoingBody> {
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

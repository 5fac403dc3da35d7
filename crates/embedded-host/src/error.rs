//! The reasons why the host cannot serve, in words for the person who starts it.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why the host cannot serve. Each is one line of text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest cannot be read, is not a manifest, or describes what this host cannot serve.
    #[error("{}: {reason}", path.display())]
    Manifest { path: PathBuf, reason: String },
    /// The file that the manifest names as the component's source does not exist.
    #[error("{} does not exist: run `make build`", path.display())]
    WasmMissing { path: PathBuf },
    /// The component's source cannot be read, is not WebAssembly, or needs what this host does not
    /// provide.
    #[error("{}: not a component that this host can serve: {reason}", path.display())]
    Wasm { path: PathBuf, reason: String },
    /// Wasmtime does not run on this machine.
    #[error("Wasmtime cannot start: {reason}")]
    Engine { reason: String },
    /// The address is in use, or cannot be listened on for another reason.
    #[error(
        "cannot listen on {addr}: {source}; choose another address with --listen, or with LISTEN= for `make run`"
    )]
    Listen { addr: SocketAddr, source: io::Error },
}

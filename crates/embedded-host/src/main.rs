//! The embedded host: serves the Spin application of a `spin.toml` over HTTP on Wasmtime, where
//! Spin is not installed.
//!
//! It follows Spin 4: the engine settings that change how the guest's code runs, the number of
//! instances, and a new instance for every request. It serves one component with one HTTP trigger
//! and reads no runtime config.

mod guest;
mod manifest;
mod server;

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use guest::{Guest, one_line};
use manifest::Application;
use server::App;
use tokio::net::TcpListener;
use wasmtime::error::Context;

/// Serve the component of a spin.toml on Wasmtime, without Spin
///
/// SPIN_VARIABLE_<NAME> in the environment sets the variable <name>.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The application's manifest
    #[arg(long, value_name = "FILE", default_value = "spin.toml")]
    manifest: PathBuf,
    /// The address to serve on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000", value_parser = address)]
    listen: SocketAddr,
}

/// The address of `HOST:PORT`; of the addresses of a name 127.0.0.1, as Spin prefers it, or else
/// the first.
fn address(text: &str) -> Result<SocketAddr, String> {
    let addresses = text
        .to_socket_addrs()
        .map_err(|error| format!("{error}; it must be HOST:PORT, such as 127.0.0.1:3000"))?;
    let preferred = addresses.min_by_key(|address| address.ip() != Ipv4Addr::LOCALHOST);
    preferred.ok_or_else(|| "the name has no address".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run(Args::parse()).await;
    eprintln!("error: {}", one_line(format!("{error:#}")));
    ExitCode::FAILURE
}

/// Serves until a signal ends the process.
async fn run(args: Args) -> wasmtime::Result<Infallible> {
    let application = Application::read(&args.manifest)?;
    let app = App {
        guest: Guest::load(&application.source, application.variables)?,
        prefix: application.prefix,
    };
    let listen = args.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen} (set --listen, or LISTEN= for `make run`)")
    })?;
    println!("Serving http://{}", listener.local_addr()?);
    server::serve(listener, app).await
}

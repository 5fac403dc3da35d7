//! The command line of the embedded host.

use std::{env, error::Error, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use embedded_host::{Options, Server, variables_from_env};
use tokio::{
    runtime::{Builder, Runtime},
    select,
    signal::unix::{SignalKind, signal},
};

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
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let variables = variables_from_env(env::vars_os())?;
    let guests = Runtime::new()?;
    // Guests can occupy every thread of their runtime; signals are awaited on one of their own.
    let signals = Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = signals.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };

    let options = Options {
        manifest: args.manifest,
        listen: args.listen,
        variables,
    };
    let server = guests.block_on(Server::start(options))?;
    println!("Serving http://{}", server.addr());
    signals.block_on(async {
        select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    guests.shutdown_background();
    Ok(())
}

//! For scripts: `with-server COMMAND [ARGUMENT]…` runs the command beside a server of the
//! component, whose URL is in the environment variable `URL`, and ends with the status of the
//! command.

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use testkit::{Launch, Runner, manifest};

fn main() -> Result<ExitCode> {
    let mut args = env::args_os().skip(1);
    let program = args
        .next()
        .context("usage: with-server COMMAND [ARGUMENT]…")?;
    let server = Launch::new(&Runner::from_env()?, manifest())?.start()?;
    let status = Command::new(program)
        .args(args)
        .env("URL", server.url(""))
        .status()?;
    Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
}

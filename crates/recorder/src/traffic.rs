//! The traffic: a command that runs as a child process, and its result.

use std::{ffi::OsString, fmt, path::Path, pin::pin, process::Stdio, time::Duration};

use bombardier::{Failure, Report};
use rustix::process::{Pid, Signal, kill_process};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::format::{duration, latency};

/// How long the command may take to end after SIGINT.
const GRACE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TrafficResult {
    /// How the command failed, unless it succeeded.
    pub failed: Option<String>,
    /// The result of bombardier, if the standard output is one (`bombardier -o json -p r`).
    pub bombardier: Option<Report>,
    /// All other standard output of the command.
    pub output: String,
}

/// A load and its result; times in seconds since the first load started.
#[derive(Default, JsonSchema, Serialize)]
pub struct Traffic<'a> {
    /// Such as `40 connections`.
    pub label: &'a str,
    pub start_seconds: f64,
    pub end_seconds: Option<f64>,
    /// Why it did not succeed.
    pub failed: Option<&'a str>,
    /// The standard output of its command, unless it is bombardier's JSON.
    pub output: Option<&'a str>,
    pub bombardier: Option<Bombardier<'a>>,
}

/// What bombardier counted.
#[derive(JsonSchema, Serialize)]
pub struct Bombardier<'a> {
    duration_seconds: f64,
    requests: u64,
    requests_2xx: u64,
    mean_seconds: f64,
    p50_seconds: Option<f64>,
    p95_seconds: Option<f64>,
    max_seconds: f64,
    errors: &'a [Failure],
}

impl<'a> Traffic<'a> {
    /// Adds when it ended, and how.
    pub fn end(&mut self, seconds: f64, result: &'a TrafficResult) {
        self.end_seconds = Some(seconds);
        self.failed = result.failed.as_deref();
        self.output = Some(&*result.output).filter(|output| !output.is_empty());
        self.bombardier = result.bombardier.as_ref().map(Into::into);
    }
}

impl<'a> From<&'a Report> for Bombardier<'a> {
    fn from(counted: &'a Report) -> Self {
        let seconds = |micros: f64| micros / 1e6;
        let percentiles = counted.latency.percentiles.as_ref();
        Self {
            duration_seconds: counted.seconds,
            requests: counted.requests(),
            requests_2xx: counted.req2xx,
            mean_seconds: seconds(counted.latency.mean),
            p50_seconds: percentiles.map(|one| seconds(one.p50)),
            p95_seconds: percentiles.map(|one| seconds(one.p95)),
            max_seconds: seconds(counted.latency.max),
            errors: &counted.errors,
        }
    }
}

impl fmt::Display for Bombardier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} responses in {:.0} s, {} of them 2xx; mean {}",
            self.requests,
            self.duration_seconds,
            self.requests_2xx,
            latency(self.mean_seconds),
        )?;
        if let (Some(p50), Some(p95)) = (self.p50_seconds, self.p95_seconds) {
            write!(f, ", p50 {}, p95 {}", latency(p50), latency(p95))?;
        }
        write!(f, ", max {}", latency(self.max_seconds))?;
        for failure in self.errors {
            write!(f, "\n- {} × {}", failure.count, failure.description)?;
        }
        Ok(())
    }
}

/// A label for the traffic of a command: bombardier's number of connections, or else the name of
/// the program.
pub fn label(command: &[OsString]) -> String {
    let mut words = command.iter().map(|word| word.to_string_lossy());
    let program = words.next().unwrap_or_default();
    let name = Path::new(&*program).file_name().unwrap_or_default();
    if name != "bombardier" {
        return name.to_string_lossy().into();
    }
    let arguments: String = words.map(|word| format!(" {word}")).collect();
    let arguments = arguments.replace("--connections", "-c");
    let after = arguments.split(" -c").nth(1);
    let connections = after.and_then(|after| after.split([' ', '=']).find(|one| !one.is_empty()));
    // bombardier's default.
    format!("{} connections", connections.unwrap_or("125"))
}

/// Runs the command, which shares only the standard error of this program, until it ends. Calls
/// `started` once it runs; interrupts it when `stop` is cancelled.
pub async fn run(
    command: &[OsString],
    started: impl FnOnce(),
    stop: &CancellationToken,
) -> TrafficResult {
    let (program, arguments) = command.split_first().expect("it has a program");
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let (failed, output) = match child {
        Ok(child) => {
            started();
            finish(child, stop).await
        }
        Err(error) => (Some(format!("cannot be started: {error}")), Vec::new()),
    };
    let program = program.to_string_lossy();
    let output = String::from_utf8_lossy(&output).trim().to_string();
    let bombardier = Report::parse(&output);
    TrafficResult {
        failed: failed.map(|why| format!("the traffic command `{program}` {why}")),
        output: bombardier.as_ref().map_or(output, |_| String::new()),
        bombardier,
    }
}

/// Why it failed, and its output.
async fn finish(child: Child, stop: &CancellationToken) -> (Option<String>, Vec<u8>) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let mut output = pin!(child.wait_with_output());
    let ended = match stop.run_until_cancelled(&mut output).await {
        Some(ended) => Ok(ended),
        None => {
            // As Ctrl-C does: bombardier then ends with its result. It may have just ended.
            let _ = pid.map(|pid| kill_process(pid, Signal::INT));
            // It is killed when it is dropped.
            timeout(GRACE, output).await
        }
    };
    match ended {
        // The exit status of an interrupted command does not matter.
        Ok(Ok(ended)) if ended.status.success() || stop.is_cancelled() => (None, ended.stdout),
        Ok(Ok(ended)) => (Some(format!("failed: {}", ended.status)), ended.stdout),
        Ok(Err(error)) => (Some(format!("cannot be read: {error}")), Vec::new()),
        Err(_) => {
            let limit = duration(GRACE);
            let why = format!("ignored SIGINT for {limit} and was killed");
            (Some(why), Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env::temp_dir, fs, process};

    use super::*;
    use tokio::signal::unix::{SignalKind, signal};

    #[test]
    fn traffic_is_labelled_by_its_connections_or_its_program() {
        for (command, expected) in [
            ("bombardier -c 40 http://a", "40 connections"),
            ("/bin/bombardier --connections=7 http://a", "7 connections"),
            ("bombardier -c8 http://a", "8 connections"),
            ("bombardier http://a", "125 connections"),
            ("/usr/bin/oha -c 40 http://a", "oha"),
        ] {
            let command: Vec<_> = command.split(' ').map(OsString::from).collect();
            assert_eq!(label(&command), expected);
        }
    }

    #[tokio::test]
    async fn traffic_that_is_stopped_has_a_result_unless_it_ignores_the_signal() {
        // As a recording does: a program that catches SIGINT starts others with its default, even
        // if it was ignored, as in `make test &`.
        let _handler = signal(SignalKind::interrupt()).expect("a handler");
        let ready = temp_dir().join(format!("recorder-traffic-{}", process::id()));
        let killed = "the traffic command `sh` ignored SIGINT for 1s and was killed";
        for (script, output, failed) in [
            (
                "trap 'echo stopped; kill $!; exit 130' INT; touch \"$0\"; sleep 60 & wait",
                "stopped",
                None,
            ),
            ("trap '' INT; touch \"$0\"; exec sleep 60", "", Some(killed)),
        ] {
            let mut command = ["sh", "-c", script].map(OsString::from).to_vec();
            command.push(ready.clone().into());
            let stop = CancellationToken::new();
            let cancel = async {
                while fs::remove_file(&ready).is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                stop.cancel();
            };
            let (result, ()) = tokio::join!(run(&command, || (), &stop), cancel);
            assert_eq!(
                (&*result.output, result.failed.as_deref()),
                (output, failed)
            );
        }
    }
}

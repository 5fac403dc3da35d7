//! The traffic: a command that runs as a child process, and its result.

use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bombardier::Report;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

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

impl TrafficResult {
    /// The result of a command that could not be started.
    pub fn failed(why: String) -> Self {
        Self {
            failed: Some(why),
            ..Self::default()
        }
    }
}

/// A label for the traffic of a command: bombardier's number of connections, or else the name of
/// the program.
pub fn label(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let Some((program, arguments)) = words.split_first() else {
        return String::new();
    };
    let name = Path::new(&**program)
        .file_name()
        .map_or(program.to_string(), |name| name.to_string_lossy().into());
    if name != "bombardier" {
        return name;
    }
    let connections = arguments
        .iter()
        .enumerate()
        .find_map(|(index, word)| match &**word {
            "-c" | "--connections" => arguments.get(index + 1).map(ToString::to_string),
            word => ["--connections=", "-c"]
                .iter()
                .find_map(|option| word.strip_prefix(option))
                .map(ToString::to_string),
        });
    // bombardier's default.
    let connections = connections.unwrap_or("125".into());
    format!("{connections} connections")
}

pub struct Traffic {
    child: Child,
    program: String,
}

impl Traffic {
    /// Starts the command, which shares only the standard error of this program.
    pub fn start(command: &[OsString]) -> Result<Self, String> {
        let [program, arguments @ ..] = command else {
            return Err("no traffic command was given".into());
        };
        let program = program.to_string_lossy().into_owned();
        let child = Command::new(&command[0])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                format!("the traffic command `{program}` cannot be started: {error}")
            })?;
        Ok(Self { child, program })
    }

    /// Waits until the command ends; interrupts it when `stop` is cancelled.
    pub async fn finish(mut self, stop: &CancellationToken) -> TrafficResult {
        let mut output = Vec::new();
        let ended = match stop
            .run_until_cancelled(self.read_to_end(&mut output))
            .await
        {
            Some(ended) => Some(ended),
            None => {
                self.interrupt();
                // It is killed when it is dropped.
                timeout(GRACE, self.read_to_end(&mut output)).await.ok()
            }
        };
        let program = &self.program;
        let failed = match ended {
            // The exit status of an interrupted command does not matter.
            Some(Ok(status)) if status.success() || stop.is_cancelled() => None,
            Some(Ok(status)) => Some(format!("the traffic command `{program}` failed: {status}")),
            Some(Err(error)) => Some(format!("the traffic command `{program}`: {error}")),
            None => Some(format!(
                "the traffic command `{program}` ignored SIGINT for {} s and was killed",
                GRACE.as_secs()
            )),
        };
        let output = String::from_utf8_lossy(&output).trim().to_string();
        let bombardier = Report::parse(&output);
        TrafficResult {
            failed,
            output: if bombardier.is_some() {
                String::new()
            } else {
                output
            },
            bombardier,
        }
    }

    /// The rest of its output, and its exit status.
    async fn read_to_end(&mut self, output: &mut Vec<u8>) -> io::Result<ExitStatus> {
        if let Some(pipe) = &mut self.child.stdout {
            pipe.read_to_end(output).await?;
        }
        self.child.wait().await
    }

    /// As Ctrl-C does: bombardier then ends with its result.
    fn interrupt(&self) {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
        {
            // It may have just ended by itself.
            let _ = kill_process(pid, Signal::INT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::signal::unix::{SignalKind, signal};

    #[test]
    fn traffic_is_labelled_by_its_connections_or_its_program() {
        for (command, expected) in [
            ("bombardier -c 40 http://localhost", "40 connections"),
            (
                "/bin/bombardier --connections=7 http://localhost",
                "7 connections",
            ),
            ("bombardier -c8 http://localhost", "8 connections"),
            ("bombardier http://localhost", "125 connections"),
            ("/usr/bin/oha -c 40 http://localhost", "oha"),
        ] {
            let command: Vec<_> = command.split(' ').map(OsString::from).collect();
            assert_eq!(label(&command), expected);
        }
    }

    /// The result of a script that is asked to stop once it has begun.
    async fn stopped(script: &str) -> TrafficResult {
        // As a recording does: a program that catches SIGINT starts others with its default, even if
        // it was ignored, as in `make test &`.
        let _handler = signal(SignalKind::interrupt()).expect("a handler");
        let command = ["sh", "-c", script].map(OsString::from);
        let traffic = Traffic::start(&command).expect("sh is there");
        let stop = CancellationToken::new();
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.cancel();
        };
        tokio::join!(traffic.finish(&stop), cancel).0
    }

    #[tokio::test]
    async fn traffic_that_is_stopped_still_has_a_result() {
        let result = stopped("trap 'echo stopped; kill $!; exit 130' INT; sleep 60 & wait").await;
        assert_eq!((result.output.as_str(), result.failed), ("stopped", None));
    }

    #[tokio::test]
    async fn traffic_that_ignores_the_signal_has_not_succeeded() {
        let result = stopped("trap '' INT; exec sleep 60").await;
        let failed = result.failed.expect("it was killed");
        assert!(failed.contains("ignored SIGINT"), "{failed}");
    }
}

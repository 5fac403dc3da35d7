//! Where a server serves, as it says on its standard output.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::spawn;
use std::time::Duration;

/// The address of a server, as `host:port`; it may take so long to say it.
pub fn address(stdout: ChildStdout, patience: Duration) -> Result<String, RecvTimeoutError> {
    let (sender, serving) = channel();
    // It reads to the end, since a server may not like to find its standard output closed.
    spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("Serving http://") {
                let _ = sender.send(address.to_owned());
            }
        }
    });
    serving.recv_timeout(patience)
}

//! Processes with their children.

use std::{
    io,
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessGroup};

/// SIGTERM in POSIX.
const SIGTERM: i32 = 15;
/// How long a process may take to end before it is killed.
const STOP: Duration = Duration::from_secs(2);

/// A process and its children, in a process group of their own. They are ended when this is
/// dropped.
pub struct Process(Box<dyn ChildWrapper>);

impl Process {
    /// Starts `command` as the leader of a new process group.
    pub fn spawn(command: Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let mut command = CommandWrap::from(command);
        let child = command.wrap(ProcessGroup::leader()).spawn();
        let child = child.with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self(child))
    }

    /// The process ID of the leader.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The exit status, if it has ended.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Sends SIGTERM to the group, and returns the time until the leader has ended; `None` if that
    /// takes longer than `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> io::Result<Option<Duration>> {
        let start = Instant::now();
        self.0.signal(SIGTERM)?;
        while start.elapsed() < timeout {
            if self.status()?.is_some() {
                return Ok(Some(start.elapsed()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.terminate(STOP);
        // Its children too, which may outlive it.
        let _ = self.0.start_kill();
        let _ = self.0.wait();
    }
}

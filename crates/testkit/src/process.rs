//! Processes with their children.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a process may take to end before it is killed.
const STOP: Duration = Duration::from_secs(2);

/// A process and its children, in a process group of their own. They are ended when this is
/// dropped.
pub struct Process(Child);

impl Process {
    /// Starts `command` as the leader of a new process group.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let child = command.process_group(0).spawn();
        let program = command.get_program().display();
        Ok(Self(
            child.with_context(|| format!("cannot run {program}"))?,
        ))
    }

    /// The process ID of the leader.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The exit status, if it has ended.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Sends SIGTERM to the group.
    pub fn terminate(&self) -> io::Result<()> {
        Ok(kill_process_group(Pid::from_child(&self.0), Signal::TERM)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.terminate();
        let start = Instant::now();
        while matches!(self.status(), Ok(None)) && start.elapsed() < STOP {
            thread::sleep(Duration::from_millis(5));
        }
        // Its children too, which may outlive it.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

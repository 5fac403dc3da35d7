//! Processes that end together with this one, on some cores and in a cgroup.

use std::{
    io,
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessGroup};

use crate::cgroup::Cgroup;

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

/// A command that runs another on these cores only, written as `taskset --cpu-list` reads them. It
/// takes over the program, the arguments and the variables.
pub fn pinned(command: &Command, cores: &str) -> Command {
    confined(command, Some(cores), None, None)
}

/// The same on some cores, in a cgroup, with a limit of file descriptors. If the system has
/// `setpriv`, as Linux does, it ends together with the thread that started it, even when that is
/// killed.
pub(crate) fn confined(
    command: &Command,
    cores: Option<&str>,
    cgroup: Option<&Cgroup>,
    descriptors: Option<u32>,
) -> Command {
    let mut script = String::from("set -e\n");
    if let Some(descriptors) = descriptors {
        script += &format!("ulimit -n {descriptors}\n");
    }
    for procs in cgroup.into_iter().flat_map(Cgroup::procs_files) {
        script += &format!("echo 0 >{}\n", procs.display());
    }
    script += "if command -v setpriv >/dev/null; then set -- setpriv --pdeathsig TERM \"$@\"; fi\n";
    if let Some(cores) = cores {
        script += "command -v taskset >/dev/null || \
                   { echo 'taskset is not installed: install util-linux'; exit 1; }\n";
        script += &format!("set -- taskset --cpu-list {cores} \"$@\"\n");
    }
    script += "exec \"$@\"";
    let mut confined = Command::new("sh");
    confined.args(["-c", &script, "sh"]);
    confined.arg(command.get_program()).args(command.get_args());
    confined.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    confined
}

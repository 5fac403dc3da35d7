//! The server under test: a process of its own, and what it uses.

use std::fmt;
use std::iter::successors;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, Signal, System};

use crate::serving;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The component under the embedded host or a Spin, ended when dropped.
pub struct Server {
    process: Child,
    address: String,
}

/// What the processes of a server use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// In bytes.
    pub resident: u64,
    pub threads: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    pub cpu_time: Duration,
}

impl Server {
    /// Starts it, with so many file descriptors at most, and waits until it is healthy.
    pub fn start(spin: Option<&Path>, descriptors: Option<u32>) -> Result<Self> {
        let host = std::env::current_exe()?.with_file_name("embedded-host");
        let limit = descriptors.map_or_else(String::new, |most| format!("ulimit -n {most}; "));
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("{limit}exec \"$@\""))
            .arg("sh");
        match spin {
            Some(spin) => command.arg(spin).args(["up", "--quiet"]),
            None => command.arg(host),
        };
        let mut process = command
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = process.stdout.take().context("no standard output")?;
        let mut server = Self {
            process,
            address: String::new(),
        };
        let address = serving::address(stdout, PATIENCE);
        server.address = address.context("it does not say where it serves")?;
        let end = Instant::now() + PATIENCE;
        while !server.is_healthy() {
            ensure!(Instant::now() < end, "not healthy within a minute");
            if let Some(status) = server.process.try_wait()? {
                bail!("it ended instead of serving: {status}");
            }
            sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// The address as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the health endpoint answers within a second.
    pub fn is_healthy(&self) -> bool {
        let url = format!("http://{}/.well-known/spin/health", self.address);
        let request = ureq::get(&url).config();
        let limited = request.timeout_global(Some(Duration::from_secs(1)));
        limited.build().call().is_ok()
    }

    /// What it uses now: Spin serves in a child.
    pub fn usage(&self) -> Result<Usage> {
        let mut system = System::new();
        let what = ProcessRefreshKind::nothing()
            .with_memory()
            .with_cpu()
            .with_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
        let server = Pid::from_u32(self.process.id());
        let parent = |pid: &Pid| system.process(*pid).and_then(|process| process.parent());
        let is_ours = |pid: Pid| successors(Some(pid), parent).any(|pid| pid == server);
        let mut usage = Usage::default();
        for (pid, process) in system.processes() {
            if process.thread_kind().is_some() || !is_ours(*pid) {
                continue;
            }
            usage.resident += process.memory();
            usage.threads += process
                .tasks()
                .context("its threads: only Linux tells")?
                .len() as u64;
            usage.descriptors += process.open_files().context("its descriptors")? as u64;
            usage.cpu_time += Duration::from_millis(process.accumulated_cpu_time());
        }
        ensure!(usage.resident > 0, "the server has ended");
        Ok(usage)
    }

    /// How long it takes to end after SIGTERM; none where it does not within a minute.
    pub fn terminate(&mut self) -> Result<Option<Duration>> {
        let start = Instant::now();
        self.signal(Signal::Term);
        while start.elapsed() < Duration::from_secs(60) {
            if self.process.try_wait()?.is_some() {
                return Ok(Some(start.elapsed()));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_u32(self.process.id());
        let mut system = System::new();
        system.refresh_processes(ProcessesToUpdate::Some(&[pid]), true);
        if let Some(process) = system.process(pid) {
            process.kill_with(signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Spin ends its child when it is terminated, and leaves it behind when it is killed.
        if !matches!(self.terminate(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.resident as f64 / f64::from(1 << 20);
        let Self {
            threads,
            descriptors,
            ..
        } = self;
        write!(
            f,
            "{mib:.1} MiB, {threads} threads, {descriptors} descriptors"
        )
    }
}

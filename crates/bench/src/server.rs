//! A server in a process of its own: the embedded host, or a real Spin.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    process::{Pid, Signal, kill_process_group},
    thread::{CpuSet, sched_getaffinity},
};
use tokio::time::{sleep, timeout};

use crate::{cgroup::Cgroup, load::Client};

/// The cores of `Share::Limited`: 500m.
pub const LIMIT: f64 = 0.5;
/// A limited server compiles its component at half speed.
const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(2);

/// What a server may use. It is held to that before it starts, as a pod is: a server counts its
/// threads by it.
#[derive(Clone, Copy)]
pub enum Share {
    TwoCores,
    /// Two cores, with a limit of 500m in all.
    Limited,
    OneCore,
}

impl Share {
    fn limit(self) -> Option<f64> {
        matches!(self, Self::Limited).then_some(LIMIT)
    }

    /// The first cores that this program may use, as `taskset` lists them.
    fn cores(self) -> Result<String> {
        let count = if matches!(self, Self::OneCore) { 1 } else { 2 };
        let allowed = sched_getaffinity(None)?;
        let cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let cores: Vec<_> = cores.take(count).map(|core| core.to_string()).collect();
        Ok(cores.join(","))
    }
}

/// What serves the components: a real Spin, or the embedded host.
pub struct Runner {
    pub path: PathBuf,
    pub is_spin: bool,
}

impl Runner {
    pub fn name(&self) -> &'static str {
        match self.is_spin {
            true => "Spin",
            false => "the embedded host",
        }
    }

    /// Its version, as it tells it.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(&self.path).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", self.path.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// A running server, the leader of a process group. The group ends when this is dropped.
pub struct Server {
    /// As `http://host:port`.
    address: String,
    process: Child,
    cgroup: Cgroup,
}

impl Server {
    /// Starts a server and waits until it answers its health endpoint. What it prints, and what Spin
    /// writes, goes beside the manifest.
    pub async fn start(runner: &Runner, manifest: &Path, share: Share) -> Result<Self> {
        let cgroup = Cgroup::create(share.limit())?;
        let mut command = confined(&runner.path, share, Some(&cgroup))?;
        if runner.is_spin {
            let state = manifest.with_file_name("spin");
            command.args(["up", "--quiet", "--from"]).arg(manifest);
            command.arg("--log-dir").arg(state.join("logs"));
            command.arg("--state-dir").arg(state);
        } else {
            command.arg("--manifest").arg(manifest);
        }
        let log_path = manifest.with_extension("log");
        let log = File::create(&log_path)?;
        let process = command
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run sh")?;
        let mut server = Self {
            address: String::new(),
            process,
            cgroup,
        };
        if let Err(error) = server.wait_until_healthy(&log_path).await {
            let (name, log) = (runner.name(), fs::read_to_string(&log_path)?);
            bail!("{name} did not start: {error:#}: {}", log.trim());
        }
        Ok(server)
    }

    /// Waits until it logs its address and its health endpoint answers there.
    async fn wait_until_healthy(&mut self, log: &Path) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < START {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended with {status}");
            }
            let log = fs::read_to_string(log)?;
            let mut lines = log.lines();
            if let Some(address) = lines.find_map(|line| line.strip_prefix("Serving ")) {
                self.address = address.to_owned();
                let client = Client::new(self.health())?;
                if let Ok(Ok(_)) = timeout(Duration::from_secs(1), client.get()).await {
                    return Ok(());
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("its health endpoint did not answer within {START:?}")
    }

    /// The CPU time that its processes have used.
    pub fn used(&self) -> Result<Duration> {
        self.cgroup.used()
    }

    /// The address of a path with its query, without the slash before it.
    pub fn url(&self, target: &str) -> String {
        format!("{}/{target}", self.address)
    }

    /// The address of the host's own health endpoint.
    pub fn health(&self) -> String {
        self.url(".well-known/spin/health")
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(Pid::from_child(&self.process), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let stopped = Instant::now() + STOP;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < stopped {
            thread::sleep(Duration::from_millis(10));
        }
        // Whatever has not stopped, the processes that Spin started included.
        self.signal(Signal::KILL);
        let _ = self.process.wait();
    }
}

/// A command that starts on its cores and in its cgroup, and ends together with this program.
pub fn confined(program: &Path, share: Share, cgroup: Option<&Cgroup>) -> Result<Command> {
    let mut script =
        "type setpriv taskset >/dev/null || { echo install util-linux >&2; exit 1; }\n\
                      set -e\n"
            .to_owned();
    for door in cgroup.into_iter().flat_map(Cgroup::doors) {
        script += &format!("echo 0 >{}\n", door.display());
    }
    let cores = share.cores()?;
    script += &format!(r#"exec setpriv --pdeathsig TERM taskset -c {cores} "$0" "$@""#);
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(program).process_group(0);
    Ok(command)
}

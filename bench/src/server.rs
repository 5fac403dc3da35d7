//! A server in a process of its own: the embedded host, or a real Spin.

use std::{
    fs::{self, File},
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    process::{Pid, Signal, kill_process_group, set_parent_process_death_signal},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::{
    cgroup::{Account, Cgroup},
    load::Client,
};

/// The cores that a server is held to.
const CORES: usize = 2;
/// A limited server compiles its component at half speed.
const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(2);

/// What serves the components.
#[derive(Clone, Debug)]
pub enum Runner {
    Host(PathBuf),
    Spin(PathBuf),
}

impl Runner {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Host(_) => "the embedded host",
            Self::Spin(_) => "Spin",
        }
    }

    /// Its version, as it tells it.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(self.path())
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", self.path().display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn path(&self) -> &Path {
        match self {
            Self::Host(path) | Self::Spin(path) => path,
        }
    }

    fn serve(&self, command: &mut Command, manifest: &Path, address: SocketAddr, state: &Path) {
        let address = address.to_string();
        match self {
            Self::Host(_) => command.arg("--manifest").arg(manifest),
            Self::Spin(_) => {
                command.args(["up", "--quiet", "--from"]).arg(manifest);
                command
                    .arg("--log-dir")
                    .arg(state.join("logs"))
                    .arg("--state-dir")
                    .arg(state)
            }
        };
        command.args(["--listen", &address]);
    }
}

/// A running server. It is stopped when dropped.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    account: Account,
}

impl Server {
    /// Starts a server, limited to `cores` if given, and waits until it answers its health endpoint.
    /// What it prints goes to a file in the directory `output`.
    pub async fn start(
        runner: &Runner,
        manifest: &Path,
        cores: Option<f64>,
        output: &Path,
    ) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log_path = output.join("server.log");
        let log = File::create(&log_path)?;
        let cgroup = Cgroup::create(cores);
        let mut command = match (&cgroup, cores) {
            (Err(_), Some(cores)) => systemd_run(cores, runner.path()),
            _ => Command::new(runner.path()),
        };
        runner.serve(&mut command, manifest, address, &output.join("spin"));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        confine(&mut command, cgroup.as_ref().ok())?;
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id().cast_signed();
        let (account, refused) = match cgroup {
            Ok(cgroup) => (Account::Cgroup(cgroup), None),
            Err(error) => (Account::ProcessGroup(pid), cores.zip(Some(error))),
        };
        let mut server = Self {
            address,
            child,
            account,
        };
        if let Err(error) = server.wait_until_healthy().await {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            let log = log.trim();
            match refused {
                None => bail!("{} did not start: {error:#}: {log}", runner.name()),
                Some((_, refusal)) => bail!(
                    "no rights to limit the CPU: {refusal:#}; systemd-run: {log}; \
                     run the benchmark as root, or in a session of systemd"
                ),
            }
        }
        if let Some((cores, _)) = refused {
            server.account = Account::Cgroup(Cgroup::of_limited(pid, cores)?);
        }
        Ok(server)
    }

    async fn wait_until_healthy(&mut self) -> Result<()> {
        let client = Client::new(format!("http://{}/.well-known/spin/health", self.address))?;
        let started = Instant::now();
        while started.elapsed() < START {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            if client.get(Duration::from_secs(1)).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!(
            "it did not answer its health endpoint within {} s",
            START.as_secs()
        )
    }

    /// The CPU time that its processes have used.
    pub fn used(&self) -> Result<Duration> {
        self.account.used()
    }

    /// The address of a query of the component.
    pub fn url(&self, query: &str) -> String {
        format!("http://{}/?{query}", self.address)
    }

    /// The address of the host's own health endpoint.
    pub fn health(&self) -> String {
        format!("http://{}/.well-known/spin/health", self.address)
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let stopped = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < stopped {
            thread::sleep(Duration::from_millis(10));
        }
        // Whatever has not stopped, the processes that Spin started included.
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

fn systemd_run(cores: f64, program: &Path) -> Command {
    let mut command = Command::new("systemd-run");
    let quota = format!("CPUQuota={}%", cores * 100.0);
    command
        .args([
            "--user",
            "--scope",
            "--quiet",
            "--collect",
            "-p",
            &quota,
            "--",
        ])
        .arg(program);
    command
}

/// Holds a command to the cores of a server and to a cgroup, and ends it together with this program.
pub fn confine(command: &mut Command, cgroup: Option<&Cgroup>) -> Result<()> {
    let cores = server_cores()?;
    let doors = cgroup.map_or(Ok(Vec::new()), Cgroup::doors)?;
    let enter = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        sched_setaffinity(None, &cores)?;
        doors.iter().try_for_each(|mut door| door.write_all(b"0"))
    };
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes system calls only; it neither allocates nor locks.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// The first cores that this program may use.
fn server_cores() -> Result<CpuSet> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = CpuSet::new();
    (0..CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .take(CORES)
        .for_each(|core| cores.set(core));
    Ok(cores)
}

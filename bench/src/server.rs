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
use tokio::time::{sleep, timeout};

use crate::{cgroup::Cgroup, load::Client};

/// The cores of `Share::Limited`: 500m.
pub const LIMIT: f64 = 0.5;
/// A limited server compiles its component at half speed.
const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(2);
const HEALTH: &str = ".well-known/spin/health";
const RIGHTS: &str = "run the benchmark as root, or in a session of systemd";

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

    /// The first cores that this program may use.
    fn cores(self) -> Result<CpuSet> {
        let count = if matches!(self, Self::OneCore) { 1 } else { 2 };
        let allowed = sched_getaffinity(None)?;
        let mut cores = CpuSet::new();
        (0..CpuSet::MAX_CPU)
            .filter(|&core| allowed.is_set(core))
            .take(count)
            .for_each(|core| cores.set(core));
        Ok(cores)
    }
}

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
        match self {
            Self::Host(_) => command.arg("--manifest").arg(manifest),
            Self::Spin(_) => command
                .args(["up", "--quiet", "--from"])
                .arg(manifest)
                .arg("--log-dir")
                .arg(state.join("logs"))
                .arg("--state-dir")
                .arg(state),
        };
        command.args(["--listen", &address.to_string()]);
    }
}

/// A running server. It is stopped when dropped.
pub struct Server {
    address: SocketAddr,
    _process: Process,
    cgroup: Cgroup,
}

impl Server {
    /// Starts a server and waits until it answers its health endpoint. What it prints goes to a file
    /// in the directory `output`.
    pub async fn start(
        runner: &Runner,
        manifest: &Path,
        share: Share,
        output: &Path,
    ) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log_path = output.join("server.log");
        let log = File::create(&log_path)?;
        let made = Cgroup::create(share.limit());
        let mut command = match &made {
            Ok(_) => Command::new(runner.path()),
            Err(_) => systemd_run(share.limit(), runner.path()),
        };
        runner.serve(&mut command, manifest, address, &output.join("spin"));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        confine(&mut command, share, made.as_ref().ok())?;
        let mut process = match (command.spawn(), &made) {
            (Ok(child), _) => Process(child),
            (Err(error), Ok(_)) => bail!("cannot start {command:?}: {error}"),
            (Err(_), Err(refusal)) => bail!("{refusal:#}: {RIGHTS}"),
        };
        if let Err(error) = process.wait_until_healthy(address).await {
            let log = fs::read_to_string(&log_path)?;
            let refusal = made.err().map(|error| format!(" ({error:#}: {RIGHTS})"));
            let refusal = refusal.unwrap_or_default();
            bail!(
                "{} did not start: {error:#}: {}{refusal}",
                runner.name(),
                log.trim()
            );
        }
        let cgroup = match made {
            Ok(cgroup) => cgroup,
            Err(_) => Cgroup::of(process.0.id(), share.limit())?,
        };
        Ok(Self {
            address,
            _process: process,
            cgroup,
        })
    }

    /// The CPU time that its processes have used.
    pub fn used(&self) -> Result<Duration> {
        self.cgroup.used()
    }

    /// The address of a path with its query, without the slash before it.
    pub fn url(&self, target: &str) -> String {
        format!("http://{}/{target}", self.address)
    }

    /// The address of the host's own health endpoint.
    pub fn health(&self) -> String {
        self.url(HEALTH)
    }
}

/// The leader of a process group, which ends with it.
struct Process(Child);

impl Process {
    async fn wait_until_healthy(&mut self, address: SocketAddr) -> Result<()> {
        let client = Client::new(&format!("http://{address}/{HEALTH}"))?;
        let started = Instant::now();
        while started.elapsed() < START {
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended with {status}");
            }
            if let Ok(Ok(_)) = timeout(Duration::from_secs(1), client.get()).await {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("its health endpoint did not answer within {START:?}")
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(Pid::from_child(&self.0), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let stopped = Instant::now() + STOP;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < stopped {
            thread::sleep(Duration::from_millis(10));
        }
        // Whatever has not stopped, the processes that Spin started included.
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Runs a program in a cgroup that systemd makes for it.
fn systemd_run(limit: Option<f64>, program: &Path) -> Command {
    let mut command = Command::new("systemd-run");
    command.args([
        "--user",
        "--scope",
        "--quiet",
        "--collect",
        "-p",
        "CPUAccounting=yes",
    ]);
    if let Some(cores) = limit {
        command
            .arg("-p")
            .arg(format!("CPUQuota={}%", cores * 100.0));
    }
    command.arg("--").arg(program);
    command
}

/// Holds a command to its cores and to a cgroup, and ends it together with this program.
pub fn confine(command: &mut Command, share: Share, cgroup: Option<&Cgroup>) -> Result<()> {
    let cores = share.cores()?;
    let doors = cgroup.map_or(Ok(Vec::new()), Cgroup::doors)?;
    let enter = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        sched_setaffinity(None, &cores)?;
        doors.iter().try_for_each(|mut door| door.write_all(b"0"))
    };
    command.process_group(0);
    #[expect(
        unsafe_code,
        reason = "nothing safe sets the signal on the death of a parent"
    )]
    // SAFETY: between fork and exec the closure makes system calls only; it neither allocates nor locks.
    unsafe {
        command.pre_exec(enter)
    };
    Ok(())
}

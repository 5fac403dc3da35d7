//! The servers and programs under test: built in the same run, and started as the cases need them.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use testkit::{Cgroup, Launch, Process, Runner, Server};

/// The CPU that a server may use.
#[derive(Clone, Copy)]
pub struct Share {
    cores: usize,
    limit: Option<f64>,
}

impl Share {
    pub const ONE_CORE: Self = Self::of(1, None);
    pub const TWO_CORES: Self = Self::of(2, None);
    /// The limit of the tutorial's pod: 500m.
    pub const LIMITED: Self = Self::of(2, Some(0.5));
    pub const QUARTER: Self = Self::of(2, Some(0.25));

    const fn of(cores: usize, limit: Option<f64>) -> Self {
        Self { cores, limit }
    }

    /// The cores that it may use at a time.
    pub fn cpu(self) -> f64 {
        self.limit.unwrap_or(self.cores as f64)
    }

    /// Starts a server with this limit, on these cores.
    pub fn serve(self, mut launch: Launch) -> Result<Server> {
        launch.cgroup = Some(Cgroup::create(self.limit)?);
        self.on_cores(|| launch.start())
    }

    /// Starts something on the first cores that this program may use: a new process has those of
    /// the thread that starts it.
    fn on_cores<T>(self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = CpuSet::new();
        let usable = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        usable.take(self.cores).for_each(|core| cores.set(core));
        sched_setaffinity(None, &cores)?;
        let started = start();
        sched_setaffinity(None, &allowed)?;
        started
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Some(cpu) => write!(f, "at {}m", 1000.0 * cpu),
            None => write!(f, "on {} cores", self.cores),
        }
    }
}

/// Where the components are built.
const RELEASE: &str = "target/wasm32-wasip1/release";
/// The component that this repository builds.
pub const COMPONENT: &str = "target/wasm32-wasip1/release/cpu_load_gen.wasm";
/// The folder for the files of the benchmark.
const OUTPUT: &str = "target/bench";

/// The servers and programs under test.
pub struct Testbed {
    pub runner: Runner,
    /// The build of the component that is measured.
    pub component: PathBuf,
}

impl Testbed {
    /// Builds everything under test.
    pub fn build() -> Result<Self> {
        let runner = runner()?;
        fs::create_dir_all(OUTPUT)?;
        // As `make build`, so that neither builds what the other has built.
        let components = "-p cpu-load-gen -p hello -p control";
        build(Command::new("scripts/build.sh").args(components.split(' ')))?;
        let natives = "--release -p native --target-dir target/bench/native";
        // The hash in software, as in the component, instead of the instructions of this processor.
        build(cargo(natives).env("RUSTFLAGS", r#"--cfg sha2_backend="soft""#))?;
        let component = COMPONENT.into();
        Ok(Self { runner, component })
    }

    /// The sizes in bytes of the component and of hello-world.
    pub fn sizes(&self) -> Result<[u64; 2]> {
        let hello = Path::new(RELEASE).join("hello.wasm");
        let [component, hello] = [&self.component, &hello].map(fs::metadata);
        Ok([component?.len(), hello?.len()])
    }

    /// A component to compare with: hello or control.
    pub fn other(&self, name: &str, share: Share) -> Result<Server> {
        self.serve(&Path::new(RELEASE).join(name).with_extension("wasm"), share)
    }

    /// Serves a component with the manifest of ours.
    pub fn serve(&self, wasm: &Path, share: Share) -> Result<Server> {
        let manifest = fs::read_to_string("spin.toml")?;
        ensure!(manifest.contains(COMPONENT), "spin.toml has another source");
        let wasm =
            fs::canonicalize(wasm).with_context(|| format!("cannot find {}", wasm.display()))?;
        let manifest = manifest.replace(COMPONENT, &wasm.display().to_string());
        let path = Path::new(OUTPUT).join("spin.toml");
        fs::write(&path, manifest)?;
        share.serve(Launch::new(&self.runner, &path)?)
    }

    /// Starts a neighbour on the core of `Share::ONE_CORE`, in turn busy and asleep for these
    /// microseconds. It is stopped when dropped.
    pub fn neighbour(&self, busy: u32, asleep: u32) -> Result<Process> {
        // So that it ends with this program, even when that is killed.
        let mut neighbour = Command::new("setpriv");
        neighbour.args(["--pdeathsig", "TERM"]);
        neighbour.arg(native("neighbour"));
        neighbour.args([busy, asleep].map(|micros| micros.to_string()));
        let started = Share::ONE_CORE.on_cores(|| Process::spawn(neighbour));
        started.context("a neighbour needs `setpriv`: install util-linux")
    }

    /// The hashes per second of CPU time of the native loop, from this many.
    pub fn native_hash_rate(&self, iterations: u32) -> Result<f64> {
        let mut program = Command::new(native("native"));
        program.arg(iterations.to_string());
        let output = Share::TWO_CORES.on_cores(|| Ok(program.output()?))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "native: {}", error.trim());
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

/// The path of a native program.
fn native(name: &str) -> PathBuf {
    Path::new(OUTPUT).join("native/release").join(name)
}

/// The server program: the Spin that `SPIN` names, or the embedded host, built first.
pub fn runner() -> Result<Runner> {
    let runner = Runner::from_env()?;
    if let Runner::EmbeddedHost(_) = runner {
        build(&mut cargo("--profile measured -p embedded-host"))?;
    }
    Ok(runner)
}

/// Builds packages of this workspace.
fn cargo(what: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked"]).args(what.split(' '));
    cargo
}

fn build(command: &mut Command) -> Result<()> {
    let status = command.status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

//! The servers and programs under test: built in the same run, and started as the cases need them.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity};
use testkit::{Launch, Limits, Process, Runner, Server, pinned};

/// The CPU that a server may use.
#[derive(Clone, Copy)]
pub struct Share {
    cores: usize,
    limit: Option<f64>,
}

impl Share {
    pub const ONE_CORE: Self = Self {
        cores: 1,
        limit: None,
    };
    pub const TWO_CORES: Self = Self {
        cores: 2,
        limit: None,
    };
    /// The limit of the tutorial's pod: 500m.
    pub const LIMITED: Self = Self::limited(0.5);

    /// Two cores, with a limit of `cpu` in all.
    pub const fn limited(cpu: f64) -> Self {
        Self {
            cores: 2,
            limit: Some(cpu),
        }
    }

    /// The cores that it may use at a time.
    pub fn cpu(self) -> f64 {
        self.limit.unwrap_or(self.cores as f64)
    }

    /// The first cores that this program may use.
    fn cores(self) -> Result<String> {
        let allowed = sched_getaffinity(None)?;
        let cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let cores = cores.take(self.cores).map(|core| core.to_string());
        Ok(cores.collect::<Vec<_>>().join(","))
    }

    pub fn limits(self) -> Result<Limits> {
        Ok(Limits {
            cores: self.cores()?,
            cpu: self.limit,
        })
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

/// The component that this repository builds.
pub const COMPONENT: &str = "target/wasm32-wasip1/release/cpu_load_gen.wasm";

/// The servers under test, and a folder for the files of the benchmark.
pub struct Testbed {
    output: PathBuf,
    pub runner: Runner,
    /// The build of the component that is measured; its path begins at this repository.
    pub component: PathBuf,
    /// The folder of hello and control.
    others: PathBuf,
}

impl Testbed {
    /// Builds everything under test.
    pub fn build() -> Result<Self> {
        let root = workspace();
        let runner = runner()?;
        let output = root.join("target/bench");
        fs::create_dir_all(&output)?;
        // As `make build`, so that neither builds what the other has built.
        let components = "-p cpu-load-gen -p hello -p control";
        let mut build = Command::new(root.join("scripts/build.sh"));
        let status = build.args(components.split(' ')).status();
        let is_built = status.context("cannot run scripts/build.sh")?.success();
        ensure!(is_built, "`scripts/build.sh {components}` failed");
        // The hash in software, as in the component, instead of the instructions of this processor.
        let software = r#"--cfg sha2_backend="soft""#;
        let natives = "--release -p native --target-dir target/bench/native";
        cargo(natives, software)?;
        let others = root.join("target/wasm32-wasip1/release");
        Ok(Self {
            component: COMPONENT.into(),
            others,
            output,
            runner,
        })
    }

    /// The sizes in bytes of the component and of hello-world.
    pub fn sizes(&self) -> Result<[u64; 2]> {
        let [ours, hello] = [
            &workspace().join(&self.component),
            &self.others.join("hello.wasm"),
        ]
        .map(fs::metadata);
        Ok([ours?.len(), hello?.len()])
    }

    pub fn component(&self, share: Share) -> Result<Server> {
        const MANIFEST: &str = include_str!("../../../spin.toml");
        ensure!(MANIFEST.contains(COMPONENT), "spin.toml has another source");
        let wasm = fs::canonicalize(workspace().join(&self.component))
            .with_context(|| format!("cannot find {}", self.component.display()))?;
        let manifest = MANIFEST.replace(COMPONENT, &wasm.display().to_string());
        self.serve("component", &manifest, share)
    }

    /// A component to compare with: hello or control.
    pub fn other(&self, name: &str, share: Share) -> Result<Server> {
        let wasm = self.others.join(name).with_extension("wasm");
        let manifest = format!(
            "spin_manifest_version = 2\n\
             [application]\nname = {name:?}\nversion = \"0.0.0\"\n\
             [[trigger.http]]\nroute = \"/...\"\ncomponent = {name:?}\n\
             [component.{name}]\nsource = {wasm:?}\n"
        );
        self.serve(name, &manifest, share)
    }

    fn serve(&self, name: &str, manifest: &str, share: Share) -> Result<Server> {
        let path = self.output.join(name).with_extension("toml");
        fs::write(&path, manifest)?;
        Launch::new(&self.runner, &path)?
            .limits(share.limits()?)
            .start()
    }

    /// Starts a neighbour on the core of `Share::ONE_CORE`, in turn busy and asleep for these
    /// microseconds. It is stopped when dropped.
    pub fn neighbour(&self, busy: u32, asleep: u32) -> Result<Process> {
        let mut neighbour = self.native("neighbour", Share::ONE_CORE)?;
        neighbour.args([busy, asleep].map(|micros| micros.to_string()));
        Process::spawn(neighbour)
    }

    /// The hashes per second of CPU time of the native loop, from this many.
    pub fn native_hash_rate(&self, iterations: u32) -> Result<f64> {
        let mut native = self.native("native", Share::TWO_CORES)?;
        let output = native.arg(iterations.to_string()).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "native: {}", error.trim());
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }

    fn native(&self, name: &str, share: Share) -> Result<Command> {
        let program = self.output.join("native/release").join(name);
        Ok(pinned(&program, &share.cores()?))
    }
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The server program: the Spin that `SPIN` names, or the embedded host, built first.
pub fn runner() -> Result<Runner> {
    let runner = Runner::from_env()?;
    if let Runner::EmbeddedHost(_) = runner {
        cargo("--profile measured -p embedded-host", "")?;
    }
    Ok(runner)
}

/// Builds packages of this workspace.
fn cargo(what: &str, rustflags: &str) -> Result<()> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(program);
    build.args(["build", "--locked"]).args(what.split(' '));
    if !rustflags.is_empty() {
        build.env("RUSTFLAGS", rustflags);
    }
    let status = build.current_dir(workspace()).status();
    let status = status.context("cannot run cargo")?;
    ensure!(status.success(), "`cargo build --locked {what}` failed");
    Ok(())
}

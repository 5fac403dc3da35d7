//! The servers and programs under test: built in the same run, and started as the rows need them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Child;

use crate::server::{Runner, Server, Share, confined};

/// A directory for what the benchmark writes, and what it measures.
pub struct Testbed {
    output: PathBuf,
    runner: Runner,
    component: PathBuf,
    /// Where hello and control are.
    others: PathBuf,
}

impl Testbed {
    /// Builds everything that is measured. Without the path of a Spin, the embedded host serves;
    /// `component` is another build of the component.
    pub fn build(spin: Option<&str>, component: Option<&Path>) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = root.ancestors().nth(2).context("no workspace")?;
        let host = root.join("target/measured/embedded-host");
        let runner = Runner {
            path: spin.map_or(host, PathBuf::from),
            is_spin: spin.is_some(),
        };
        if runner.is_spin {
            // A Spin that is not there is told before the long builds.
            runner.version().context(
                "install Spin (https://spinframework.dev/install) and give its path as SPIN, \
                 or leave SPIN out to measure the embedded host",
            )?;
        } else {
            cargo(root, "--profile measured -p embedded-host", "")?;
        }
        let output = root.join("target/bench");
        fs::create_dir_all(&output)?;
        let components = "--target wasm32-wasip1 --release -p cpu-load-gen -p hello -p control";
        cargo(root, components, "")?;
        // The hash in software, as in the component, instead of the instructions of this processor.
        let software = r#"--cfg sha2_backend="soft""#;
        let natives = "--release -p native --target-dir target/bench/native";
        cargo(root, natives, software)?;
        let others = root.join("target/wasm32-wasip1/release");
        Ok(Self {
            component: component.map_or_else(|| others.join("cpu_load_gen.wasm"), Path::to_owned),
            others,
            output,
            runner,
        })
    }

    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The sizes in bytes of the component and of hello-world.
    pub fn sizes(&self) -> Result<[u64; 2]> {
        let [ours, hello] = [&self.component, &self.others.join("hello.wasm")].map(fs::metadata);
        Ok([ours?.len(), hello?.len()])
    }

    pub async fn component(&self, share: Share) -> Result<Server> {
        const MANIFEST: &str = include_str!("../../../spin.toml");
        const BUILT: &str = "target/wasm32-wasip1/release/cpu_load_gen.wasm";
        ensure!(MANIFEST.contains(BUILT), "spin.toml has another source");
        let wasm = fs::canonicalize(&self.component)
            .with_context(|| format!("cannot find {}", self.component.display()))?;
        let manifest = MANIFEST.replace(BUILT, &wasm.display().to_string());
        self.serve("component", &manifest, share).await
    }

    /// A component that stands beside ours: hello or control.
    pub async fn other(&self, name: &str, share: Share) -> Result<Server> {
        let wasm = self.others.join(name).with_extension("wasm");
        let manifest = format!(
            "spin_manifest_version = 2\n\
             [application]\nname = {name:?}\nversion = \"0.0.0\"\n\
             [[trigger.http]]\nroute = \"/...\"\ncomponent = {name:?}\n\
             [component.{name}]\nsource = {wasm:?}\n"
        );
        self.serve(name, &manifest, share).await
    }

    async fn serve(&self, name: &str, manifest: &str, share: Share) -> Result<Server> {
        let path = self.output.join(name).with_extension("toml");
        fs::write(&path, manifest)?;
        Server::start(&self.runner, &path, share).await
    }

    /// Starts a neighbour on the core of `Share::OneCore`: by turns busy and asleep for so many
    /// microseconds. It is stopped when dropped.
    pub fn neighbour(&self, busy: u32, asleep: u32) -> Result<Child> {
        let micros = [busy, asleep].map(|micros| micros.to_string());
        let mut neighbour = self.native("neighbour", &micros, Share::OneCore)?;
        Ok(neighbour.spawn()?)
    }

    /// The hashes per second of CPU time of the native loop, from this many.
    pub async fn native_hash_rate(&self, iterations: u32) -> Result<f64> {
        let mut native = self.native("native", &[iterations.to_string()], Share::TwoCores)?;
        let output = native.output().await?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "native: {}", error.trim());
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }

    fn native(&self, name: &str, args: &[String], share: Share) -> Result<tokio::process::Command> {
        let program = self.output.join("native/release").join(name);
        let mut command = tokio::process::Command::from(confined(&program, share, None)?);
        command.args(args).kill_on_drop(true);
        Ok(command)
    }
}

/// Builds packages of this workspace.
fn cargo(root: &Path, what: &str, rustflags: &str) -> Result<()> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(program);
    build.args(["build", "--locked"]).args(what.split(' '));
    if !rustflags.is_empty() {
        build.env("RUSTFLAGS", rustflags);
    }
    let status = build.current_dir(root).status();
    let status = status.context("cannot run cargo")?;
    ensure!(status.success(), "`cargo build --locked {what}` failed");
    Ok(())
}

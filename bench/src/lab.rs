//! What is measured and beside what: built in the same run, and started as the rows need it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::server::{Runner, Server, confine};

/// A directory for what the benchmark writes, and the servers and programs that it measures.
pub struct Lab {
    root: PathBuf,
    output: PathBuf,
    runner: Runner,
}

impl Lab {
    /// Builds everything that is measured. Without the path of a Spin, the embedded host serves.
    pub fn build(spin: Option<&str>) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("no workspace")?
            .to_owned();
        let runner = match spin {
            Some(path) => {
                let spin = Runner::Spin(path.into());
                // A Spin that is not there is told before the long builds.
                spin.version().context(
                    "install Spin (https://spinframework.dev/install) and give its path as SPIN, \
                     or leave SPIN out to measure the embedded host",
                )?;
                spin
            }
            None => {
                cargo(&root, "build --workspace --bin embedded-host", &[], &[])?;
                Runner::Host(root.join("target/debug/embedded-host"))
            }
        };
        let output = root.join("target/bench");
        fs::create_dir_all(&output)?;
        let components = ["-p", "cpu-load-gen", "-p", "hello", "-p", "fib"];
        cargo(
            &root,
            "build --target wasm32-wasip1 --release",
            &components,
            &[],
        )?;
        // The hash in software, as in the component, instead of the instructions of this processor.
        let software = [("RUSTFLAGS", r#"--cfg sha2_backend="soft""#)];
        cargo(
            &root,
            "build --release -p native --target-dir target/bench/native",
            &[],
            &software,
        )?;
        Ok(Self {
            root,
            output,
            runner,
        })
    }

    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The path of a file that the benchmark writes.
    pub fn output(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    /// The size in bytes of a built component.
    pub fn size(&self, name: &str) -> Result<u64> {
        Ok(fs::metadata(self.wasm(name))?.len())
    }

    fn wasm(&self, name: &str) -> PathBuf {
        self.root
            .join("target/wasm32-wasip1/release")
            .join(name)
            .with_extension("wasm")
    }

    /// Serves the component, limited to `cores` if given.
    pub async fn component(&self, cores: Option<f64>) -> Result<Server> {
        Server::start(
            &self.runner,
            &self.root.join("spin.toml"),
            cores,
            &self.output,
        )
        .await
    }

    /// Serves a component that only stands beside it.
    pub async fn baseline(&self, name: &str, cores: Option<f64>) -> Result<Server> {
        let manifest = self.output.join(name).with_extension("toml");
        let text = format!(
            "spin_manifest_version = 2\n\
             [application]\nname = {name:?}\nversion = \"0.0.0\"\n\
             [[trigger.http]]\nroute = \"/...\"\ncomponent = {name:?}\n\
             [component.{name}]\nsource = {:?}\n",
            self.wasm(name)
        );
        fs::write(&manifest, text)?;
        Server::start(&self.runner, &manifest, cores, &self.output).await
    }

    /// The hashes per second of CPU time of the native loop, from this many.
    pub async fn native_hash_rate(&self, iterations: u32) -> Result<f64> {
        let mut command = Command::new(self.output.join("native/release/native"));
        command.arg(iterations.to_string());
        confine(&mut command, None)?;
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "native: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

fn cargo(root: &Path, command: &str, more: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(program);
    build
        .args(command.split(' '))
        .args(more)
        .envs(variables.iter().copied())
        .current_dir(root);
    let status = build.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "`cargo {command} {}` failed",
        more.join(" ")
    );
    Ok(())
}

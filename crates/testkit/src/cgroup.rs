//! The CPU time that the kernel accounts to a server, and the limit that it sets: a cgroup's.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";
/// How long a limited server may run on, in all, before it waits for the next period (as
/// Kubernetes).
const PERIOD_MICROS: f64 = 100_000.0;

/// A cgroup, v1 or v2. It is removed on drop, when its processes have ended.
pub struct Cgroup {
    directories: Vec<PathBuf>,
    usage: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup, limited to `cores` if given, such as 0.5 for 500m.
    ///
    /// # Errors
    /// On another system than Linux, or if this program does not run as root.
    pub fn create(cores: Option<f64>) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cpu-load-gen-bench-{}-{count}", process::id());
        let quota = (cores.unwrap_or_default() * PERIOD_MICROS).round();
        let root = Path::new(ROOT);
        let (directories, usage, limits) = if root.join("cgroup.controllers").exists() {
            let group = root.join(name);
            let limits = [
                (root.join("cgroup.subtree_control"), "+cpu".to_owned()),
                (group.join("cpu.max"), format!("{quota} {PERIOD_MICROS}")),
            ];
            let usage = group.join("cpu.stat");
            (vec![group], usage, limits)
        } else {
            let [cpu, cpuacct] = ["cpu", "cpuacct"].map(|part| root.join(part).join(&name));
            let limits = [
                (cpu.join("cpu.cfs_period_us"), PERIOD_MICROS.to_string()),
                (cpu.join("cpu.cfs_quota_us"), quota.to_string()),
            ];
            let usage = cpuacct.join("cpuacct.usage");
            (vec![cpu, cpuacct], usage, limits)
        };
        let cgroup = Self { directories, usage };
        for directory in &cgroup.directories {
            // In v1 both can be one, which then exists already.
            fs::create_dir_all(directory).with_context(|| {
                let directory = directory.display();
                format!("cannot create {directory}: run the benchmark as root")
            })?;
        }
        for (file, text) in limits.iter().filter(|_| cores.is_some()) {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(cgroup)
    }

    /// The CPU time that its processes have used, exact to the microsecond or better.
    pub fn used(&self) -> Result<Duration> {
        let text = fs::read_to_string(&self.usage)?;
        parse_usage(&text).with_context(|| format!("no CPU usage in {}", self.usage.display()))
    }

    /// The files to which a process writes `0` in order to join.
    pub fn procs_files(&self) -> impl Iterator<Item = PathBuf> {
        self.directories.iter().map(|it| it.join("cgroup.procs"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A killed process stays in its cgroup for a moment.
        for _ in 0..200 {
            self.directories
                .retain(|directory| fs::remove_dir(directory).is_err() && directory.exists());
            if self.directories.is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("warning: cannot remove the cgroup {:?}", self.directories);
    }
}

/// Reads `cpuacct.usage` of v1 (nanoseconds) or `cpu.stat` of v2.
fn parse_usage(text: &str) -> Option<Duration> {
    if let Ok(nanos) = text.trim().parse() {
        return Some(Duration::from_nanos(nanos));
    }
    let mut lines = text.lines();
    let micros = lines.find_map(|line| line.strip_prefix("usage_usec "))?;
    micros.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_both_versions() {
        let v1 = parse_usage("1234567890\n");
        assert_eq!(v1, Some(Duration::from_nanos(1_234_567_890)));
        let v2 = parse_usage("usage_usec 2500000\nuser_usec 2000000\nnr_periods 0\n");
        assert_eq!(v2, Some(Duration::from_millis(2500)));
        assert_eq!(parse_usage("user_usec 2000000\n"), None);
    }
}

//! The CPU time that the kernel accounts to a server, and the limit that it sets: a cgroup's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

const ROOT: &str = "/sys/fs/cgroup";
/// How long a limited server may run on, in all, before it waits for the next period (as Kubernetes).
const PERIOD_MICROS: f64 = 100_000.0;

/// A cgroup, v1 or v2.
pub struct Cgroup {
    /// Those that are this program's to remove.
    directories: Vec<PathBuf>,
    usage: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup, limited to `cores` if given. It is removed on drop, when its processes have ended.
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
            (vec![group.clone()], group.join("cpu.stat"), limits)
        } else {
            let [cpu, cpuacct] = ["cpu", "cpuacct"].map(|part| root.join(part).join(&name));
            let limits = [
                (cpu.join("cpu.cfs_period_us"), PERIOD_MICROS.to_string()),
                (cpu.join("cpu.cfs_quota_us"), quota.to_string()),
            ];
            let usage = cpuacct.join("cpuacct.usage");
            (vec![cpu, cpuacct], usage, limits)
        };
        let mut cgroup = Self {
            directories: Vec::new(),
            usage,
        };
        for directory in directories {
            // In v1 both parts can be one.
            if !directory.exists() {
                fs::create_dir(&directory)
                    .with_context(|| format!("cannot create {}", directory.display()))?;
            }
            cgroup.directories.push(directory);
        }
        if cores.is_some() {
            for (file, text) in limits {
                fs::write(&file, text)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        Ok(cgroup)
    }

    /// The cgroup (v2) of a process that systemd put there, limited to `cores` if given.
    pub fn of(pid: u32, cores: Option<f64>) -> Result<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let directory = Path::new(ROOT).join(path.context("the process is in no cgroup of v2")?);
        let limit = fs::read_to_string(directory.join("cpu.max"))
            .context("the cpu controller is not delegated to the user's systemd")?;
        ensure!(
            parse_limit(&limit) == cores,
            "systemd-run set the limit {:?}, not {cores:?} cores",
            limit.trim()
        );
        Ok(Self {
            directories: Vec::new(),
            usage: directory.join("cpu.stat"),
        })
    }

    /// The CPU time that its processes have used, exact to the microsecond or better.
    pub fn used(&self) -> Result<Duration> {
        let text = fs::read_to_string(&self.usage)?;
        parse_usage(&text).with_context(|| format!("no CPU usage in {}", self.usage.display()))
    }

    /// The files to which a process writes `0` in order to join.
    pub fn doors(&self) -> Result<Vec<File>> {
        let open = |directory: &PathBuf| {
            let path = directory.join("cgroup.procs");
            let door = File::options().write(true).open(&path);
            door.with_context(|| format!("cannot open {}", path.display()))
        };
        self.directories.iter().map(open).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A killed process leaves its cgroup a little later.
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
    let micros = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?;
    micros.parse().ok().map(Duration::from_micros)
}

/// Reads `cpu.max` of v2, in cores; none if there is no limit.
fn parse_limit(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_both_versions() {
        assert_eq!(
            parse_usage("1234567890\n"),
            Some(Duration::from_nanos(1_234_567_890))
        );
        let stat = "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 0\n";
        assert_eq!(parse_usage(stat), Some(Duration::from_millis(2500)));
        assert_eq!(parse_usage("user_usec 2000000\n"), None);
        assert_eq!(parse_usage(""), None);
    }

    #[test]
    fn limits() {
        assert_eq!(parse_limit("50000 100000\n"), Some(0.5));
        assert_eq!(parse_limit("max 100000\n"), None);
    }
}

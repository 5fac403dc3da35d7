//! The CPU time that the kernel accounts to a server, and the limit that it sets: a cgroup's.

use std::{
    fs::{self, File},
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use procfs::process::Process;

/// How long a limited server may run on, in all, before it waits for the next period (as Kubernetes).
const PERIOD_MICROS: f64 = 100_000.0;

/// A cgroup, v1 or v2.
pub struct Cgroup {
    directories: Vec<PathBuf>,
    usage: PathBuf,
    /// Whether the directories are this program's to remove.
    created: bool,
}

impl Cgroup {
    /// Makes a cgroup, limited to `cores` if given. It is removed on drop, when its processes have ended.
    pub fn create(cores: Option<f64>) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "cpu-load-gen-bench-{}-{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let (directories, usage, limits) = match (own_v1("cpu")?, own_v1("cpuacct")?, root_v2()?) {
            (Some(cpu), Some(cpuacct), _) => {
                let (cpu, cpuacct) = (cpu.join(&name), cpuacct.join(&name));
                let limits = [
                    ("cpu.cfs_period_us", "PERIOD"),
                    ("cpu.cfs_quota_us", "QUOTA"),
                ]
                .map(|(file, text)| (cpu.join(file), text));
                let usage = cpuacct.join("cpuacct.usage");
                (vec![cpu, cpuacct], usage, limits)
            }
            (_, _, Some(root)) => {
                let group = root.join(&name);
                let limits = [
                    (root.join("cgroup.subtree_control"), "+cpu"),
                    (group.join("cpu.max"), "QUOTA PERIOD"),
                ];
                let usage = group.join("cpu.stat");
                (vec![group], usage, limits)
            }
            _ => bail!("no cgroup file system with CPU accounting is mounted"),
        };
        let mut cgroup = Self {
            directories: Vec::new(),
            usage,
            created: true,
        };
        for directory in directories {
            // In v1 both controllers can share a directory.
            if !cgroup.directories.contains(&directory) {
                fs::create_dir(&directory)
                    .with_context(|| format!("cannot create {}", directory.display()))?;
                cgroup.directories.push(directory);
            }
        }
        if let Some(cores) = cores {
            let quota = (cores * PERIOD_MICROS).round().to_string();
            for (file, text) in limits {
                let text = text
                    .replace("PERIOD", &PERIOD_MICROS.to_string())
                    .replace("QUOTA", &quota);
                fs::write(&file, text)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        Ok(cgroup)
    }

    /// The cgroup (v2) of a process that systemd put there, limited to `cores` if given.
    pub fn of(pid: i32, cores: Option<f64>) -> Result<Self> {
        let root = root_v2()?.context("no cgroup v2 file system is mounted")?;
        let groups = Process::new(pid)?.cgroups()?;
        let group = groups.into_iter().find(|group| group.hierarchy == 0);
        let path = group.context("the process is in no cgroup of v2")?.pathname;
        let directory = root.join(path.trim_start_matches('/'));
        let limit = fs::read_to_string(directory.join("cpu.max"))
            .context("the cpu controller is not delegated to the user's systemd")?;
        ensure!(
            parse_limit(&limit) == cores,
            "systemd-run set the limit {:?}, not {cores:?} cores",
            limit.trim()
        );
        let usage = directory.join("cpu.stat");
        Ok(Self {
            directories: vec![directory],
            usage,
            created: false,
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
            File::options()
                .write(true)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))
        };
        self.directories.iter().map(open).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.created {
            return;
        }
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

/// The directory of this process in the hierarchy of a controller of v1.
fn own_v1(controller: &str) -> Result<Option<PathBuf>> {
    let own = Process::myself()?;
    let mut mounts = own.mountinfo()?.into_iter();
    let Some(mount) = mounts
        .find(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key(controller))
    else {
        return Ok(None);
    };
    let mut groups = own.cgroups()?.into_iter();
    let group = groups
        .find(|group| group.controllers.iter().any(|name| name == controller))
        .map(|group| {
            mount
                .mount_point
                .join(group.pathname.trim_start_matches('/'))
        })
        .filter(|path| path.is_dir());
    // In a container the mount can already be the process's own directory.
    Ok(Some(group.unwrap_or(mount.mount_point)))
}

/// The root of v2. Only there is a sibling of this process possible: a cgroup that has processes
/// cannot pass the cpu controller on.
fn root_v2() -> Result<Option<PathBuf>> {
    let mut mounts = Process::myself()?.mountinfo()?.into_iter();
    Ok(mounts
        .find(|mount| mount.fs_type == "cgroup2")
        .map(|mount| mount.mount_point))
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

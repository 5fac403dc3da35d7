//! Stand-ins for kubectl, bombardier and other programs: each logs its call and prints the given
//! output.

use super::ROOT;
use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

const NAMES: &str = "bombardier cargo cargo-fuzz curl docker helm k3d kind kubectl rustc rustup \
                     shellcheck sleep spin";

/// The script of each stand-in. A call is one line: the name and the arguments, separated by tabs.
const PROGRAM: &str = r#"#!/usr/bin/env bash
call=${0##*/}
for argument; do call+=$'\t'$argument; done
printf '%s\n' "$call" >>"$CALLS"
call=${call//$'\t'/ }
eval "case \$call in $ANSWERS esac"
case $call in
  'kind get nodes '*) echo wasm-cluster-scale-worker ;;
  'kubectl config current-context') echo k3d-wasm-cluster-scale ;;
  'kubectl api-resources '*) echo scaledobjects.keda.sh ;;
  'kubectl patch '* | 'kubectl label '*) cat ;;
  'kubectl create secret '*'--output jsonpath='*) echo keda-spinapp-runtime-config-hash ;;
  'kubectl '*' apply '*'-f -') cat >/dev/null ;;
  'cargo build '* | 'cargo run '*) [[ $call == *' --locked '* ]] || exit 101 ;;
  'spin --version') echo 'spin 4.0.2 (0123456 2026-01-01)' ;;
  'spin registry push '*) printf 'Pushed with digest sha256:%064d\n' 0 ;;
  'rustup target list '*) echo wasm32-wasip1 ;;
  'rustup toolchain list'*) echo nightly ;;
  'curl '*) echo 200 ;;
  'bombardier '*) echo '1xx - 0, 2xx - 9, 3xx - 0, 4xx - 0, 5xx - 0, others - 0' ;;
esac
"#;

/// A folder with the stand-ins.
pub struct Programs {
    folder: PathBuf,
    /// Shell patterns of calls, and what a stand-in does then instead of its usual answer:
    /// `PATTERN) COMMANDS; exit ;;`, as often as there are patterns.
    answers: String,
    /// The variables of the caller, beside PATH.
    pub environment: Vec<(&'static str, &'static str)>,
}

/// The result of a run of make.
pub struct Run {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
    /// The calls in their order, each a name and its arguments.
    calls: Vec<Vec<String>>,
}

impl Programs {
    /// A new folder of this name for the tests.
    pub fn new(name: &str) -> Self {
        Self::answering(name, "")
    }

    /// The same, with these answers.
    pub fn answering(name: &str, answers: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("the old folder goes");
        }
        let program = folder.join("program");
        fs::create_dir_all(folder.join("bin")).expect("created");
        fs::write(&program, PROGRAM).expect("written");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("executable");
        for name in NAMES.split_whitespace() {
            symlink(&program, folder.join("bin").join(name)).expect("created");
        }
        Self {
            folder,
            answers: answers.to_owned(),
            environment: Vec::new(),
        }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> String {
        let path = self.folder.join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Runs make with these targets and variables.
    pub fn make(&self, arguments: &[&str]) -> Run {
        let calls = self.path("calls");
        fs::write(&calls, "").expect("written");
        let path = env::var("PATH").expect("PATH is set");
        let output = Command::new("make")
            .arg("--no-print-directory")
            .args(arguments)
            .current_dir(ROOT)
            .env_clear()
            .envs(self.environment.iter().copied())
            .env("PATH", format!("{}:{path}", self.path("bin")))
            .env("CALLS", &calls)
            .env("ANSWERS", &self.answers)
            .output()
            .expect("make runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let calls = fs::read_to_string(calls).expect("the calls");
        let words = |call: &str| call.split('\t').map(str::to_owned).collect();
        Run {
            success: output.status.success(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            calls: calls.lines().map(words).collect(),
        }
    }
}

impl Run {
    fn find(&self, part: &str) -> Option<usize> {
        let mut calls = self.calls.iter();
        calls.position(|call| call.join(" ").contains(part))
    }

    /// The index of the first call whose text contains this.
    pub fn position(&self, part: &str) -> usize {
        let found = self.find(part);
        found.unwrap_or_else(|| panic!("no call has {part:?}:\n{self}"))
    }

    /// Asserts that calls with these parts are there, each after the one before.
    pub fn assert_order(&self, parts: &[&str]) {
        let order = parts.iter().map(|part| self.position(part));
        assert!(order.is_sorted(), "{self}");
    }

    /// The arguments of the first call whose text contains this.
    pub fn call(&self, part: &str) -> &[String] {
        &self.calls[self.position(part)][1..]
    }

    pub fn has_call(&self, part: &str) -> bool {
        self.find(part).is_some()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for call in &self.calls {
            writeln!(f, "{}", call.join(" "))?;
        }
        write!(f, "stdout: {}\nstderr: {}", self.stdout, self.stderr)
    }
}

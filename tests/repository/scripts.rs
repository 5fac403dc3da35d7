//! The script that judges a load: what it lets pass, and what not.

use super::ROOT;
use std::{fs, path::PathBuf, process::Command, sync::LazyLock};

/// Functions in place of the programs that the script runs.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("programs.sh");
    let functions = r#"
        bombardier() { printf '%s\n' "$REPORT"; }
        curl() { printf '%s' "$STATUS"; }
    "#;
    fs::write(&file, functions).expect("written");
    file
});

/// Whether `scripts/load.sh` passes with this status of the first answer and these counts in bombardier's report, and
/// what it says about it.
fn load(status: &str, codes: &str, others: &str) -> (bool, String) {
    let report = format!(
        "Statistics        Avg      Stdev        Max\n  Reqs/sec  91.4  20.1  130.9\n  HTTP codes:\n    {codes}\n    others - {others}\n  Throughput:    10.0KB/s"
    );
    let output = Command::new("bash")
        .args(["scripts/load.sh", "-c", "40", "http://localhost:8081"])
        .current_dir(ROOT)
        .env("BASH_ENV", PROGRAMS.as_path())
        .env("STATUS", status)
        .env("REPORT", report)
        .output()
        .expect("bash runs");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.success(), said)
}

#[test]
fn a_load_passes_with_2xx_alone() {
    const GOOD: &str = "1xx - 0, 2xx - 14517, 3xx - 0, 4xx - 0, 5xx - 0";
    assert_eq!(load("200", GOOD, "0"), (true, String::new()));
    for (codes, others, expected) in [
        (GOOD, "3", "3 of 14520 requests"),
        (
            "1xx - 0, 2xx - 90, 3xx - 1, 4xx - 2, 5xx - 7",
            "0",
            "10 of 100 requests",
        ),
        (
            "1xx - 0, 2xx - 0, 3xx - 0, 4xx - 0, 5xx - 0",
            "0",
            "0 of 0 requests",
        ),
        ("another form", "0", "no counts"),
    ] {
        let (passed, said) = load("200", codes, others);
        assert!(!passed && said.contains(expected), "{codes}: {said}");
    }
}

#[test]
fn a_load_does_not_begin_where_the_app_does_not_answer() {
    for status in ["404", "308", "000"] {
        let (passed, said) = load(status, "1xx - 0, 2xx - 9, 3xx - 0, 4xx - 0, 5xx - 0", "0");
        assert!(!passed && said.contains(status), "{said}");
    }
}

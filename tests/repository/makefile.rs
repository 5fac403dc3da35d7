//! The Makefile and what it includes: it does what the manifests need, in the order that they need.

use super::{APP, HPA, INGRESS, ROOT, SCALED_OBJECT, manifest, read, read_all, text_at};
use std::process::Command;

/// The Makefile with all that it includes.
pub fn text() -> String {
    let included = read_all(".", ".mk").into_iter().map(|(_, text)| text);
    std::iter::once(read("Makefile")).chain(included).collect()
}

pub fn has_target(name: &str) -> bool {
    text()
        .lines()
        .any(|line| line.starts_with(&format!("{name}:")))
}

/// What `make` would run, one command a line, without running it.
pub fn make_dry_run(arguments: &[&str]) -> String {
    let output = Command::new("make")
        .args(["--dry-run", "--no-print-directory"])
        .args(arguments)
        .current_dir(ROOT)
        // Neither the flags of the `make test` that runs this nor a caller's IMAGE may change the answer.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("PATH is set"))
        .output()
        .expect("make runs");
    assert!(
        output.status.success(),
        "make --dry-run {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("make prints UTF-8")
}

#[test]
fn make_deploys_the_manifests() {
    for (autoscaler, scaler, hpa) in [
        ("keda", SCALED_OBJECT, "hpa/keda-hpa-cpu-scaling"),
        ("hpa", HPA, "hpa/cpu-scaling"),
    ] {
        let commands = make_dry_run(&["deploy", &format!("AUTOSCALER={autoscaler}")]);
        let position = |command: &str| {
            commands
                .find(command)
                .unwrap_or_else(|| panic!("no {command:?} in:\n{commands}"))
        };
        let order = [
            position(&format!("patch --local -f {APP}")),
            position("--for=create deployment/keda-spinapp"),
            position("--for=jsonpath='{.metadata.annotations.cpu-load-gen/deployed}'="),
            position("rollout status deployment/keda-spinapp"),
            position(&format!("apply -f {scaler}")),
            position(&format!("--for=condition=ScalingActive {hpa}")),
        ];
        assert!(
            order.is_sorted(),
            "the Deployment comes before its autoscaler:\n{commands}"
        );
        position(&format!("apply -f {INGRESS}"));
    }
}

#[test]
fn make_deploys_the_image_of_the_manifest_unless_told_another() {
    let image = |image: &str| format!(r#""image":"{image}""#);
    let default = manifest(APP);
    assert!(make_dry_run(&["deploy"]).contains(&image(text_at(&default, "/spec/image"))));
    assert!(make_dry_run(&["push"]).contains(text_at(&default, "/spec/image")));

    let digest = format!("ghcr.io/someone/cpu-load-gen@sha256:{}", "0".repeat(64));
    let commands = make_dry_run(&["deploy", &format!("IMAGE={digest}"), "NAMESPACE=elsewhere"]);
    assert!(commands.contains(&image(&digest)), "{commands}");
    assert!(commands.contains("--namespace 'elsewhere'"), "{commands}");
    assert!(!commands.contains("--namespace 'default'"), "{commands}");
}

#[test]
fn make_takes_away_whatever_it_deployed() {
    let commands = make_dry_run(&["undeploy"]);
    for file in [APP, SCALED_OBJECT, HPA, INGRESS] {
        assert!(
            commands.contains(&format!("-f {file}")),
            "{file}:\n{commands}"
        );
    }
    let secrets = "get secrets --selector cpu-load-gen/runtime-config=keda-spinapp";
    assert!(commands.contains(secrets), "{commands}");
}

#[test]
fn make_deploys_a_runtime_config_only_where_told_one() {
    let filter = "| scripts/with-runtime-config.sh 'runtime-config.toml' 'elsewhere' keda-spinapp";
    let commands = make_dry_run(&[
        "deploy",
        "RUNTIME_CONFIG=runtime-config.toml",
        "NAMESPACE=elsewhere",
    ]);
    assert!(commands.contains(filter), "{commands}");
    assert!(!make_dry_run(&["deploy"]).contains("with-runtime-config"));
}

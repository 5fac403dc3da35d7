//! The manifests, the Makefile, the README and the workflows: each is what it must be, and they agree with one another.

use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const APP: &str = "config/samples/keda-app.yaml";
const SCALED_OBJECT: &str = "config/samples/keda-scaledobject.yaml";
const HPA: &str = "config/samples/hpa.yaml";
const INGRESS: &str = "config/samples/ingress.yaml";

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn parse(yaml: &str, name: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn manifest(file: &str) -> Value {
    parse(&read(file), file)
}

/// The value at a JSON pointer, which must be there.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value
        .pointer(pointer)
        .unwrap_or_else(|| panic!("there is no {pointer} in {value:#}"))
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer)
        .as_str()
        .unwrap_or_else(|| panic!("{pointer} is not a string"))
}

/// Millicores of a CPU quantity of the manifests.
fn millicores(value: &Value, pointer: &str) -> u32 {
    let quantity = text_at(value, pointer);
    quantity
        .strip_suffix('m')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{pointer} is {quantity}, not in millicores"))
}

fn assert_all(file: &str, expected: &[(&str, Value)]) {
    let found = manifest(file);
    for (pointer, value) in expected {
        assert_eq!(at(&found, pointer), value, "{pointer} of {file}");
    }
}

/// What `make` would run, one command a line, without running it.
fn make_dry_run(arguments: &[&str]) -> String {
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

/// The version that follows `prefix` in `text`, up to a space or slash.
fn version_after<'a>(text: &'a str, prefix: &str) -> &'a str {
    let (_, rest) = text
        .split_once(prefix)
        .unwrap_or_else(|| panic!("there is no {prefix:?} in {text}"));
    rest.split([' ', '/', ';', '\n'])
        .next()
        .expect("split yields at least one part")
}

/// The bodies of the README's fenced blocks of one language.
fn readme_blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let readme = read("README.md");
    readme
        .split(&fence)
        .skip(1)
        .map(|rest| {
            let (block, _) = rest.split_once("\n```").expect("every fence is closed");
            block.to_owned()
        })
        .collect()
}

/// The words that follow `marker` in `text`: names of targets after `make `, say.
fn words_after<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
    text.split(marker)
        .skip(1)
        .map(|rest| {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
                .unwrap_or(rest.len());
            &rest[..end]
        })
        .filter(|word| !word.is_empty())
        .collect()
}

fn workflows() -> Vec<(String, String)> {
    let mut found: Vec<_> = fs::read_dir(Path::new(ROOT).join(".github/workflows"))
        .expect(".github/workflows is a folder")
        .map(|entry| {
            let name = entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8");
            let text = read(&format!(".github/workflows/{name}"));
            (name, text)
        })
        .collect();
    found.sort();
    assert_eq!(
        found
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["ci.yaml", "e2e.yaml", "release.yaml"]
    );
    found
}

#[test]
fn the_app_can_be_autoscaled_by_cpu() {
    assert_all(
        APP,
        &[
            ("/apiVersion", json!("core.spinkube.dev/v1alpha1")),
            ("/kind", json!("SpinApp")),
            ("/metadata", json!({"name": "keda-spinapp"})),
            ("/spec/image", json!("ttl.sh/cpu-load-gen:1h")),
            ("/spec/executor", json!("containerd-shim-spin")),
            ("/spec/enableAutoscaling", json!(true)),
            (
                "/spec/resources",
                json!({
                    "limits": {"cpu": "500m", "memory": "500Mi"},
                    "requests": {"cpu": "100m", "memory": "400Mi"},
                }),
            ),
            (
                "/spec/checks/liveness/httpGet/path",
                json!("/.well-known/spin/health"),
            ),
            (
                "/spec/checks/readiness/httpGet/path",
                json!("/.well-known/spin/health"),
            ),
        ],
    );
    assert_eq!(
        manifest(APP).pointer("/spec/replicas"),
        None,
        "Spin Operator refuses replicas together with enableAutoscaling"
    );
}

#[test]
fn the_app_sets_variables_that_the_component_has() {
    let app = manifest(APP);
    let spin: toml::Table = read("spin.toml").parse().expect("spin.toml parses");
    let variables = at(&app, "/spec/variables").as_array().expect("a list");
    for variable in variables {
        let name = text_at(variable, "/name");
        assert!(
            spin["variables"].get(name).is_some(),
            "spin.toml has no variable {name}"
        );
    }
    let variable = |name| {
        variables
            .iter()
            .find(|variable| variable["name"] == name)
            .unwrap_or_else(|| panic!("{APP} does not set {name}"))
    };
    assert_eq!(
        text_at(variable("load"), "/value"),
        spin["variables"]["load"]["default"]
            .as_str()
            .expect("a string"),
        "the load to change is at first the default"
    );
    assert_eq!(
        text_at(variable("replica"), "/valueFrom/fieldRef/fieldPath"),
        "metadata.name"
    );
}

#[test]
fn the_scaled_object_keeps_cpu_at_half_of_the_request() {
    assert_all(
        SCALED_OBJECT,
        &[
            ("/apiVersion", json!("keda.sh/v1alpha1")),
            ("/kind", json!("ScaledObject")),
            ("/metadata", json!({"name": "cpu-scaling"})),
            (
                "/spec/scaleTargetRef/name",
                at(&manifest(APP), "/metadata/name").clone(),
            ),
            ("/spec/minReplicaCount", json!(1)),
            ("/spec/maxReplicaCount", json!(20)),
            (
                "/spec/triggers",
                json!([{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}}]),
            ),
        ],
    );
}

#[test]
fn the_hpa_scales_as_the_scaled_object_does() {
    let scaled_object = manifest(SCALED_OBJECT);
    let target: u32 = text_at(&scaled_object, "/spec/triggers/0/metadata/value")
        .parse()
        .expect("a number");
    assert_all(
        HPA,
        &[
            ("/apiVersion", json!("autoscaling/v2")),
            ("/kind", json!("HorizontalPodAutoscaler")),
            (
                "/metadata/name",
                at(&scaled_object, "/metadata/name").clone(),
            ),
            (
                "/spec/scaleTargetRef",
                json!({
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": at(&scaled_object, "/spec/scaleTargetRef/name"),
                }),
            ),
            (
                "/spec/minReplicas",
                at(&scaled_object, "/spec/minReplicaCount").clone(),
            ),
            (
                "/spec/maxReplicas",
                at(&scaled_object, "/spec/maxReplicaCount").clone(),
            ),
            (
                "/spec/metrics",
                json!([{
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}},
                }]),
            ),
        ],
    );
}

#[test]
fn the_ingress_leads_to_the_service_of_the_app() {
    assert_all(
        INGRESS,
        &[
            ("/apiVersion", json!("networking.k8s.io/v1")),
            ("/kind", json!("Ingress")),
            (
                "/spec/rules",
                json!([{"http": {"paths": [{
                    "path": "/",
                    "pathType": "Prefix",
                    "backend": {"service": {
                        "name": at(&manifest(APP), "/metadata/name"),
                        "port": {"number": 80},
                    }},
                }]}}]),
            ),
        ],
    );
}

#[test]
fn no_manifest_names_a_namespace() {
    for file in [APP, SCALED_OBJECT, HPA, INGRESS] {
        assert_eq!(
            manifest(file).pointer("/metadata/namespace"),
            None,
            "{file}: `make deploy NAMESPACE=…` chooses it"
        );
    }
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
    let image = |image: &str| format!(r#"{{"spec":{{"image":"{image}"}}}}"#);
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
}

#[test]
fn make_loads_what_the_readme_says() {
    let command = "bombardier -c 40 -t 5s -d 3m http://localhost:8081";
    assert!(make_dry_run(&["load"]).contains(command));
    assert!(read("README.md").contains(command));
    assert!(make_dry_run(&["cluster"]).contains("8081:80@loadbalancer"));
}

#[test]
fn the_readme_installs_the_versions_of_the_makefile() {
    let commands = make_dry_run(&["cluster"]);
    let image = version_after(
        &commands,
        "--image ghcr.io/spinframework/containerd-shim-spin/k3d:",
    );
    let cert_manager = version_after(&commands, "charts/cert-manager --version ");
    let operator = version_after(&commands, "charts/spin-operator --version ");
    let keda = version_after(&commands, "upgrade --install keda keda --version ");
    assert_eq!(
        [image, cert_manager, operator, keda],
        ["v0.24.0", "v1.20.0", "0.6.1", "2.20.2"]
    );

    let readme = read("README.md");
    for expected in [
        format!("ghcr.io/spinframework/containerd-shim-spin/k3d:{image}"),
        format!("oci://quay.io/jetstack/charts/cert-manager --version {cert_manager}"),
        format!("oci://ghcr.io/spinframework/charts/spin-operator --version {operator}"),
        format!("--repo https://kedacore.github.io/charts --version {keda}"),
    ] {
        assert!(readme.contains(&expected), "the README lacks {expected}");
    }
    for asset in ["runtime-class", "crds", "shim-executor"] {
        let url = format!(
            "https://github.com/spinframework/spin-operator/releases/download/v{operator}/spin-operator.{asset}.yaml"
        );
        assert!(commands.contains(&url), "make cluster lacks {url}");
        assert!(readme.contains(&url), "the README lacks {url}");
    }
    let makefile = read("Makefile");
    for version in [image, cert_manager, operator, keda] {
        assert_eq!(
            makefile.matches(version).count(),
            1,
            "{version} stands once in the Makefile"
        );
    }
}

#[test]
fn the_readme_names_files_targets_and_objects_that_exist() {
    let readme = read("README.md");
    let makefile = read("Makefile") + &read("autoscale.mk");
    let mut files = 0;
    for name in words_after(&readme, "config/samples/") {
        let file = format!("config/samples/{name}.yaml");
        assert!(
            Path::new(ROOT).join(&file).exists(),
            "the README names {file}"
        );
        files += 1;
    }
    assert!(files > 0);

    let mut targets = words_after(&readme, "`make ");
    let consoles = readme_blocks("console").join("\n");
    let lines = format!("\n{consoles}");
    targets.extend(words_after(&lines, "\nmake "));
    for target in &targets {
        assert!(
            makefile
                .lines()
                .any(|line| line.starts_with(&format!("{target}:"))),
            "the README says `make {target}`, which the Makefile does not have"
        );
    }
    for target in [
        "cluster",
        "push",
        "deploy",
        "watch",
        "load",
        "undeploy",
        "cluster-delete",
    ] {
        assert!(
            targets.contains(&target),
            "the README does not walk through `make {target}`"
        );
    }

    let app = manifest(APP);
    for name in [
        text_at(&app, "/metadata/name"),
        text_at(&app, "/spec/image"),
        text_at(&app, "/spec/executor"),
    ] {
        assert!(readme.contains(name), "the README does not mention {name}");
    }
}

#[test]
fn the_readme_counts_with_the_numbers_of_the_manifests() {
    let app = manifest(APP);
    let hpa = manifest(HPA);
    let limit = millicores(&app, "/spec/resources/limits/cpu");
    let request = millicores(&app, "/spec/resources/requests/cpu");
    let target = at(&hpa, "/spec/metrics/0/resource/target/averageUtilization");
    let utilisation = 100 * limit / request;
    let desired = utilisation
        .div_ceil(u32::try_from(target.as_u64().expect("a number")).expect("it is small"));
    let maximum = at(&hpa, "/spec/maxReplicas");
    let readme = read("README.md");
    for expected in [
        format!(
            "uses all of its limit, {limit}m, and requested {request}m of it: {utilisation} % where {target} % is wanted"
        ),
        format!("ceil(1 × {utilisation} ÷ {target}) = {desired}"),
        format!("the maximum of {maximum}"),
    ] {
        assert!(readme.contains(&expected), "the README lacks: {expected}");
    }
}

#[test]
fn the_readme_doubles_with_both_autoscalers() {
    let blocks: Vec<_> = readme_blocks("yaml")
        .iter()
        .map(|block| parse(block, "a block of the README"))
        .collect();
    let doubling =
        json!({"scaleUp": {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}});
    for pointer in [
        "/spec/behavior",
        "/spec/advanced/horizontalPodAutoscalerConfig/behavior",
    ] {
        assert!(
            blocks
                .iter()
                .any(|block| block.pointer(pointer) == Some(&doubling)),
            "no block of the README has {doubling} at {pointer}"
        );
    }
}

#[test]
fn nothing_retired_is_left() {
    let mut texts: Vec<_> = [APP, SCALED_OBJECT, HPA, INGRESS, "Makefile", "README.md"]
        .map(|file| (file.to_owned(), read(file)))
        .into();
    texts.extend(workflows());
    for (name, text) in texts {
        for retired in [
            "apiVapiVersion",
            "core.spinoperator.dev",
            "deislabs",
            "ghcr.io/spinkube/",
        ] {
            assert!(!text.contains(retired), "{name} has {retired}");
        }
    }
}

#[test]
fn the_workflows_are_pinned_and_may_do_little() {
    let cargo: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml parses");
    let rust = cargo["workspace"]["package"]["rust-version"]
        .as_str()
        .expect("a string");
    let makefile = read("Makefile");
    for (name, text) in workflows() {
        let workflow = parse(&text, &name);
        assert_eq!(
            at(&workflow, "/permissions"),
            &json!({"contents": "read"}),
            "{name}"
        );
        assert!(
            text_at(&workflow, "/env/RUSTUP_TOOLCHAIN").starts_with(rust),
            "{name} builds with the rust-version of Cargo.toml"
        );
        for line in text.lines().filter(|line| line.contains("uses:")) {
            let pinned = line
                .split_once('@')
                .and_then(|(_, pin)| pin.split_once(" # v"))
                .is_some_and(|(commit, _)| {
                    commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit())
                });
            assert!(
                pinned,
                "{name}: not pinned to a commit, with its version behind: {line}"
            );
        }
        for marker in ["run: make ", "          make "] {
            for target in words_after(&text, marker) {
                assert!(
                    makefile
                        .lines()
                        .any(|line| line.starts_with(&format!("{target}:"))),
                    "{name} runs `make {target}`, which the Makefile does not have"
                );
            }
        }
        for (job_name, job) in at(&workflow, "/jobs").as_object().expect("a map") {
            assert!(
                job.get("timeout-minutes").is_some(),
                "{name}: {job_name} has no time limit"
            );
        }
    }
}

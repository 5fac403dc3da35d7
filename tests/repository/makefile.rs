//! The Makefile and its scripts: they call the right programs, in the right order, with the given
//! values.

use super::{APP, HPA, INGRESS, SCALED_OBJECT, manifest, programs::Programs, read, text_at};
use std::{collections::HashMap, fs, os::unix::fs::symlink};

/// A value that a shell would split or run if it were not quoted.
const ODD: &str = "a b&c;d'e\"f*(g)";

#[test]
fn a_value_reaches_the_program_unchanged() {
    let programs = Programs::new("values");
    let url = "http://127.0.0.1:3000/?cpu=50m&duration=500ms";
    let tools = programs.path("my tools & more");
    symlink("bin", &tools).expect("created");
    for (target, variable, value, call) in [
        ("load", "URL", url, "bombardier"),
        ("load", "URL", ODD, "curl"),
        ("load", "DURATION", ODD, "bombardier"),
        ("watch", "URL", url, "cargo run"),
        ("watch", "OUTPUT", ODD, "cargo run"),
        ("watch", "EXPECT", ODD, "cargo run"),
        ("autoscale", "URL", url, "cargo run"),
        ("autoscale", "NAMESPACE", ODD, "cargo run"),
        ("hold", "REPLICAS", ODD, "cargo run"),
        ("explain", "RECORDING", ODD, "cargo run"),
        ("deploy", "NAMESPACE", ODD, "kubectl --namespace"),
        ("undeploy", "NAMESPACE", ODD, "kubectl --namespace"),
        ("cluster", "CLUSTER", ODD, "k3d cluster create"),
        ("push", "IMAGE", ODD, "spin registry push"),
        ("run", "LISTEN", ODD, "spin up"),
        ("bench", "CASES", ODD, "cargo run"),
    ] {
        let run = programs.make(&[target, &format!("{variable}={value}")]);
        assert!(
            run.call(call).iter().any(|argument| argument == value),
            "make {target} {variable}={value}:\n{run}"
        );
    }
    let run = programs.make(&["run", &format!("SPIN={tools}/spin")]);
    assert!(run.success && run.has_call("spin up"), "{run}");
}

#[test]
fn make_load_passes_if_the_app_responds_with_2xx_alone() {
    let report = |good: u32, others: u32| {
        let counts = format!("2xx - {good}, 3xx - 0, 4xx - 0, 5xx - 0, others - {others}");
        format!("bombardier*) echo '1xx - 0, {counts}'; exit ;;")
    };
    let status = |code: &str| format!("curl*) echo {code}; exit ;;");
    let rejected = "curl*' --head '*) echo 400; exit ;; curl*) echo a reason; exit ;;";
    // A GET would run the load of the URL.
    let paced = "curl*' --head '*) echo 200; exit ;; curl*) exit 28 ;;";
    // The answers, whether traffic is sent, and the reason for a failure; empty if it passes.
    for (answers, is_sent, reason) in [
        (report(14517, 0), true, ""),
        (report(14517, 3), true, "3 of 14520 requests"),
        (report(0, 0), true, "0 of 0 requests"),
        ("bombardier*) echo no; exit ;;".into(), true, "no counts"),
        (status("404"), false, "404"),
        (status("308"), false, "308"),
        (status("000"), false, "000"),
        (rejected.into(), false, "a reason"),
        (paced.into(), true, ""),
    ] {
        let run = Programs::answering("load", &answers).make(&["load"]);
        assert_eq!(run.has_call("bombardier"), is_sent, "{run}");
        assert_eq!(run.success, reason.is_empty(), "{run}");
        assert!(run.stderr.contains(reason), "{run}");
    }
}

#[test]
fn settings_may_come_from_the_environment_in_every_locale() {
    let url = "http://127.0.0.1:3000/[1-2]{a,b}*";
    let environment = [
        ("URL", url),
        ("CONNECTIONS", "7"),
        ("DURATION", "9s"),
        ("LC_ALL", "de_DE.UTF-8"),
    ];
    let mut programs = Programs::answering("environment", "bombardier*) echo \"in $LC_ALL\" ;;");
    programs.environment = environment.to_vec();
    let run = programs.make(&["load"]);
    assert!(run.success && run.stdout.contains("in C\n"), "{run}");
    let first = format!("Loading {url} with 7 connections for 9s");
    assert!(run.stdout.starts_with(&first), "{run}");
    run.position(&format!("-c 7 -t 5s -d 9s {url}"));
    // The check takes the way of bombardier, which knows neither patterns nor proxies.
    let check = run.call("curl").join(" ");
    assert!(
        check.contains("--globoff") && check.contains("--noproxy *"),
        "{run}"
    );
}

#[test]
fn the_login_of_a_url_is_sent() {
    let url = "URL=http://a%20b:c%3A%5Cd@localhost:8081/";
    for (target, call) in [("load", "bombardier"), ("autoscale", "cargo run")] {
        let run = Programs::new("login").make(&[target, url]);
        // From Python: `base64.b64encode(rb"a b:c:\d")`.
        let header = "Authorization: Basic YSBiOmM6XGQ=".to_owned();
        assert!(run.call(call).contains(&header), "{run}");
    }
    let run = Programs::new("login").make(&["hold", "REPLICAS=2", url]);
    assert!(!run.success && run.stderr.contains("login"), "{run}");
}

#[test]
fn another_program_named_spin_is_not_used() {
    let checker = "spin*) echo 'Spin Version 6.5.2 -- 6 December 2019'; exit ;;";
    let programs = Programs::answering("model-checker", checker);
    let run = programs.make(&["run"]);
    assert!(
        run.stdout.contains("is not Spin but another program"),
        "{run}"
    );
    run.position("cargo run --locked --package embedded-host");

    for spin in ["./nope", "/nope/spin", programs.path("bin/spin").as_str()] {
        for target in ["run", "push", "test-spin"] {
            let run = programs.make(&[target, &format!("SPIN={spin}")]);
            assert!(
                !run.success && run.stderr.contains(&format!("`SPIN` is \"{spin}\"")),
                "{run}"
            );
            assert!(!run.has_call("embedded-host"), "{run}");
        }
    }
}

#[test]
fn make_deploys_the_manifests_and_deletes_them() {
    let programs = Programs::new("deploy");
    for (autoscaler, scaler, hpa) in [
        ("keda", SCALED_OBJECT, "hpa/keda-hpa-cpu-scaling"),
        ("hpa", HPA, "hpa/cpu-scaling"),
    ] {
        let run = programs.make(&["deploy", &format!("AUTOSCALER={autoscaler}")]);
        assert!(run.success, "{run}");
        // The Deployment comes before its autoscaler.
        run.assert_order(&[
            "patch --local",
            "--for=create deployment/keda-spinapp",
            "--for=jsonpath={.metadata.annotations.cpu-load-gen/deployed}=",
            "rollout status deployment/keda-spinapp",
            &format!("apply -f {scaler}"),
            &format!("--for=condition=ScalingActive {hpa}"),
        ]);
        run.position(&format!("apply -f {INGRESS}"));
    }
    let run = programs.make(&["undeploy"]);
    assert!(run.success, "{run}");
    for file in [APP, SCALED_OBJECT, HPA, INGRESS] {
        run.position(&format!("-f {file}"));
    }
    run.position("delete secrets --selector cpu-load-gen/runtime-config=keda-spinapp");
}

#[test]
fn make_deploys_the_image_and_the_runtime_config_that_it_is_given() {
    let image = |image: &str| format!(r#""image":"{image}""#);
    let programs = Programs::new("image");
    let default = manifest(APP);
    let default = text_at(&default, "/spec/image");
    let run = programs.make(&["deploy"]);
    run.position(&image(default));
    assert!(run.success && !run.has_call("loadFromSecret"), "{run}");
    programs.make(&["push"]).position(default);

    let digest = format!("ghcr.io/someone/cpu-load-gen@sha256:{}", "0".repeat(64));
    let file = programs.path(&format!("{ODD}.toml"));
    fs::write(&file, "").expect("written");
    let settings = [format!("IMAGE={digest}"), format!("RUNTIME_CONFIG={file}")];
    let run = programs.make(&["deploy", &settings[0], &settings[1]]);
    run.position(&image(&digest));
    let secret = r#""loadFromSecret":"keda-spinapp-runtime-config-hash""#;
    assert!(run.success && run.has_call(secret), "{run}");
}

#[test]
fn make_deploy_prints_why_the_app_is_not_ready() {
    let answers = "
        *'rollout status'*) exit 1 ;;
        *'get deployment/keda-spinapp --output go-template'*)
            echo 'Deployment: Available=True: as wanted'
            echo 'Deployment: ReplicaFailure=True: exceeded quota'
            exit ;;
        *'get spinapps,deployments,pods,hpa,scaledobjects'*) echo 'a1 b2 c3'; exit ;;
        *'get events'*)
            echo 'a1  Pod  keda-spinapp-1  Failed  cannot pull'
            echo 'b2  HorizontalPodAutoscaler  keda-hpa-cpu-scaling  Failed  no metrics'
            echo 'c3  Pod  another-1  Failed  nothing to do with it'
            echo 'd4  Pod  keda-spinapp-0  Failed  long gone'
            exit ;;";
    let run = Programs::answering("reason", answers).make(&["deploy"]);
    assert!(!run.success, "{run}");
    for (part, said) in [
        ("exceeded quota", true),
        ("Pod  keda-spinapp-1  Failed  cannot pull", true),
        ("no metrics", true),
        ("as wanted", false),
        ("nothing to do with it", false),
        ("long gone", false),
    ] {
        assert_eq!(run.stderr.contains(part), said, "{part}:\n{run}");
    }
    // An app that is ready has no failed start.
    let run = Programs::answering("address", "curl*) exit 7 ;;").make(&["deploy"]);
    assert!(!run.success && run.has_call("curl"), "{run}");
    assert!(!run.stderr.contains("is not ready"), "{run}");
}

#[test]
fn another_autoscaler_of_the_app_is_named_with_its_removal() {
    let answers = "*'get hpa,scaledobjects'*)
        echo 'HorizontalPodAutoscaler  cpu-scaling           Deployment  keda-spinapp  <none>'
        echo 'HorizontalPodAutoscaler  keda-hpa-cpu-scaling  Deployment  keda-spinapp  ScaledObject'
        echo 'HorizontalPodAutoscaler  elsewhere             Deployment  another       <none>'
        echo 'HorizontalPodAutoscaler  by-hand               Deployment  keda-spinapp  <none>'
        echo 'ScaledObject             second                <none>      keda-spinapp  <none>'
        exit ;;";
    let expected = "
  kubectl delete hpa/by-hand --namespace default
  kubectl delete scaledobject/second --namespace default
";
    let programs = Programs::answering("others", answers);
    for autoscaler in ["keda", "hpa"] {
        let run = programs.make(&["deploy", &format!("AUTOSCALER={autoscaler}")]);
        assert!(!run.success && run.stderr.contains(expected), "{run}");
        assert!(!run.has_call("apply"), "{run}");
    }
    let run = programs.make(&["undeploy"]);
    assert!(run.success && run.stdout.contains(expected), "{run}");
}

#[test]
fn a_paused_scaled_object_is_not_deployed() {
    // (paused-replicas, paused), as KEDA reads them; it is paused
    for (replicas, value, paused) in [
        ("", "", false),
        ("", "false", false),
        ("", "true", true),
        ("", "yes", true),
        ("0", "", true),
        ("3", "false", true),
    ] {
        let annotations = format!("echo '{replicas} {value}'; exit ;;");
        let answers = format!("*'get scaledobject/cpu-scaling --ignore'*) {annotations}");
        let run = Programs::answering("paused", &answers).make(&["deploy"]);
        assert_eq!(run.has_call("apply"), !paused, "{run}");
        let remedy = "autoscaling.keda.sh/paused- autoscaling.keda.sh/paused-replicas-";
        assert_eq!(run.stderr.contains(remedy), paused, "{run}");
    }
}

#[test]
fn make_cluster_installs_the_versions_of_versions_env() {
    let file = read("scripts/versions.env");
    let versions: HashMap<_, _> = file
        .lines()
        .filter_map(|line| line.split_once("_VERSION="))
        .collect();
    let operator = versions["SPIN_OPERATOR"];
    for (with, shim) in [
        ("k3d", versions["K3D_SHIM"]),
        ("kind", versions["KIND_SHIM"]),
    ] {
        let run = Programs::new("cluster").make(&["cluster", &format!("CLUSTER_WITH={with}")]);
        assert!(run.success, "{run}");
        run.assert_order(&[
            &format!("containerd-shim-spin/{with}:{shim}"),
            &format!("cert-manager --version {}", versions["CERT_MANAGER"]),
            &format!("v{operator}/spin-operator.runtime-class.yaml"),
            &format!("v{operator}/spin-operator.crds.yaml"),
            &format!("charts/spin-operator --version {operator}"),
            &format!("v{operator}/spin-operator.shim-executor.yaml"),
            &format!("kedacore.github.io/charts --version {}", versions["KEDA"]),
        ]);
    }
}

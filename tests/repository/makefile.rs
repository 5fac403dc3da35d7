//! The Makefile and its scripts: they call the right programs, in the right order, with the given values.

use super::{
    APP, HPA, INGRESS, SCALED_OBJECT, documents::all_documents, manifest, programs::Programs, read,
    text_at,
};
use std::{fs, path::Path};

/// A value that a shell would split or run if it were not quoted.
const ODD: &str = "a b&c;d'e\"f*(g)";

pub fn text() -> String {
    read("Makefile")
}

pub fn has_target(name: &str) -> bool {
    text()
        .lines()
        .any(|line| line.starts_with(&format!("{name}:")))
}

#[test]
fn a_value_reaches_the_program_unchanged() {
    let programs = Programs::new("values");
    let url = "http://127.0.0.1:3000/?cpu=50m&duration=500ms";
    let spin = programs.path("my tools & more/spin");
    programs.install("my tools & more/spin");
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
    let run = programs.make(&["run", &format!("SPIN={spin}")]);
    assert!(run.success && run.has_call("spin up"), "{run}");
}

#[test]
fn no_target_runs_a_value() {
    let programs = Programs::new("injection");
    let ran = programs.path("ran");
    let makefile = text();
    let names = |prefix: &str, end: fn(char) -> bool| -> Vec<String> {
        makefile
            .lines()
            .filter_map(|line| line.strip_prefix(prefix))
            .map(|rest| rest.split(end).next().unwrap_or(rest).to_owned())
            .collect()
    };
    let variables = names("export ", |c| c == ' ');
    // The rest take no more than FOR and SPIN, and run what they built.
    let left_out = ["soak", "fuzz-http", "reproducible"];
    let targets = names(".PHONY: ", |_| false);
    assert!(variables.len() > 10 && targets.len() > 10);
    for value in [
        format!("'; touch {ran}; '"),
        format!("\"; touch {ran} & $(touch {ran})"),
    ] {
        let settings: Vec<String> = variables
            .iter()
            .map(|name| format!("{name}={}", value.replace('$', "$$")))
            .collect();
        for target in targets
            .iter()
            .filter(|target| !left_out.contains(&target.as_str()))
        {
            let mut arguments = vec![target.as_str()];
            arguments.extend(settings.iter().map(String::as_str));
            let run = programs.make(&arguments);
            assert!(!Path::new(&ran).exists(), "make {target}:\n{run}");
        }
    }
}

#[test]
fn make_load_runs_the_command_of_the_documents() {
    let load = "bombardier -c 40 -t 5s -d 3m http://localhost:8081";
    assert!(all_documents().contains(load));
    let run = Programs::new("tutorial").make(&["load"]);
    assert!(run.success, "{run}");
    let call = run.call("bombardier");
    let (_, words) = load.split_once(' ').expect("words");
    let words: Vec<_> = words.split(' ').collect();
    assert_eq!(call[call.len() - words.len()..], words);
}

#[test]
fn a_load_passes_with_2xx_alone() {
    const GOOD: &str = "1xx - 0, 2xx - 14517, 3xx - 0, 4xx - 0, 5xx - 0, others - 0";
    let load = |report: &str| {
        let answers = format!("case $call in bombardier*) echo '{report}'; exit ;; esac");
        Programs::answering("counts", &answers).make(&["load"])
    };
    let run = load(GOOD);
    assert!(run.success, "{run}");
    for (report, expected) in [
        (
            GOOD.replace("others - 0", "others - 3"),
            "3 of 14520 requests",
        ),
        (
            "1xx - 0, 2xx - 90, 3xx - 1, 4xx - 2, 5xx - 7, others - 0".to_owned(),
            "10 of 100 requests",
        ),
        (
            "1xx - 0, 2xx - 0, 3xx - 0, 4xx - 0, 5xx - 0, others - 0".to_owned(),
            "0 of 0 requests",
        ),
        ("another form".to_owned(), "no counts"),
    ] {
        let run = load(&report);
        assert!(!run.success && run.stderr.contains(expected), "{run}");
    }
}

#[test]
fn make_load_counts_the_responses_that_took_longer_than_the_timeout() {
    let report = "  Above the timeout    from p99.97 on\n 1xx - 0, 2xx - 16076, 3xx - 0, 4xx - 0, 5xx - 0, others - 0";
    let answers = format!("case $call in bombardier*) echo '{report}'; exit ;; esac");
    let run = Programs::answering("late", &answers).make(&["load"]);
    // The rank of p99.97 is 16071: that one and the 5 behind it.
    assert!(
        run.success
            && run
                .stdout
                .contains("6 of 16076 requests took longer than the timeout of 5s"),
        "{run}"
    );
}

#[test]
fn make_load_sends_no_traffic_if_the_app_does_not_respond() {
    for status in ["404", "308", "000"] {
        let answers = format!("case $call in curl*) echo {status}; exit ;; esac");
        let run = Programs::answering("status", &answers).make(&["load"]);
        assert!(!run.success && run.stderr.contains(status), "{run}");
        assert!(!run.has_call("bombardier"), "{run}");
    }
}

#[test]
fn make_load_does_not_wait_for_the_load_of_its_url() {
    let answers =
        "case $call in curl*) [[ $call == *' --head '* ]] || exit 28; echo 200; exit ;; esac";
    let url = "URL=http://localhost:8081/?cpu=20m&duration=10m";
    let run = Programs::answering("paced", answers).make(&["load", url]);
    assert!(run.success && run.has_call("bombardier"), "{run}");
}

#[test]
fn another_program_named_spin_is_not_used() {
    let checker = "case $call in spin*) echo 'Spin Version 6.5.2 -- 6 December 2019'; exit ;; esac";
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
                !run.success && run.stderr.contains(&format!("SPIN is '{spin}'")),
                "{run}"
            );
            assert!(!run.has_call("embedded-host"), "{run}");
        }
    }
}

#[test]
fn make_deploys_the_manifests() {
    for (autoscaler, scaler, hpa) in [
        ("keda", SCALED_OBJECT, "hpa/keda-hpa-cpu-scaling"),
        ("hpa", HPA, "hpa/cpu-scaling"),
    ] {
        let run = Programs::new("deploy").make(&["deploy", &format!("AUTOSCALER={autoscaler}")]);
        assert!(run.success, "{run}");
        let order = [
            "patch --local",
            "--for=create deployment/keda-spinapp",
            "--for=jsonpath={.metadata.annotations.cpu-load-gen/deployed}=",
            "rollout status deployment/keda-spinapp",
            &format!("apply -f {scaler}"),
            &format!("--for=condition=ScalingActive {hpa}"),
        ]
        .map(|part| run.position(part));
        assert!(
            order.is_sorted(),
            "the Deployment comes before its autoscaler:\n{run}"
        );
        run.position(&format!("apply -f {INGRESS}"));
    }
}

#[test]
fn make_deploys_the_image_of_the_manifest_unless_given_another() {
    let image = |image: &str| format!(r#""image":"{image}""#);
    let programs = Programs::new("image");
    let default = manifest(APP);
    let default = text_at(&default, "/spec/image");
    programs.make(&["deploy"]).position(&image(default));
    programs.make(&["push"]).position(default);

    let digest = format!("ghcr.io/someone/cpu-load-gen@sha256:{}", "0".repeat(64));
    let run = programs.make(&["deploy", &format!("IMAGE={digest}")]);
    run.position(&image(&digest));
}

#[test]
fn make_deploy_prints_why_the_app_is_not_ready() {
    let answers = "case $call in
        *'rollout status'*) exit 1 ;;
        *'get deployment/keda-spinapp --output go-template'*)
            echo 'Deployment: Available=True: as wanted'
            echo 'Deployment: ReplicaFailure=True: exceeded quota'
            exit ;;
        *'get events'*)
            echo 'Pod   keda-spinapp-1   Failed   cannot pull'
            echo 'Pod   another-1        Failed   nothing to do with it'
            exit ;;
        esac";
    let run = Programs::answering("reason", answers).make(&["deploy"]);
    assert!(!run.success, "{run}");
    for (part, said) in [
        ("exceeded quota", true),
        ("cannot pull", true),
        ("as wanted", false),
        ("nothing to do with it", false),
    ] {
        assert_eq!(run.stderr.contains(part), said, "{part}:\n{run}");
    }
}

#[test]
fn an_app_that_is_ready_has_no_failed_start() {
    let answers = "case $call in curl*) exit 7 ;; esac";
    let run = Programs::answering("address", answers).make(&["deploy"]);
    assert!(!run.success && run.has_call("curl"), "{run}");
    assert!(!run.stderr.contains("is not ready"), "{run}");
}

#[test]
fn make_deletes_everything_that_it_deployed() {
    let run = Programs::new("undeploy").make(&["undeploy"]);
    assert!(run.success, "{run}");
    for file in [APP, SCALED_OBJECT, HPA, INGRESS] {
        run.position(&format!("-f {file}"));
    }
    run.position("delete secrets --selector cpu-load-gen/runtime-config=keda-spinapp");
}

#[test]
fn make_deploys_a_runtime_config_only_if_given_one() {
    let secret = r#""loadFromSecret":"keda-spinapp-runtime-config-hash""#;
    let programs = Programs::new("runtime-config");
    let file = programs.path(&format!("{ODD}.toml"));
    fs::write(&file, "").expect("written");
    let run = programs.make(&["deploy", &format!("RUNTIME_CONFIG={file}")]);
    assert!(run.success && run.has_call(secret), "{run}");
    let run = programs.make(&["deploy"]);
    assert!(run.success && !run.has_call("loadFromSecret"), "{run}");
}

/// Both name the file of spin.toml, and both ignore the flags of the account.
#[test]
fn make_and_spin_build_the_component_alike() {
    let spin: toml::Table = read("spin.toml").parse().expect("TOML");
    let build = spin["component"]["cpu-load-gen"]["build"]["command"]
        .as_str()
        .expect("a command");
    assert!(text().contains(&format!("BUILD := {build}\n")), "{build}");
}

//! The recorder against a fake API server: its output, its files and its exit status.

mod common;
mod fake;

use std::{
    env, fs,
    io::{self, Write},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command},
    time::{sleep, timeout},
};

use crate::{
    common::{deployment, event, hpa, object},
    fake::{AUTOSCALERS, DEPLOYMENTS, EVENTS, Fake, METRICS, PODS, folder},
};

const NAME: &str = "keda-spinapp";
/// The number of its watches: Deployments, pods, autoscalers and events.
const WATCHES: usize = 4;

/// One replica at rest.
async fn at_rest(test: &str) -> Arc<Fake> {
    let fake = without_metrics(test).await;
    fake.set(METRICS, object("pod-metrics"));
    fake
}

async fn without_metrics(test: &str) -> Arc<Fake> {
    let fake = Fake::start(test).await;
    fake.set(DEPLOYMENTS, deployment(1, 1));
    fake.set(AUTOSCALERS, hpa(1, 1, 2));
    fake.set(PODS, object("pod"));
    fake.set(
        EVENTS,
        event("earlier", "New size: 20; reason: an earlier deployment"),
    );
    fake
}

/// A running recorder, and its output so far.
struct Recorder {
    child: Child,
    errors: Lines<BufReader<ChildStderr>>,
    said: String,
}

fn recorder(fake: &Fake, test: &str, arguments: &[&str]) -> Recorder {
    recorder_with(fake, test, arguments, &[])
}

fn recorder_with(
    fake: &Fake,
    test: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Recorder {
    let (command, rest) = arguments.split_first().expect("a command comes first");
    let mut child = Command::new(env!("CARGO_BIN_EXE_recorder"))
        .args([command, "--output"])
        .arg(folder(test))
        .args(rest)
        .env("KUBECONFIG", &fake.kubeconfig)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the recorder is built");
    let errors = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    Recorder {
        child,
        errors,
        said: String::new(),
    }
}

impl Recorder {
    /// Waits until a line of the output contains this.
    async fn says(&mut self, text: &str) {
        while let Some(line) = self.errors.next_line().await.expect("it is text") {
            self.said += &format!("{line}\n");
            if line.contains(text) {
                return;
            }
        }
        panic!("it never said {text}: {}", self.said);
    }

    /// Its exit status, and its whole output.
    async fn ended(mut self) -> (Option<i32>, String) {
        while let Some(line) = self.errors.next_line().await.expect("it is text") {
            self.said += &format!("{line}\n");
        }
        let output = self
            .child
            .wait_with_output()
            .await
            .expect("it can be waited for");
        self.said += &String::from_utf8(output.stdout).expect("it is text");
        (output.status.code(), self.said)
    }
}

fn report(test: &str) -> Value {
    let text = fs::read(folder(test).join("autoscale.json")).expect("it was written");
    serde_json::from_slice(&text).expect("it is JSON")
}

#[tokio::test]
async fn a_scale_out_is_recorded_over_broken_connections() {
    let test = "scale-out";
    let fake = at_rest(test).await;
    let mut recorder = recorder(
        &fake,
        test,
        &[
            "watch",
            "--url",
            &format!("{}/app", fake.url),
            "--expect",
            "4",
        ],
    );
    fake.watched(WATCHES).await;
    fake.set(AUTOSCALERS, hpa(1, 4, 200));
    fake.set(DEPLOYMENTS, deployment(4, 1));
    fake.set(
        EVENTS,
        event("new", "New size: 4; reason: cpu above target"),
    );
    fake.break_watches();
    fake.set(AUTOSCALERS, hpa(4, 4, 52));
    fake.watched(2 * WATCHES).await;
    recorder
        .says("1 ready of 4, 4 wanted, CPU 52 % of 50 %")
        .await;
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let (status, text) = recorder.ended().await;
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains("4 ready of 4, 4 wanted, CPU 52 % of 50 %"),
        "{text}"
    );
    assert!(text.contains("As expected: 4 replicas ready"), "{text}");
    assert!(text.contains("New size: 4"), "{text}");
    assert!(!text.contains("an earlier deployment"), "{text}");
    let report = report(test);
    assert_eq!(report["decisions"][0]["computed_replicas"], 4);
    assert_eq!(report["decisions"][0]["constraints"], json!([]));
    assert_eq!(
        report["decisions"][1]["constraints"],
        json!([{"kind": "tolerance", "percent": 10}])
    );
    assert_eq!(report["verdict"]["outcome"], "as_expected");
    let rows = fs::read_to_string(folder(test).join("replicas.csv")).expect("it was written");
    assert!(
        rows.lines()
            .any(|row| row.contains(",deployment,4,4,4,52,50,,,")),
        "{rows}"
    );
    let svg = fs::read_to_string(folder(test).join("autoscale.svg")).expect("it was written");
    assert!(
        svg.contains("Scaling of keda-spinapp") && svg.contains("Latency of one request a second")
    );
    explained_as_recorded(&fake, test, &text).await;
}

/// A recording that is explained again gives the same report, without a cluster.
async fn explained_as_recorded(fake: &Fake, test: &str, text: &str) {
    let again = format!("{test}-again");
    let file = folder(test).join("observations.jsonl");
    let file = file.to_str().expect("it is text");
    fs::remove_file(&fake.kubeconfig).expect("it is there");
    let (status, said) = recorder(fake, &again, &["explain", file]).ended().await;
    assert_eq!(status, Some(0), "{said}");
    let (_, markdown) = said.split_once("## ").expect("it is reported");
    assert!(text.ends_with(markdown), "{text}\n is not \n{markdown}");
    for name in ["replicas.csv", "autoscale.json", "autoscale.svg"] {
        let read =
            |test: &str| fs::read_to_string(folder(test).join(name)).expect("it was written");
        assert_eq!(read(test), read(&again), "{name}");
    }
}

/// The example of the documentation. If a change of the report is intended, copy the new one.
#[tokio::test]
async fn the_report_of_the_example_is_the_one_in_the_repository() {
    let test = "example";
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let recording = fs::File::open(tests.join("../../../docs/autoscale.jsonl.gz"));
    let recording = flate2::read::GzDecoder::new(recording.expect("it is in the repository"));
    fs::create_dir_all(folder(test)).expect("the folder is writable");
    let file = folder(test).join("observations.jsonl");
    let mut copy = fs::File::create(&file).expect("the folder is writable");
    io::copy(&mut io::BufReader::new(recording), &mut copy).expect("it can be read");
    let explained = Command::new(env!("CARGO_BIN_EXE_recorder"))
        .args(["explain".as_ref(), file.as_os_str()])
        .output();
    let explained = explained.await.expect("the recorder is built");
    let (old, new) = (tests.join("report.md"), folder(test).join("report.md"));
    fs::write(&new, &explained.stdout).expect("the folder is writable");
    let is_same = fs::read(&old).is_ok_and(|old| old == explained.stdout);
    assert!(is_same, "see diff {} {}", old.display(), new.display());
}

#[tokio::test]
async fn a_recorder_that_is_killed_leaves_its_observations() {
    let test = "killed";
    let fake = at_rest(test).await;
    let mut recorder = recorder(&fake, test, &["watch", "--expect", "4"]);
    fake.watched(WATCHES).await;
    fake.set(AUTOSCALERS, hpa(1, 4, 200));
    recorder.says("CPU 200 % of 50 %").await;
    recorder.child.kill().await.expect("it runs");
    let file = folder(test).join("observations.jsonl");
    let mut lines = fs::OpenOptions::new().append(true).open(&file);
    let lines = lines.as_mut().expect("the file is there");
    write!(lines, "{{\"at\": 9, \"pod_gone\": \"").expect("it can be written");
    let explained = Command::new(env!("CARGO_BIN_EXE_recorder"))
        .args(["explain", "observations.jsonl"])
        .current_dir(folder(test))
        .output();
    let explained = explained.await.expect("the recorder is built");
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(explained.status.success(), "{text}");
    assert!(text.contains("200 % / 50 %"), "{text}");
    assert!(
        text.contains("Not observed: the recorder was killed or failed"),
        "{text}"
    );
    let report = report(test);
    assert_eq!(
        report["decisions"][0]["to_replicas"], 4,
        "beside the file by default"
    );
    assert_eq!(report["expected"], "4 replicas ready");
}

#[tokio::test]
async fn files_that_cannot_be_written_do_not_lose_the_observations() {
    let test = "unwritable";
    let fake = at_rest(test).await;
    fs::create_dir_all(folder(test).join("autoscale.svg")).expect("the folder is writable");
    let (status, text) = recorder(&fake, test, &["watch", "--for", "1s"])
        .ended()
        .await;
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("autoscale.svg cannot be written"), "{text}");
    let file = folder(test).join("observations.jsonl");
    let lines = fs::read_to_string(file).expect("it was written");
    let header: Value =
        serde_json::from_str(lines.lines().next().expect("a header")).expect("JSON");
    assert_eq!(header["verdict"]["outcome"], "as_expected");
    assert!(lines.lines().count() > 4, "{lines}");
}

#[tokio::test]
async fn invalid_lines_are_named() {
    let test = "unusable";
    let fake = Fake::start(test).await;
    let header = r#"{"began": "2026-01-01T00:00:00Z", "deployment": "a"}"#;
    for (content, named) in [
        ("{\"at\": 0}".to_string(), "the first line must be"),
        (
            format!("{header}\n{{\"at\": 0, \"pod_gone\": \"a\"}}\n{{\"at\": 1, \"cat\": 1}}"),
            "line 3: not an observation",
        ),
    ] {
        let file = folder(test).join("given.jsonl");
        fs::create_dir_all(folder(test)).expect("it can be made");
        fs::write(&file, content).expect("it can be written");
        let file = file.to_str().expect("it is text");
        let (status, said) = recorder(&fake, test, &["explain", file]).ended().await;
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(named), "{said}");
    }
}

#[tokio::test]
async fn no_secret_is_written() {
    let test = "secret";
    let fake = at_rest(test).await;
    let secret = "do-not-write";
    let secretive = |object: &mut Value, pod: &str| {
        object["metadata"]["annotations"] = json!({"last-applied": secret});
        object["metadata"]["managedFields"] = json!([{"manager": secret}]);
        let spec = object.pointer_mut(pod).expect("it has containers");
        let container = &mut spec["containers"][0];
        container["env"] = json!([{"name": "TOKEN", "value": secret}]);
        container["command"] = json!([secret]);
    };
    let mut pod = object("pod");
    secretive(&mut pod, "/spec");
    fake.set(PODS, pod);
    let mut deployment = deployment(1, 1);
    secretive(&mut deployment, "/spec/template/spec");
    fake.set(DEPLOYMENTS, deployment);
    let arguments = ["watch", "--for", "3s"];
    let (status, text) = recorder(&fake, test, &arguments).ended().await;
    assert_eq!(status, Some(0), "{text}");
    for name in ["observations.jsonl", "autoscale.json"] {
        let written = fs::read_to_string(folder(test).join(name)).expect("it was written");
        assert!(!written.contains(secret), "{name}: {written}");
    }
}

#[tokio::test]
async fn a_deleted_deployment_ends_the_recording_and_the_files_are_written() {
    let test = "deleted";
    let fake = at_rest(test).await;
    let recorder = recorder(&fake, test, &["watch", "--expect", "4"]);
    fake.watched(WATCHES).await;
    fake.delete(DEPLOYMENTS, NAME);
    let (status, text) = recorder.ended().await;
    assert_eq!(status, Some(2), "{text}");
    assert!(
        text.contains("Not observed: the Deployment `keda-spinapp` was deleted"),
        "{text}"
    );
    assert_eq!(report(test)["verdict"]["outcome"], "unobserved");
}

/// Commands that send traffic to one replica at rest: the exit status, and the last line.
#[tokio::test]
async fn the_exit_status_and_the_conclusion_agree() {
    let test = "conclusions";
    let fake = at_rest(test).await;
    let counted = r#"{"result":{"timeTakenSeconds":1,"req1xx":0,"req2xx":9,"req3xx":0,"req4xx":1,
        "req5xx":0,"others":0,"latency":{"mean":1,"max":2}}}"#;
    let flaky = format!("{}/flaky", fake.url);
    let cases = [
        (
            &["--expect", "1", "--", "true"][..],
            0,
            "As expected: 1 replica ready; already true before the traffic",
        ),
        (
            &["--expect", "4", "--", "sleep", "0.5"],
            1,
            "Not as expected: expected 4 replicas ready; the highest number was 1, after 0 s",
        ),
        (
            &["--expect", "1", "--", "echo", counted],
            1,
            "Not as expected: 1 of 10 requests of the traffic got no 2xx response; \
             the expectation was met: 1 replica ready; already true before the traffic",
        ),
        (
            &["--url", &flaky, "--", "sleep", "1.5"],
            1,
            "probes during the traffic got no 2xx response",
        ),
        (
            &["--", "no-such-command"],
            2,
            "Not observed: the traffic command `no-such-command` cannot be started: \
             No such file or directory (os error 2)",
        ),
        (
            &["--", "false"],
            2,
            "Not observed: the traffic command `false` failed: exit status: 1",
        ),
    ];
    let running = cases.iter().enumerate().map(|(index, (arguments, ..))| {
        let arguments = [&["run"], *arguments].concat();
        recorder(&fake, &format!("{test}-{index}"), &arguments)
    });
    let running: Vec<_> = running.collect();
    for (recorder, (arguments, expected, conclusion)) in running.into_iter().zip(cases) {
        let (status, text) = recorder.ended().await;
        assert_eq!(status, Some(expected), "{text}");
        assert!(text.trim_end().ends_with(conclusion), "{text}");
        let outages = text.matches("no 2xx response: 503").count();
        let expected = usize::from(arguments.contains(&&*flaky));
        assert_eq!(outages, expected, "{text}");
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_an_error() {
    let test = "errors";
    let fake = Fake::start(test).await;
    let (status, text) = recorder(&fake, test, &["watch"]).ended().await;
    assert_eq!(status, Some(2), "{text}");
    assert_eq!(
        text,
        "error: there is no Deployment `keda-spinapp` in namespace `default`: deploy the app first (`make deploy`)\n"
    );
    fake.set(DEPLOYMENTS, deployment(1, 1));
    fake.set(PODS, object("pod"));
    fake.set(AUTOSCALERS, hpa(1, 1, 2));
    let mut second = hpa(1, 1, 2);
    second["metadata"]["name"] = "second".into();
    fake.set(AUTOSCALERS, second);
    let (status, text) = recorder(&fake, test, &["run", "--", "true"]).ended().await;
    assert_eq!(status, Some(2), "{text}");
    assert_eq!(
        text,
        "error: several autoscalers target the Deployment, so that none of them acts: keda-hpa-cpu-scaling, second; \
         keep one of them\n"
    );
}

const UNSCALED: &str = "no autoscaler targets the Deployment: deploy one, or resume its ScaledObject if that is paused";

/// As when KEDA is paused and resumed.
#[tokio::test]
async fn an_autoscaler_that_goes_ends_traffic_and_is_a_note_otherwise() {
    let test = "unscaled";
    let fake = at_rest(test).await;
    let other = "unscaled-watch";
    let mut watch = recorder(&fake, other, &["watch", "--expect", "4"]);
    let run = recorder(&fake, test, &["run", "--", "sleep", "60"]);
    fake.watched(2 * WATCHES).await;
    fake.delete(AUTOSCALERS, "keda-hpa-cpu-scaling");
    watch.says("the autoscaler was deleted").await;
    watch.says("no autoscaler targets it").await;
    let (status, text) = run.ended().await;
    assert_eq!(status, Some(2), "{text}");
    assert!(
        text.ends_with(&format!("Not observed: {UNSCALED}\n\n")),
        "{text}"
    );
    let (status, text) = recorder(&fake, test, &["run", "--", "true"]).ended().await;
    assert_eq!((status, text), (Some(2), format!("error: {UNSCALED}\n")));

    fake.set(AUTOSCALERS, hpa(1, 4, 200));
    watch.says("CPU 200 % of 50 %").await;
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let (status, text) = watch.ended().await;
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains(UNSCALED), "{text}");
    assert!(
        text.contains("s: one autoscaler targets the Deployment"),
        "{text}"
    );
}

#[tokio::test]
async fn cpu_load_gen_is_known_by_its_response_to_head_and_burns_nothing() {
    let test = "head";
    let fake = at_rest(test).await;
    for (path, arguments, query) in [
        ("cpu-load-gen", &[][..], "iterations=0"),
        ("cpu-load-gen", &["--query", "iterations=1"], "iterations=1"),
        ("cpu-load-gen?cpu_time=1ms", &[], "cpu_time=1ms"),
        ("app", &[], ""),
    ] {
        let url = format!("{}/{path}", fake.url);
        let watch = ["watch", "--for", "2500ms", "--url", &url];
        let (status, text) = recorder(&fake, test, &[&watch[..], arguments].concat())
            .ended()
            .await;
        assert_eq!(status, Some(0), "{text}");
        let queries = fake.take_queries();
        assert!(!queries.is_empty(), "{path}");
        assert!(
            queries.iter().all(|one| one == query),
            "{path}: {queries:?}"
        );
    }
}

#[tokio::test]
async fn missing_metrics_are_reported_and_the_rest_is_recorded() {
    let test = "no-metrics";
    let fake = without_metrics(test).await;
    let mut blind = hpa(1, 1, 0);
    blind["status"]["currentMetrics"] = json!(null);
    blind["status"]["conditions"] = json!([{
        "type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric",
        "message": "no metrics returned from resource metrics API",
    }]);
    fake.set(AUTOSCALERS, blind);
    let (status, text) = recorder(&fake, test, &["watch", "--for", "3s"])
        .ended()
        .await;
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains("CPU not known yet, of 50 % (FailedGetResourceMetric)"),
        "{text}"
    );
    assert!(text.contains("the metrics API cannot be read"), "{text}");
}

#[tokio::test]
async fn an_interrupted_watch_writes_its_observations() {
    let test = "interrupted";
    let fake = at_rest(test).await;
    let recorder = recorder(&fake, test, &["watch"]);
    fake.watched(WATCHES).await;
    let pid = recorder.child.id().expect("it runs").cast_signed();
    let pid = rustix::process::Pid::from_raw(pid).expect("it is a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let (status, text) = recorder.ended().await;
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(report(test)["verdict"]["outcome"], "as_expected");
}

#[tokio::test]
async fn pods_may_be_selected_by_expressions_and_an_autoscaler_may_be_created_later() {
    let test = "later";
    let fake = at_rest(test).await;
    let mut selecting = deployment(1, 1);
    selecting["spec"]["selector"] = json!({"matchExpressions": [
        {"key": "app", "operator": "In", "values": ["a", "b"]},
        {"key": "canary", "operator": "DoesNotExist"},
    ]});
    fake.set(DEPLOYMENTS, selecting);
    fake.delete(AUTOSCALERS, "keda-hpa-cpu-scaling");
    let mut recorder = recorder(&fake, test, &["watch", "--expect", "4"]);
    recorder.says("no autoscaler targets it").await;
    fake.watched(WATCHES).await;
    assert!(
        fake.selectors().contains("app in (a,b),!canary"),
        "{}",
        fake.selectors()
    );
    fake.set(AUTOSCALERS, hpa(1, 4, 200));
    recorder.says("CPU 200 % of 50 %").await;
    fake.set(
        EVENTS,
        event("new", "New size: 4; reason: cpu above target"),
    );
    recorder.says("New size: 4").await;
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let (status, text) = recorder.ended().await;
    assert_eq!(status, Some(0), "{text}");
}

/// A proxy that forwards every tunnel to one address.
async fn proxy(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                let mut line = String::from("a request");
                while !line.trim().is_empty() {
                    line.clear();
                    client.read_line(&mut line).await?;
                }
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let mut server = TcpStream::connect(to).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    url
}

#[tokio::test]
async fn a_cluster_is_reached_through_the_proxy_unless_no_proxy_names_it() {
    let test = "proxy";
    let fake = at_rest(test).await;
    let proxy = proxy(fake.url.trim_start_matches("http://").to_string()).await;
    let watch = ["watch", "--for", "1s"];
    let with = |server: &str, no_proxy: &str| {
        let config = fs::read_to_string(&fake.kubeconfig).expect("it is there");
        let mut config: Value = serde_json::from_str(&config).expect("it is JSON");
        config["clusters"][0]["cluster"]["server"] = server.into();
        fs::write(&fake.kubeconfig, config.to_string()).expect("it can be written");
        let variables = [
            ("HTTP_PROXY", &*proxy),
            ("HTTPS_PROXY", &*proxy),
            ("NO_PROXY", no_proxy),
        ];
        recorder_with(&fake, test, &watch, &variables).ended()
    };
    // Only the proxy knows this name.
    let (status, text) = with("http://cluster.invalid", "other.invalid").await;
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = with("http://cluster.invalid", ".invalid").await;
    assert_eq!(status, Some(2), "{text}");
    let (status, text) = with(&fake.url, "").await;
    assert_eq!(status, Some(0), "{text}");
}

/// The address of its page.
async fn served(recorder: &mut Recorder) -> String {
    recorder.says("Serving http://127.0.0.1:").await;
    let mut words = recorder.said.split_whitespace();
    words
        .find(|word| word.starts_with("http://"))
        .expect("it is said")
        .into()
}

#[tokio::test]
#[ignore = "needs Chromium: apt-get install chromium"]
async fn the_page_shows_the_recording_and_its_end() {
    let test = "page";
    let fake = at_rest(test).await;
    let url = format!("{}/app", fake.url);
    let watch = ["watch", "--expect", "4", "--serve", "0", "--url", &url];
    let mut recorder = recorder(&fake, test, &watch);
    let page = served(&mut recorder).await;
    fake.watched(WATCHES).await;
    fake.set(AUTOSCALERS, hpa(1, 4, 500));
    fake.set(DEPLOYMENTS, deployment(4, 2));
    recorder.says("2 ready of 4").await;
    let shown = opened(&page, test, 3).await;
    for text in [
        "<span>2 ready of 4</span>",
        "waiting for 4 replicas ready",
        "largest step, to 4",
        // It is there once it is decoded.
        "<img alt=\"Scaling of keda-spinapp\" src=\"autoscale.svg?",
    ] {
        assert!(shown.contains(text), "no {text}: {shown}");
    }
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let status = || async { reqwest::get(format!("{page}status")).await?.text().await };
    let mut last = String::new();
    // A page that asks is told the verdict before the recorder ends.
    while let Ok(text) = status().await {
        last = text;
        sleep(Duration::from_millis(200)).await;
    }
    assert!(last.contains("As expected: 4 replicas ready"), "{last}");
    assert!(last.contains("\"ended\":true"), "{last}");
    let (status, text) = recorder.ended().await;
    assert_eq!(status, Some(0), "{text}");
}

/// The elements of a page after its scripts have run for a number of seconds of their own time, which passes only
/// while no response is awaited.
async fn opened(page: &str, test: &str, seconds: u32) -> String {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let chromium = env::var("CHROMIUM").ok().or_else(|| {
        let folders: Vec<_> = env::split_paths(&env::var_os("PATH")?).collect();
        let is_there = |name: &&str| folders.iter().any(|folder| folder.join(name).is_file());
        names.into_iter().find(is_there).map(Into::into)
    });
    let chromium = chromium.expect("Chromium is not installed: apt-get install chromium");
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--enable-logging=stderr"])
        .arg(format!(
            "--user-data-dir={}",
            folder(test).join("profile").display()
        ))
        .arg(format!("--virtual-time-budget={seconds}000"))
        .args(["--dump-dom", page])
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(120), output).await;
    let output = output.expect("it ends").expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!log.contains("Content Security Policy"), "{log}");
    String::from_utf8(output.stdout).expect("it is text")
}

#[tokio::test]
async fn the_page_allows_only_get_and_what_the_recorder_serves() {
    let test = "page-http";
    let fake = at_rest(test).await;
    let mut recorder = recorder(&fake, test, &["watch", "--serve", "127.0.0.1:0"]);
    let page = served(&mut recorder).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let get = |path: &str| client.get(format!("{page}{path}"));
    for (request, status, content_type) in [
        (get(""), 200, "text/html; charset=utf-8"),
        (get("page.css"), 200, "text/css"),
        (get("page.js"), 200, "text/javascript"),
        (get("status"), 200, "application/json"),
        (get("report.md"), 200, "text/markdown; charset=utf-8"),
        (get("autoscale.svg"), 200, "image/svg+xml"),
        (get("missing"), 404, ""),
        (
            get("").header("host", "example.com:80"),
            403,
            "text/plain; charset=utf-8",
        ),
        (client.post(&page), 405, ""),
        (client.put(&page), 405, ""),
        (client.head(&page), 405, ""),
    ] {
        let response = request.send().await.expect("it responds");
        let url = response.url().to_string();
        assert_eq!(response.status(), status, "{url}");
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map_or("", |value| value.to_str().expect("it is ASCII"))
        };
        assert_eq!(header("content-type"), content_type, "{url}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{url}");
        assert_eq!(
            header("cross-origin-resource-policy"),
            "same-origin",
            "{url}"
        );
        assert_eq!(header("access-control-allow-origin"), "", "{url}");
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let test = "page-taken";
    let fake = at_rest(test).await;
    let taken = fake.url.trim_start_matches("http://");
    let (status, text) = recorder(&fake, test, &["watch", "--serve", taken])
        .ended()
        .await;
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains(&format!("cannot serve at {taken}")), "{text}");
}

/// The JSON report, checked against its schema.
#[tokio::test]
async fn the_json_matches_the_schema() {
    let test = "schema";
    let fake = at_rest(test).await;
    let result = r#"{"result":{"timeTakenSeconds":1,"req1xx":0,"req2xx":9,"req3xx":0,"req4xx":1,
        "req5xx":0,"others":0,"errors":[{"description":"refused","count":1}],
        "latency":{"mean":1,"max":2,"percentiles":{"50":1,"95":2}}}}"#;
    let url = format!("{}/app", fake.url);
    let traffic = format!("sleep 1; echo '{result}'");
    let recorder = recorder(
        &fake,
        test,
        &[
            "run", "--expect", "4", "--url", &url, "--", "sh", "-c", &traffic,
        ],
    );
    fake.watched(WATCHES).await;
    fake.set(AUTOSCALERS, hpa(1, 4, 500));
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let (_, text) = recorder.ended().await;
    let schema: Value =
        serde_json::from_str(include_str!("../autoscale.schema.json")).expect("it is JSON");
    let schema = jsonschema::validator_for(&schema).expect("it is a schema");
    let report = report(test);
    let errors: Vec<_> = schema
        .iter_errors(&report)
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors, Vec::<String>::new(), "{text}");
    assert_eq!(
        report["traffic"][0]["bombardier"]["requests"], 10,
        "{report:#}"
    );
    assert_eq!(
        report["decisions"][0]["constraints"][0]["kind"],
        "largest_step"
    );
}

//! The recorder against a fake API server: its output, its files and its exit status.

mod common;
mod fake;

use std::{env, fs, io::Write, process::Stdio, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command},
    time::{sleep, timeout},
};

use crate::{
    common::{deployment, event, hpa, object},
    fake::{AUTOSCALERS, DEPLOYMENTS, EVENTS, Fake, METRICS, PODS, folder},
};

const NAME: &str = "keda-spinapp";
const HPA: &str = "keda-hpa-cpu-scaling";
const POD: &str = "keda-spinapp-6d5c7b9f4d-abcde";
/// The number of its watches: Deployments, pods, autoscalers and events.
const WATCHES: usize = 4;

/// One replica at rest.
async fn at_rest(test: &str) -> Arc<Fake> {
    let fake = Fake::start(test).await;
    fake.set(DEPLOYMENTS, deployment(1, 1));
    fake.set(AUTOSCALERS, hpa(1, 1, 2));
    fake.set(PODS, object("pod"));
    fake.set(METRICS, object("pod-metrics"));
    fake.set(EVENTS, event("New size: 20; reason: an earlier deployment"));
    fake
}

/// A running recorder, and its output so far.
struct Recorder {
    child: Child,
    errors: Lines<BufReader<ChildStderr>>,
    said: String,
}

/// Its command with these arguments, of which the first is its subcommand.
fn command(fake: &Fake, test: &str, arguments: &[&str]) -> Command {
    let (subcommand, rest) = arguments.split_first().expect("it comes first");
    let mut command = Command::new(env!("CARGO_BIN_EXE_recorder"));
    command
        .args([subcommand, "--output"])
        .arg(folder(test))
        .args(rest)
        .env("KUBECONFIG", &fake.kubeconfig)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn recorder(fake: &Fake, test: &str, arguments: &[&str]) -> Recorder {
    let child = command(fake, test, arguments).spawn();
    let mut child = child.expect("the recorder is built");
    let errors = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    Recorder {
        child,
        errors,
        said: String::new(),
    }
}

impl Recorder {
    async fn next_line(&mut self) -> Option<String> {
        let line = self.errors.next_line().await.expect("it is text")?;
        self.said += &format!("{line}\n");
        Some(line)
    }

    /// Waits until a line of the output contains this.
    async fn says(&mut self, text: &str) {
        while let Some(line) = self.next_line().await {
            if line.contains(text) {
                return;
            }
        }
        panic!("it never said {text}: {}", self.said);
    }

    /// Its whole output, once it has ended with this exit status.
    async fn ends(mut self, status: i32) -> String {
        while self.next_line().await.is_some() {}
        let output = self.child.wait_with_output().await;
        let output = output.expect("it can be waited for");
        self.said += &String::from_utf8(output.stdout).expect("it is text");
        assert_eq!(output.status.code(), Some(status), "{}", self.said);
        self.said
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part}: {text}");
    }
}

fn written(test: &str, name: &str) -> String {
    fs::read_to_string(folder(test).join(name)).expect("it was written")
}

/// autoscale.json, which agrees with its schema.
fn report(test: &str) -> Value {
    let text = written(test, "autoscale.json");
    let observations = written(test, "observations.jsonl");
    // The annotations, commands and environments of the test's objects have one.
    assert!(!(text.clone() + &observations).contains("secret"));
    let report = serde_json::from_str(&text).expect("it is JSON");
    let schema = include_str!("../autoscale.schema.json");
    let schema = serde_json::from_str(schema).expect("it is JSON");
    if let Err(error) = jsonschema::validate(&schema, &report) {
        panic!("{error}: {report:#}");
    }
    report
}

/// Explains the observations of a test, in the folder of the test.
async fn explained(test: &str) -> String {
    let explained = Command::new(env!("CARGO_BIN_EXE_recorder"))
        .args(["explain", "observations.jsonl"])
        .current_dir(folder(test))
        .output();
    let explained = explained.await.expect("the recorder is built");
    assert!(explained.status.success(), "{explained:?}");
    String::from_utf8(explained.stdout).expect("it is text")
}

#[tokio::test]
async fn a_scale_out_is_recorded_over_broken_connections() {
    let test = "scale-out";
    let fake = at_rest(test).await;
    let url = format!("{}/app", fake.url);
    let watch = ["watch", "--url", &url, "--expect", "4"];
    let mut recorder = recorder(&fake, test, &watch);
    fake.watched(WATCHES).await;
    fake.set(AUTOSCALERS, hpa(1, 4, 200));
    fake.set(DEPLOYMENTS, deployment(4, 1));
    fake.set(EVENTS, event("New size: 4; reason: cpu above target"));
    fake.break_watches();
    fake.delete(PODS, POD);
    fake.set(AUTOSCALERS, hpa(4, 4, 52));
    fake.watched(2 * WATCHES).await;
    let unready = "1 ready of 4, 4 wanted, CPU 52 % of 50 %";
    recorder.says(unready).await;
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let text = recorder.ends(0).await;
    let shown = "4 ready of 4, 4 wanted, CPU 52 % of 50 %";
    let expected = "As expected: 4 replicas ready";
    assert_says(&text, &[shown, expected, "New size: 4"]);
    assert!(!text.contains("an earlier deployment"), "{text}");
    let report = report(test);
    let decisions = &report["decisions"];
    assert_eq!(decisions[0]["computed_replicas"], 4);
    let tolerance = json!([{"kind": "tolerance", "percent": 10}]);
    assert_eq!(decisions[1]["constraints"], tolerance);
    assert_says(
        &written(test, "replicas.csv"),
        &[",deployment,4,4,4,52,50,,,", &format!("pod {POD} deleted")],
    );
    // Explained again without a cluster, it is the same report.
    let files = ["replicas.csv", "autoscale.json", "autoscale.svg"];
    let recorded = files.map(|name| written(test, name));
    let again = explained(test).await;
    assert!(text.ends_with(&again), "{text}\n is not \n{again}");
    assert_eq!(files.map(|name| written(test, name)), recorded);
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
    let killed = "Not observed: the recorder was killed or failed";
    assert_says(&explained(test).await, &["200 % / 50 %", killed]);
    let report = report(test);
    assert_eq!(report["decisions"][0]["to_replicas"], 4);
    assert_eq!(report["expected"], "4 replicas ready");
}

#[tokio::test]
async fn files_that_cannot_be_written_do_not_lose_the_observations() {
    let test = "unwritable";
    let fake = at_rest(test).await;
    fs::create_dir_all(folder(test).join("autoscale.svg")).expect("the folder is writable");
    let recorder = recorder(&fake, test, &["watch", "--for", "1s"]);
    let unwritable = "autoscale.svg\" cannot be written";
    assert_says(&recorder.ends(2).await, &[unwritable]);
    let lines = written(test, "observations.jsonl");
    assert_says(&lines, &["\"outcome\":\"as_expected\""]);
    assert!(lines.lines().count() > 4, "{lines}");
}

#[tokio::test]
async fn invalid_lines_are_named() {
    let test = "unusable";
    let fake = Fake::start(test).await;
    let header = r#"{"began": "2026-01-01T00:00:00Z", "deployment": "a"}"#;
    let gone = r#"{"at": 0, "pod_gone": "a"}"#;
    let latency = r#"{"at": 1, "response": {"seconds": -1}}"#;
    let time = r#"{"at": -1, "pod_gone": "b"}"#;
    let unusable = "line 3: not an observation: ";
    let negative = "invalid value: floating point `-1.0`, expected 0 to 4294967295 seconds";
    for (lines, named) in [
        ([gone; 3], &["the first line must be"][..]),
        ([header, gone, r#"{"at": 1, "cat": 1}"#], &[unusable]),
        ([header, gone, latency], &[unusable, negative]),
        ([header, gone, time], &[unusable, negative]),
    ] {
        let file = folder(test).join("given.jsonl");
        fs::write(&file, lines.join("\n")).expect("it can be written");
        let file = file.to_str().expect("it is text");
        let said = recorder(&fake, test, &["explain", file]).ends(2).await;
        assert_says(&said, named);
    }
}

#[tokio::test]
async fn the_files_of_a_watch_that_ends_early_are_written() {
    let test = "early";
    let fake = at_rest(test).await;
    let interrupted = recorder(&fake, test, &["watch"]);
    fake.watched(WATCHES).await;
    let pid = interrupted.child.id().expect("it runs").cast_signed();
    let pid = Pid::from_raw(pid).expect("it is a process");
    kill_process(pid, Signal::INT).expect("it runs");
    interrupted.ends(0).await;
    assert_eq!(report(test)["verdict"]["outcome"], "as_expected");
    let awaiting = recorder(&fake, test, &["watch", "--expect", "4"]);
    fake.watched(2 * WATCHES).await;
    fake.delete(DEPLOYMENTS, NAME);
    let deleted = "Not observed: the Deployment `keda-spinapp` was deleted";
    assert_says(&awaiting.ends(2).await, &[deleted]);
    assert_eq!(report(test)["verdict"]["outcome"], "unobserved");
}

/// Commands that send traffic to one replica at rest: the exit status, and the last line.
#[tokio::test]
async fn the_exit_status_and_the_conclusion_agree() {
    let test = "conclusions";
    let fake = at_rest(test).await;
    let counted = r#"{"result":{"timeTakenSeconds":1,"req1xx":0,"req2xx":9,"req3xx":0,"req4xx":1,
        "req5xx":0,"others":0,"errors":[{"description":"refused","count":1}],
        "latency":{"mean":1,"max":2,"percentiles":{"50":1,"95":2}}}}"#;
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
            "Not as expected: expected 4 replicas ready; the highest number was 1, after 0s",
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
    for (index, (recorder, case)) in running.into_iter().zip(cases).enumerate() {
        let (arguments, status, conclusion) = case;
        let text = recorder.ends(status).await;
        assert!(text.trim_end().ends_with(conclusion), "{text}");
        let outages = text.matches("no 2xx response: 503").count();
        let expected = usize::from(arguments.contains(&&*flaky));
        assert_eq!(outages, expected, "{text}");
        let outcomes = ["as_expected", "unexpected", "unobserved"];
        let report = report(&format!("{test}-{index}"));
        assert_eq!(report["verdict"]["outcome"], outcomes[status as usize]);
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_an_error() {
    let test = "errors";
    let fake = Fake::start(test).await;
    let run = async |arguments: &[&str]| recorder(&fake, test, arguments).ends(2).await;
    let none = "error: there is no Deployment `keda-spinapp` in namespace `default`: \
                deploy the app first (`make deploy`)\n";
    assert_eq!(run(&["watch"]).await, none);
    fake.set(DEPLOYMENTS, deployment(1, 1));
    fake.set(PODS, object("pod"));
    fake.set(AUTOSCALERS, hpa(1, 1, 2));
    let taken = fake.url.trim_start_matches("http://");
    let text = run(&["watch", "--serve", taken]).await;
    assert_says(&text, &["error: cannot serve at ", taken]);
    let mut second = hpa(1, 1, 2);
    second["metadata"]["name"] = "second".into();
    fake.set(AUTOSCALERS, second);
    let several = "error: several autoscalers target the Deployment, so that none of them acts: \
                   keda-hpa-cpu-scaling, second; keep one of them\n";
    assert_eq!(run(&["run", "--", "true"]).await, several);
}

#[tokio::test]
async fn a_hold_is_planned_by_the_given_flags_before_the_app_is_asked() {
    let test = "hold";
    let fake = at_rest(test).await;
    let run = async |replicas: &str, tolerance: &str| {
        // Nothing listens there.
        let url = ["--url", "http://127.0.0.1:9", "--tolerance", tolerance];
        let arguments = [&["hold", replicas], &url[..]].concat();
        recorder(&fake, test, &arguments).ends(2).await
    };
    let above = "error: the autoscaler allows 1 to 20 replicas, not 50\n";
    assert_eq!(run("50", "0.1").await, above);
    let both = run("7", "0.1").await;
    assert_says(
        &both,
        &[
            "7 replicas: ",
            " until there are ",
            "does not respond with 2xx",
        ],
    );
    let one = run("7", "0").await;
    assert!(
        one.starts_with("7 replicas: ") && !one.contains("until"),
        "{one}"
    );
}

const UNSCALED: &str = "no autoscaler targets the Deployment: deploy one, \
                        or resume its ScaledObject if that is paused";

/// As when KEDA is paused and resumed, while it is watched or before that.
#[tokio::test]
async fn an_autoscaler_that_goes_ends_traffic_and_is_a_note_otherwise() {
    let test = "unscaled";
    let fake = at_rest(test).await;
    let other = "unscaled-watch";
    let mut watch = recorder(&fake, other, &["watch", "--expect", "4"]);
    let run = recorder(&fake, test, &["run", "--", "sleep", "60"]);
    fake.watched(2 * WATCHES).await;
    fake.delete(AUTOSCALERS, HPA);
    watch.says("the autoscaler was deleted").await;
    let mut late = recorder(&fake, "unscaled-late", &["watch", "--expect", "4"]);
    watch.says("no autoscaler targets it").await;
    let text = run.ends(2).await;
    let end = format!("Not observed: {UNSCALED}\n\n");
    assert!(text.ends_with(&end), "{text}");
    let run = recorder(&fake, test, &["run", "--", "true"]);
    assert_eq!(run.ends(2).await, format!("error: {UNSCALED}\n"));
    late.says("no autoscaler targets it").await;

    fake.set(AUTOSCALERS, hpa(1, 4, 200));
    watch.says("CPU 200 % of 50 %").await;
    late.says("CPU 200 % of 50 %").await;
    fake.set(EVENTS, event("New size: 4; reason: cpu above target"));
    watch.says("New size: 4").await;
    late.says("New size: 4").await;
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let again = "s: one autoscaler targets the Deployment";
    assert_says(&watch.ends(0).await, &[UNSCALED, again]);
    late.ends(0).await;
}

#[tokio::test]
async fn cpu_load_gen_is_known_by_its_response_to_head_and_burns_nothing() {
    let test = "head";
    let fake = at_rest(test).await;
    for (path, arguments, asked) in [
        ("cpu-load-gen", &[][..], "cpu-load-gen?iterations=0"),
        ("cpu-load-gen", &["--query", "a=1"], "cpu-load-gen?a=1"),
        ("cpu-load-gen?b=1ms", &[], "cpu-load-gen?b=1ms"),
        ("app", &[], "app"),
    ] {
        let url = format!("{}/{path}", fake.url);
        let watch = ["watch", "--for", "2500ms", "--url", &url];
        let recorder = recorder(&fake, test, &[&watch[..], arguments].concat());
        recorder.ends(0).await;
        let mut requests = fake.take_requests();
        requests.retain(|one| one.starts_with("GET /app") || one.starts_with("GET /cpu-load-gen"));
        requests.dedup();
        assert_eq!(requests, [format!("GET /{asked}")]);
    }
}

#[tokio::test]
async fn missing_metrics_are_reported_and_the_rest_is_recorded() {
    let test = "no-metrics";
    let mut blind = hpa(1, 1, 0);
    blind["status"]["currentMetrics"] = json!(null);
    let active = &mut blind["status"]["conditions"][1];
    active["status"] = "False".into();
    active["reason"] = "FailedGetResourceMetric".into();
    let fake = Fake::start(test).await;
    fake.set(DEPLOYMENTS, deployment(1, 1));
    fake.set(AUTOSCALERS, blind);
    fake.set(PODS, object("pod"));
    fake.set(EVENTS, event("New size: 1; reason: an earlier deployment"));
    let recorder = recorder(&fake, test, &["watch", "--for", "3s"]);
    let unknown = "CPU not known yet, of 50 % (FailedGetResourceMetric)";
    let unread = "the metrics API cannot be read: 404 page not found";
    assert_says(&recorder.ends(0).await, &[unknown, unread]);
}

#[tokio::test]
async fn what_may_not_be_read_is_reported_once_until_it_may() {
    let test = "forbidden";
    let fake = at_rest(test).await;
    fake.forbid(Some(EVENTS));
    let mut recorder = recorder(&fake, test, &["watch", "--expect", "4"]);
    fake.asked(EVENTS, 3).await;
    fake.forbid(None);
    recorder.says("events can be read again").await;
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let text = recorder.ends(0).await;
    for once in ["events cannot be read", "events can be read again"] {
        assert_eq!(text.matches(once).count(), 1, "{text}");
    }
}

#[tokio::test]
async fn pods_may_be_selected_by_expressions() {
    let test = "selectors";
    let fake = at_rest(test).await;
    let mut selecting = deployment(1, 1);
    selecting["spec"]["selector"] = json!({"matchExpressions": [
        {"key": "app", "operator": "In", "values": ["a", "b"]},
        {"key": "canary", "operator": "DoesNotExist"},
    ]});
    fake.set(DEPLOYMENTS, selecting);
    let watch = ["watch", "--expect", "1"];
    recorder(&fake, test, &watch).ends(0).await;
    let selector = "labelSelector=app+in+%28a%2Cb%29%2C%21canary";
    assert_says(&fake.take_requests().join("\n"), &[selector]);
}

/// A proxy that forwards every tunnel to one address.
async fn proxy(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                // The request, which is short.
                let _ = client.read(&mut [0; 4096]).await?;
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
    // Only the proxy knows the name of the second cluster.
    for (server, no_proxy, status) in [
        (&*fake.url, "", 0),
        ("http://cluster.invalid", "other.invalid", 0),
        ("http://cluster.invalid", ".invalid", 2),
    ] {
        let config = fs::read_to_string(&fake.kubeconfig).expect("it is there");
        let mut config: Value = serde_json::from_str(&config).expect("it is JSON");
        config["clusters"][0]["cluster"]["server"] = server.into();
        fs::write(&fake.kubeconfig, config.to_string()).expect("it can be written");
        let variables = [
            ("HTTP_PROXY", &*proxy),
            ("HTTPS_PROXY", &*proxy),
            ("NO_PROXY", no_proxy),
        ];
        let ended = command(&fake, test, &watch).envs(variables).output().await;
        let ended = ended.expect("the recorder is built");
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    }
}

/// The address of its page.
async fn served(recorder: &mut Recorder) -> String {
    recorder.says("Serving http://127.0.0.1:").await;
    let mut words = recorder.said.split_whitespace();
    let url = words.find(|word| word.starts_with("http://"));
    url.expect("it is said").into()
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
    assert_says(
        &shown,
        &[
            "<span>2 ready of 4</span>",
            "waiting for 4 replicas ready",
            "largest step, to 4",
            // It is there once it is decoded.
            "<img alt=\"Scaling of keda-spinapp\" src=\"autoscale.svg?",
        ],
    );
    fake.set(DEPLOYMENTS, deployment(4, 4));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let status = || async { reqwest::get(format!("{page}status")).await?.text().await };
    let mut last = String::new();
    // A page that asks is told the verdict before the recorder ends.
    while let Ok(text) = status().await {
        last = text;
        sleep(Duration::from_millis(200)).await;
    }
    assert_says(&last, &["As expected: 4 replicas ready", "\"ended\":true"]);
    recorder.ends(0).await;
}

/// The elements of a page after its scripts have run for a number of seconds of their own time,
/// which passes only while no response is awaited.
async fn opened(page: &str, test: &str, seconds: u32) -> String {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let chromium = env::var("CHROMIUM").ok().or_else(|| {
        let folders: Vec<_> = env::split_paths(&env::var_os("PATH")?).collect();
        let is_there = |name: &&str| folders.iter().any(|folder| folder.join(name).is_file());
        names.into_iter().find(is_there).map(Into::into)
    });
    let chromium = chromium.expect("Chromium is not installed: apt-get install chromium");
    let options = "--headless --no-sandbox --disable-gpu --no-first-run \
                   --disable-background-networking --enable-logging=stderr --dump-dom";
    let profile = folder(test).join("profile");
    let output = Command::new(chromium)
        .args(options.split(' '))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--virtual-time-budget={seconds}000"))
        .arg(page)
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
    let from = |host: &str| get("page.css").header("host", host);
    let plain = "text/plain; charset=utf-8";
    for (request, status, content_type) in [
        (get(""), 200, "text/html; charset=utf-8"),
        (get("page.css"), 200, "text/css"),
        (get("page.js"), 200, "text/javascript"),
        (get("status"), 200, "application/json"),
        (get("report.md"), 200, "text/markdown; charset=utf-8"),
        (get("autoscale.svg"), 200, "image/svg+xml"),
        (get("missing"), 404, ""),
        (client.post(&page), 405, ""),
        (client.put(&page), 405, ""),
        (client.head(&page), 405, ""),
        (from("10.0.0.7:8082"), 200, "text/css"),
        (from("[::1]:8082"), 200, "text/css"),
        (from("LOCALHOST"), 200, "text/css"),
        // Names that a foreign page could have pointed at this machine.
        (from("example.com:80"), 403, plain),
        (from("localhost.example.com"), 403, plain),
        (from("127.0.0.1.example.com"), 403, plain),
        (from("::1"), 403, plain),
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
        let resource_policy = header("cross-origin-resource-policy");
        assert_eq!(resource_policy, "same-origin", "{url}");
        assert_eq!(header("access-control-allow-origin"), "", "{url}");
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

//! The contract over HTTP, tested against the built component.

use std::fs;
use std::path::Path;
use std::thread;

use testkit::{Launch, Method, Response, Runner, Server, digest};

/// Asserts that `response` rejects a request with `status` and these words in its detail.
fn assert_problem(response: &Response, status: u16, said: &[&str], request: &str) {
    assert_eq!(response.status, status, "{request}: {response:?}");
    assert_eq!(response.header("content-type"), "application/problem+json");
    let problem = response.json();
    assert_eq!(problem["status"], status, "{request}");
    assert!(problem["title"].is_string(), "{request}: {problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    for word in said {
        assert!(detail.contains(word), "{request}: no {word} in {detail:?}");
    }
}

#[test]
fn forty_requests_at_once_get_the_digests_of_their_iterations() {
    let server = Server::start(&[]);
    let request = |iterations: u64| {
        let report = server.get(&format!("/?iterations={iterations}")).json();
        assert_eq!(report["load"], format!("iterations={iterations}"));
        assert_eq!(report["iterations"], iterations);
        assert_eq!(report["digest"], digest(iterations));
    };
    thread::scope(|scope| {
        for iterations in [0, 1, 2, 12_345].repeat(10) {
            scope.spawn(move || request(iterations));
        }
    });
}

#[test]
fn a_load_is_run_and_reported() {
    let server = Server::start(&[]);
    // The query, the load in the report, the least CPU time, and the least time that elapses.
    for (query, load, cpu_time_ms, elapsed_ms) in [
        ("", "cpu_time=20ms", 20.0, 0.001),
        ("?", "cpu_time=20ms", 20.0, 0.001),
        ("?cpu%5Ftime=%32ms", "cpu_time=2ms", 2.0, 0.001),
        ("?cpu_time=1500%C2%B5s", "cpu_time=1.5ms", 1.5, 0.001),
        ("?duration=1s&cpu=.25", "cpu=250m&duration=1s", 0.0, 1e3),
        ("?cpu=1&duration=50ms", "cpu=1&duration=50ms", 0.0, 50.0),
        ("?cpu=1m&duration=1ns", "cpu=1m&duration=1ns", 0.0, 0.001),
    ] {
        let response = server.get(&format!("/{query}"));
        assert_eq!(response.status, 200, "{query}: {response:?}");
        assert_eq!(response.header("content-type"), "application/json");
        assert_eq!(response.header("cache-control"), "no-store");
        let report = response.json();
        assert_eq!(report["load"], load);
        assert_eq!(report["replica"], serde_json::Value::Null);
        let iterations = report["iterations"].as_u64().expect("iterations");
        assert_eq!(report["digest"], digest(iterations), "{report}");
        let time = |name: &str| report[name].as_f64().expect("a time");
        // Both are cut to whole microseconds.
        let used = time("cpu_time_ms") + time("overhead_ms");
        assert!(used > cpu_time_ms - 0.002, "{report}");
        assert!(time("elapsed_ms") >= elapsed_ms, "{report}");
    }
}

#[test]
fn paths_that_clients_request_unasked_burn_nothing_and_any_other_is_served() {
    // The default load would fail.
    let server = Server::start(&[("load", "broken")]);
    for path in ["/", "/load", "/some/prefix/", "/a%20b", "/robots"] {
        let response = server.get(&format!("{path}?iterations=1"));
        assert_eq!(response.json()["iterations"], 1, "{path}");
        assert_eq!(server.get(path).status, 500, "{path}");
    }
    for path in [
        "/.well-known/appspecific/com.chrome.devtools.json",
        "/.well-known/security.txt",
        "/apple-touch-icon.png",
        "/apple-touch-icon-120x120-precomposed.png",
        "/favicon.ico",
        "/favicon.svg",
        "/metrics",
        "/robots.txt",
        "/robots.txt?a=b",
        "/sitemap.xml",
    ] {
        let response = server.get(path);
        assert_problem(&response, 404, &["nothing is served"], path);
        let head = server.request(Method::HEAD, path);
        assert_eq!(head.status, 404, "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose"] {
        let response = server.get(path);
        assert_eq!((response.status, &*response.body), (200, "OK"), "{path}");
        let head = server.request(Method::HEAD, path);
        assert_eq!(head.status, 200, "{path}");
    }
    assert_eq!(server.get("/.well-known/spin/health").body, "OK");
}

#[test]
fn a_query_that_is_not_a_load_or_above_a_limit_is_rejected() {
    let server = Server::start(&[("max_cpu_time", "50ms"), ("max_sustained_cpu", "0.01")]);
    let iterations = ["50000000", "max_iterations"];
    let cpu_time = ["50ms", "max_cpu_time"];
    let duration = ["10m", "max_duration"];
    // The query, the parameter at fault, and parts of the detail.
    for (query, parameter, said) in [
        ("iteration=5", Some("iteration"), &["\"iteration\""][..]),
        ("iterations=5&", Some(""), &["iterations=N"]),
        ("iterations=1&iterations=1", Some("iterations"), &["twice"]),
        ("cpu=250m", Some("cpu"), &["`duration`"]),
        ("duration=1s", Some("duration"), &["`cpu`"]),
        ("iterations=1&cpu_time=1ms", None, &["cannot be combined"]),
        ("iterations=%2B1", Some("iterations"), &["\"+1\""]),
        ("cpu_time=20", Some("cpu_time"), &["\"20\""]),
        ("cpu=1001m&duration=1s", Some("cpu"), &["at most 1"]),
        ("cpu=0.0000001m&duration=1s", Some("cpu"), &["nanocores"]),
        ("cpu=1.0000000001&duration=1s", Some("cpu"), &["nanocores"]),
        ("cpu=250m&duration=", Some("duration"), &["\"\""]),
        ("iterations=%zz", Some("iterations"), &["percent-encoded"]),
        ("%ff=1", None, &["UTF-8"]),
        ("iterations=50000001", Some("iterations"), &iterations),
        ("cpu_time=50.1ms", Some("cpu_time"), &cpu_time),
        ("cpu=1m&duration=601s", Some("duration"), &duration),
        ("cpu=100m&duration=501ms", None, &cpu_time),
        ("cpu=10.1m&duration=5s", None, &cpu_time),
    ] {
        let response = server.get(&format!("/?{query}"));
        assert_problem(&response, 400, said, query);
        assert_eq!(response.json()["parameter"].as_str(), parameter, "{query}");
    }
    for query in [
        "cpu_time=50ms",
        "cpu=1&duration=50ms",
        "cpu=10m&duration=10m",
    ] {
        let response = server.request(Method::HEAD, &format!("/?{query}"));
        assert_eq!(response.status, 200, "{query}");
    }
}

#[test]
fn head_validates_and_burns_nothing() {
    let server = Server::start(&[("max_cpu_time", "1h"), ("max_iterations", "9999999999")]);
    // The query, the status, and the load; the paced one is that of Kubernetes' own tests.
    for (query, status, load) in [
        ("", 200, "cpu_time=20ms"),
        ("?duration=600s&cpu=0.02", 200, "cpu=20m&duration=10m0s"),
        ("?cpu_time=3599s", 200, "cpu_time=59m59s"),
        ("?iterations=9999999999", 200, "iterations=9999999999"),
        ("?cpu_time=2h", 400, ""),
        ("?cpu_time", 400, ""),
    ] {
        let response = server.request(Method::HEAD, &format!("/{query}"));
        assert_eq!(response.status, status, "{query}");
        assert_eq!(response.header("load"), load, "{query}");
        assert_eq!(response.body, "", "{query}");
    }
}

#[test]
fn variables_set_the_default_load_the_limits_the_name_and_the_overhead() {
    let server = Server::start(&[
        ("load", "duration=10ms&cpu=0.5"),
        ("max_iterations", "10"),
        ("replica", "cpu-load-gen-7d4f"),
        ("request_overhead", "0"),
        ("pause_overhead", "0"),
        ("yield_overhead", "0"),
    ]);
    let report = server.get("/").json();
    assert_eq!(report["load"], "cpu=500m&duration=10ms");
    assert_eq!(report["replica"], "cpu-load-gen-7d4f");
    assert_eq!(report["overhead_ms"], serde_json::Value::Null, "{report}");
    assert_eq!(server.get("/?iterations=10").status, 200);
    assert_eq!(server.get("/?iterations=11").status, 400);
}

#[test]
fn a_variable_that_cannot_be_used_fails_only_the_requests_that_need_it() {
    let (full, small) = ("cpu=1&duration=1ms", "cpu=1m&duration=1ms");
    // The variable and its value, a query that needs it, and one that does not.
    for (name, value, needs, other) in [
        ("load", "cpu_time=20", "", "iterations=1"),
        ("load", "", "", "iterations=1"),
        ("load", "cpu_time=11s", "", "cpu_time=1ms"),
        ("max_iterations", "many", "iterations=1", ""),
        ("max_cpu_time", "", "cpu_time=1ms", "iterations=1"),
        ("max_cpu_time", "1d", full, small),
        ("max_duration", "-1m", full, ""),
        ("max_sustained_cpu", "2", small, "cpu_time=1ms"),
        ("pause_overhead", "1d", "cpu_time=1ms", "iterations=1"),
    ] {
        let server = Server::start(&[(name, value)]);
        let given = value.rsplit('=').next().expect("a part");
        let response = server.get(&format!("/?{needs}"));
        assert_problem(&response, 500, &[name, given], needs);
        let response = server.get(&format!("/?{other}"));
        assert_eq!(response.status, 200, "{name}={value}: {response:?}");
    }
}

/// The manifest of another app, with the lines of the README.
#[test]
fn the_component_works_in_another_app_with_the_defaults_of_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file| fs::read_to_string(root.join(file)).expect(file);
    let readme = read("README.md");
    let (_, lines) = readme.split_once("```toml\n").expect("lines of TOML");
    let (lines, _) = lines.split_once("```").expect("their end");
    let wasm = root.join("target/wasm32-wasip1/release/cpu_load_gen.wasm");
    let lines = lines.replace("cpu-load-gen.wasm", wasm.to_str().expect("UTF-8"));
    let other = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-app.toml");
    let head = "spin_manifest_version = 2\napplication = { name = \"other\" }\n";
    fs::write(&other, format!("{head}{lines}")).expect("it is written");
    let runner = Runner::from_env().expect("a runner");
    let server = Launch::new(&runner, &other).and_then(Launch::start);
    let server = server.expect("a server");

    let own: toml::Table = read("spin.toml").parse().expect("TOML");
    let default = |name: &str| own["variables"][name]["default"].as_str().expect("text");
    let response = server.request(Method::HEAD, "/burn");
    assert_eq!(response.status, 200, "{response:?}");
    for (header, value) in [
        ("load", default("load")),
        ("max-iterations", default("max_iterations")),
        ("max-cpu-time", "1s"),
        ("max-duration", default("max_duration")),
        ("max-sustained-cpu", default("max_sustained_cpu")),
    ] {
        assert_eq!(response.header(header), value, "{header}");
    }
    let report = server.get("/burn/a/b?iterations=1000").json();
    assert_eq!(report["digest"], digest(1000));
    assert_eq!(server.get("/burn").json()["load"], default("load"));
    assert_eq!(server.get("/burn?cpu_time=2s").status, 400);
    assert_eq!(server.get("/").status, 404);
}

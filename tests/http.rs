//! The contract over HTTP, tested against the built component.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

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
fn a_number_of_iterations_gives_its_digest() {
    let server = Server::start(&[]);
    // From Python: `for _ in range(1000): digest = hashlib.sha256(digest).digest()`.
    let response = server.get("/?iterations=1000").json();
    let known = "36c1cb4f826ae42ceba848227e0c5f786178ca9dceca6772e5d728d09c30a2f6";
    assert_eq!(response["digest"], known);
    for iterations in [0, 1, 2, 12_345] {
        let response = server.get(&format!("/?iterations={iterations}")).json();
        assert_eq!(response["load"], format!("iterations={iterations}"));
        assert_eq!(response["iterations"], iterations);
        assert_eq!(response["digest"], digest(iterations));
    }
}

#[test]
fn a_load_is_run_and_reported() {
    let server = Server::start(&[]);
    // The query, the load in the report, and the least CPU time.
    let loads = [
        ("", "cpu_time=20ms", 20.0),
        ("?", "cpu_time=20ms", 20.0),
        ("?cpu_time=0.001s500us", "cpu_time=1.5ms", 1.5),
        ("?cpu%5Ftime=%32ms", "cpu_time=2ms", 2.0),
        ("?cpu_time=1500%C2%B5s", "cpu_time=1.5ms", 1.5),
        ("?cpu_time=1500%CE%BCs", "cpu_time=1.5ms", 1.5),
        ("?duration=0.2s&cpu=0.25", "cpu=250m&duration=200ms", 0.0),
        ("?cpu=1&duration=50ms", "cpu=1&duration=50ms", 0.0),
        ("?cpu=1.0&duration=1us", "cpu=1&duration=1us", 0.0),
        ("?cpu=250m&duration=1ns", "cpu=250m&duration=1ns", 0.0),
    ];
    for (query, load, cpu_time_ms) in loads {
        let response = server.get(&format!("/{query}"));
        assert_eq!(response.status, 200, "{query}: {response:?}");
        assert_eq!(response.header("content-type"), "application/json");
        assert_eq!(response.header("cache-control"), "no-store");
        let report = response.json();
        assert_eq!(report["load"], load);
        assert_eq!(report["replica"], serde_json::Value::Null);
        let iterations = report["iterations"].as_u64().expect("iterations");
        assert_eq!(report["digest"], digest(iterations), "{report}");
        let used = ["cpu_time_ms", "overhead_ms"].map(|name| report[name].as_f64());
        let used: f64 = used.into_iter().map(|time| time.expect("a time")).sum();
        assert!(used >= cpu_time_ms, "{report}");
        assert!(report["elapsed_ms"].as_f64() > Some(0.0), "{report}");
    }
}

#[test]
fn a_paced_load_takes_its_duration_and_no_more_than_its_share() {
    let server = Server::start(&[]);
    let report = server.get("/?cpu=250m&duration=1.2s").json();
    assert!(report["elapsed_ms"].as_f64() >= Some(1200.0), "{report}");
    let cpu_time_ms = report["cpu_time_ms"].as_f64().expect("a CPU time");
    assert!(cpu_time_ms > 0.0 && cpu_time_ms < 310.0, "{report}");
}

#[test]
fn any_path_is_served() {
    let server = Server::start(&[]);
    for path in ["/", "/load", "/some/prefix/", "/a%20b", "/robots"] {
        let response = server.get(&format!("{path}?iterations=1"));
        assert_eq!(response.json()["iterations"], 1, "{path}");
    }
    assert_eq!(server.get("/.well-known/spin/health").body, "OK");
}

#[test]
fn a_query_that_is_not_a_load_is_rejected() {
    let server = Server::start(&[]);
    // The query, the parameter at fault, and words of the detail.
    let queries: &[(&str, Option<&str>, &[&str])] = &[
        (
            "iteration=5",
            Some("iteration"),
            &["\"iteration\"", "iterations=N"],
        ),
        ("cpu_time=20ms&verbose=1", Some("verbose"), &["verbose"]),
        ("&", Some(""), &["cpu_time=D"]),
        ("iterations=5&", Some(""), &["iterations=N"]),
        ("iterations=1&iterations=1", Some("iterations"), &["twice"]),
        ("cpu=250m", Some("cpu"), &["`duration`"]),
        ("duration=1s", Some("duration"), &["`cpu`"]),
        (
            "iterations=1&cpu_time=1ms",
            None,
            &["iterations", "cpu_time"],
        ),
        (
            "cpu=1&duration=1s&cpu_time=1s",
            None,
            &["cannot be combined"],
        ),
        ("iterations", Some("iterations"), &["\"\"", "digits"]),
        ("iterations=", Some("iterations"), &["digits"]),
        ("iterations=-1", Some("iterations"), &["\"-1\""]),
        ("iterations=%2B1", Some("iterations"), &["\"+1\""]),
        ("iterations=1.5", Some("iterations"), &["whole number"]),
        (
            "iterations=18446744073709551616",
            Some("iterations"),
            &["2^64"],
        ),
        ("cpu_time=20", Some("cpu_time"), &["\"20\"", "unit"]),
        ("cpu_time=0s", Some("cpu_time"), &["more than zero"]),
        ("cpu_time=-1s", Some("cpu_time"), &["\"-1s\""]),
        ("cpu_time=99999999h", Some("cpu_time"), &["2562047h"]),
        (
            "cpu_time=1d",
            Some("cpu_time"),
            &["ns, us or µs, ms, s, m, h"],
        ),
        ("cpu_time=1e3s", Some("cpu_time"), &["1e3s"]),
        ("cpu_time=inf", Some("cpu_time"), &["inf"]),
        ("cpu=0&duration=1s", Some("cpu"), &["above 0"]),
        ("cpu=1001m&duration=1s", Some("cpu"), &["at most 1"]),
        ("cpu=1e-1&duration=1s", Some("cpu"), &["1e-1"]),
        ("cpu=NaN&duration=1s", Some("cpu"), &["NaN"]),
        (
            "cpu=0.0000000001&duration=1s",
            Some("cpu"),
            &["0.0000000001", "nanocores"],
        ),
        ("cpu=250m&duration=", Some("duration"), &["duration"]),
        (
            "iterations=%zz",
            Some("iterations"),
            &["`iterations` is not percent-encoded", "%zz"],
        ),
        ("iterations=%3", Some("iterations"), &["percent-encoded"]),
        ("%ff=1", None, &["UTF-8"]),
    ];
    for (query, parameter, said) in queries {
        let response = server.get(&format!("/?{query}"));
        assert_problem(&response, 400, said, query);
        assert_eq!(response.json()["parameter"].as_str(), *parameter, "{query}");
    }
}

#[test]
fn the_problem_of_a_long_query_is_short() {
    let server = Server::start(&[]);
    let response = server.get(&format!("/?iterations={}", "9".repeat(8000)));
    assert_problem(&response, 400, &["999\"…"], "8000 digits");
    assert!(response.body.len() < 500, "{response:?}");
    let response = server.get(&format!("/?{}=1", "x".repeat(8000)));
    assert_problem(&response, 400, &["xxx\"…"], "a key of 8000 letters");
    assert_eq!(response.json()["parameter"], "x".repeat(40) + "…");
    assert!(response.body.len() < 500, "{response:?}");
}

#[test]
fn a_load_above_a_limit_is_rejected() {
    let server = Server::start(&[("max_cpu_time", "50ms"), ("max_sustained_cpu", "0.01")]);
    // The query, the parameter at fault, and words of the detail: the value, the limit and the
    // variable that sets it.
    let queries = [
        (
            "iterations=50000001",
            Some("iterations"),
            ["50000001", "50000000", "max_iterations"],
        ),
        (
            "cpu_time=50.1ms",
            Some("cpu_time"),
            ["50.1ms", "50ms", "max_cpu_time"],
        ),
        (
            "cpu=1m&duration=10m1ns",
            Some("duration"),
            ["10m0.000000001s", "10m", "max_duration"],
        ),
        (
            "cpu=100m&duration=501ms",
            None,
            ["the CPU time", "50ms", "max_cpu_time"],
        ),
        (
            "cpu=10.1m&duration=5s",
            None,
            ["the CPU time", "50ms", "max_cpu_time"],
        ),
    ];
    for (query, parameter, said) in queries {
        let response = server.get(&format!("/?{query}"));
        assert_problem(&response, 400, &said, query);
        assert_eq!(response.json()["parameter"].as_str(), parameter);
    }
    for query in [
        "cpu_time=50ms",
        "cpu=1&duration=50ms",
        "cpu=10m&duration=10m",
    ] {
        let response = server.ask(Method::HEAD, &format!("/?{query}"));
        assert_eq!(response.status, 200, "{query}");
    }
}

#[test]
fn head_validates_and_burns_nothing() {
    let server = Server::start(&[("max_cpu_time", "1h"), ("max_iterations", "99999999999999")]);
    let cases = [
        ("", 200, "application/json"),
        ("?cpu_time=1h", 200, "application/json"),
        ("?iterations=99999999999999", 200, "application/json"),
        ("?cpu_time=2h", 400, "application/problem+json"),
        ("?cpu_time", 400, "application/problem+json"),
    ];
    for (query, status, content_type) in cases {
        let response = server.ask(Method::HEAD, &format!("/{query}"));
        assert_eq!(response.status, status, "{query}");
        assert_eq!(response.header("content-type"), content_type, "{query}");
        assert_eq!(response.body, "", "{query}");
    }
}

#[test]
fn head_reports_the_load_and_the_limits_in_force() {
    let server = Server::start(&[("load", "cpu_time=1500us"), ("max_duration", "3m")]);
    let response = server.ask(Method::HEAD, "/");
    for (name, value) in [
        ("load", "cpu_time=1.5ms"),
        ("max-iterations", "50000000"),
        ("max-cpu-time", "10s"),
        ("max-duration", "3m"),
        ("max-sustained-cpu", "20m"),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
    let response = server.ask(Method::HEAD, "/?duration=90s&cpu=0.02");
    assert_eq!(response.header("load"), "cpu=20m&duration=1m30s");
}

#[test]
fn the_default_limits_allow_the_reference_load_of_kubernetes() {
    let server = Server::start(&[]);
    let response = server.ask(Method::HEAD, "/?cpu=20m&duration=600s");
    assert_eq!(response.status, 200, "{response:?}");
}

#[test]
fn paths_that_clients_request_unasked_burn_nothing() {
    // A burn would fail.
    let server = Server::start(&[("load", "broken")]);
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
        assert_eq!(server.ask(Method::HEAD, path).status, 404, "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose"] {
        let response = server.get(path);
        assert_eq!((response.status, &*response.body), (200, "OK"), "{path}");
        assert_eq!(server.ask(Method::HEAD, path).status, 200, "{path}");
    }
    assert_eq!(server.get("/").status, 500);
}

#[test]
fn another_method_is_not_allowed() {
    let server = Server::start(&[("load", "broken")]);
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
    ] {
        for query in ["", "?iterations=1", "?nonsense"] {
            let response = server.ask(method.clone(), &format!("/{query}"));
            assert_problem(&response, 405, &[method.as_str(), "GET"], method.as_str());
            assert_eq!(response.header("allow"), "GET, HEAD");
        }
    }
}

#[test]
fn variables_set_the_default_load_the_limits_and_the_name() {
    let server = Server::start(&[
        ("load", "duration=10ms&cpu=0.5"),
        ("max_iterations", "10"),
        ("replica", "cpu-load-gen-7d4f"),
    ]);
    let report = server.get("/").json();
    assert_eq!(report["load"], "cpu=500m&duration=10ms");
    assert_eq!(report["replica"], "cpu-load-gen-7d4f");
    assert_eq!(server.get("/?iterations=10").status, 200);
    assert_eq!(server.get("/?iterations=11").status, 400);
}

#[test]
fn a_variable_that_cannot_be_used_fails_only_the_requests_that_need_it() {
    // The variable, its value, a query that needs it, and one that does not.
    let cases = [
        ("load", "cpu_time=20", "", "?cpu_time=1ms"),
        ("load", "", "", "?iterations=1"),
        ("load", "cpu_time=11s", "", "?iterations=1"),
        ("max_iterations", "many", "?iterations=1", "?cpu_time=1ms"),
        ("max_cpu_time", "10", "", "?iterations=1"),
        ("max_cpu_time", "", "?cpu_time=1ms", "?iterations=1"),
        ("max_duration", "-1m", "?cpu=1&duration=1ms", ""),
        ("max_cpu_time", "1d", "?cpu=1&duration=1ms", "?iterations=1"),
        ("max_sustained_cpu", "2", "?cpu=1m&duration=1ms", ""),
    ];
    for (variable, value, needs, does_not) in cases {
        let server = Server::start(&[(variable, value)]);
        let response = server.get(&format!("/{needs}"));
        let value = value.rsplit('=').next().expect("a part");
        assert_problem(&response, 500, &[variable, value], needs);
        assert_eq!(
            server.get(&format!("/{does_not}")).status,
            200,
            "{variable}"
        );
    }
}

#[test]
fn an_overhead_may_be_zero_without_a_unit() {
    let variables = ["request_overhead", "pause_overhead", "yield_overhead"];
    let server = Server::start(&variables.map(|variable| (variable, "0")));
    let report = server.get("/?cpu=100m&duration=50ms").json();
    assert_eq!(report["load"], "cpu=100m&duration=50ms", "{report}");
    assert_eq!(report["overhead_ms"], serde_json::Value::Null, "{report}");
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
    let server = server.unwrap_or_else(|error| panic!("{error:#}"));

    let own: toml::Table = read("spin.toml").parse().expect("TOML");
    let default = |name: &str| own["variables"][name]["default"].as_str().expect("text");
    let response = server.ask(Method::HEAD, "/burn");
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

#[test]
fn forty_requests_at_once_all_succeed() {
    let server = Server::start(&[]);
    let expected = digest(20_000);
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let report = server.get("/?iterations=20000").json();
                assert_eq!(report["digest"], expected);
            });
        }
    });
}

/// Sends the requests one after another over one connection, reading only heads and the bytes that
/// `content-length` announces. Returns the heads.
fn ask_over_one_connection(server: &Server, targets: &[&str]) -> Vec<String> {
    let mut connection =
        BufReader::new(TcpStream::connect(server.address()).expect("a connection"));
    let ask = |target: &&str| {
        let request =
            format!("GET {target} HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\n\r\n");
        let sent = connection.get_mut().write_all(request.as_bytes());
        sent.expect("a request is sent");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = connection.read_line(&mut head).expect("a line");
            assert!(read > 0, "{target}: closed after {head:?}");
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap_or_else(|| panic!("{target}: no length in {head}"));
        let mut body = vec![0; length.parse().expect("a number")];
        connection.read_exact(&mut body).expect("a body");
        head
    };
    targets.iter().map(ask).collect()
}

#[test]
fn an_http_1_0_client_can_keep_its_connection() {
    let server = Server::start(&[]);
    // None of them burns, so that even a slow machine sends each in one piece.
    let targets = ["/?iterations=0", "/?nonsense", "/robots.txt", "/healthz"];
    let heads = ask_over_one_connection(&server, &targets);
    for (head, target) in heads.iter().zip(targets) {
        assert!(head.starts_with("HTTP/1.0 "), "{target}: {head}");
        assert!(head.contains("connection: keep-alive"), "{target}: {head}");
    }
}

#[test]
fn a_long_response_sends_a_space_each_second() {
    const IDLE: Duration = Duration::from_millis(1800);
    let server = Server::start(&[]);
    let mut connection = TcpStream::connect(server.address()).expect("a connection");
    connection.set_read_timeout(Some(IDLE)).expect("a timeout");
    let request =
        "GET /?cpu=10m&duration=5.5s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection
        .write_all(request.as_bytes())
        .expect("it is sent");
    // Read as by a proxy that closes an idle connection.
    let mut response = String::new();
    let result = connection.read_to_string(&mut response);
    assert!(result.is_ok(), "{result:?} after {response:?}");
    assert!(response.contains("x-accel-buffering: no\r\n"), "{response}");
    // Each is a chunk of one byte.
    assert!(response.matches("1\r\n \r\n").count() >= 4, "{response}");
    assert!(
        response.contains(r#""load":"cpu=10m&duration=5.5s""#),
        "{response}"
    );
}

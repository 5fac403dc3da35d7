//! `openapi.yaml` describes the responses of the component, and so do the examples in the README.

use std::fs;

use serde_json::{Deserializer, Map, Value};
use testkit::{Response, Server, digest};

fn read(file: &str) -> String {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn contract() -> Value {
    serde_saphyr::from_str(&read("openapi.yaml")).expect("YAML")
}

/// A response without the values that differ from run to run.
fn masked(mut response: Value) -> Value {
    let fields = response.as_object_mut().expect("an object");
    let exact = fields
        .get("load")
        .is_none_or(|load| load.as_str().expect("text").starts_with("iterations="));
    for (name, value) in fields {
        let measured =
            name.ends_with("_ms") || (!exact && (name == "iterations" || name == "digest"));
        if measured {
            *value = Value::Null;
        }
    }
    response
}

/// Asserts that a report which a document shows is possible.
fn assert_possible(report: &Value) {
    let iterations = report["iterations"].as_u64().expect("iterations");
    assert_eq!(report["digest"], digest(iterations), "{report}");
    let [cpu_time, waited, elapsed] =
        ["cpu_time_ms", "waited_ms", "elapsed_ms"].map(|name| report[name].as_f64().expect(name));
    assert!(waited > 0.0 && cpu_time + waited <= elapsed, "{report}");
}

/// Asserts that the contract describes `response` for the operation.
fn assert_described(contract: &Value, path: &str, method: &str, response: &Response) {
    let status = response.status.to_string();
    let described = match response.status {
        405 => &contract["components"]["responses"]["MethodNotAllowed"],
        _ => &contract["paths"][path][method]["responses"][&status],
    };
    assert!(
        described.is_object(),
        "{method} {path}: no {status} for {response:?}"
    );
    let empty = Map::new();
    for (name, header) in described["headers"].as_object().unwrap_or(&empty) {
        let value = response.header(name);
        assert!(
            header["required"] != true || !value.is_empty(),
            "no {name} in {response:?}"
        );
        let expected = header["schema"].get("const");
        assert!(
            expected.is_none_or(|expected| expected == value),
            "{name} in {response:?}"
        );
    }
    let Some(content) = described.get("content") else {
        return assert_eq!(response.body, "");
    };
    let content_type = response.header("content-type");
    let body = match content_type {
        "text/plain" => response.body.clone().into(),
        _ => response.json(),
    };
    let mut schema = content[content_type]["schema"].clone();
    assert!(schema.is_object(), "no schema for {response:?}");
    // It refers to others of the contract.
    schema["components"] = contract["components"].clone();
    let validator = jsonschema::validator_for(&schema).expect("a valid schema");
    if let Err(error) = validator.validate(&body) {
        panic!("{error} in {response:?}");
    }
}

#[test]
fn the_responses_to_the_examples_are_those_of_the_contract() {
    let contract = contract();
    let server = Server::start(&[]);
    let examples = &contract["components"]["parameters"]["load"]["examples"];
    for (name, example) in examples.as_object().expect("examples") {
        let pairs = example["value"].as_object().expect("an object").iter();
        let pair = |(key, value): (_, &Value)| format!("{key}={}", value.as_str().expect("text"));
        let pairs: Vec<String> = pairs.map(pair).collect();
        let response = server.get(&format!("/?{}", pairs.join("&")));
        assert_described(&contract, "/", "get", &response);
        let described = &contract["paths"]["/"]["get"]["responses"][response.status.to_string()];
        let written =
            &described["content"][response.header("content-type")]["examples"][name]["value"];
        assert!(written.is_object(), "{name} gets {response:?}");
        let actual = masked(response.json());
        if response.status == 200 {
            assert_possible(written);
        }
        let expected = masked(written.clone());
        assert_eq!(actual, expected, "{name}");
    }
}

#[test]
fn every_response_is_described() {
    let contract = contract();
    let server = Server::start(&[("max_duration", "broken"), ("replica", "a")]);
    for (path, query) in [
        ("/", ""),
        ("/", "?iterations=1"),
        ("/", "?cpu_time=1h"),
        ("/", "?nonsense"),
        ("/", "?cpu=1&duration=1s"),
        ("/", "?cpu=1"),
        ("/healthz", ""),
        ("/robots.txt", ""),
    ] {
        for method in "GET HEAD POST PUT PATCH DELETE OPTIONS".split(' ') {
            let sent = method.parse().expect("a method");
            let response = server.request(sent, &format!("{path}{query}"));
            // Like GET, without the body.
            if method != "HEAD" || path == "/" {
                assert_described(&contract, path, &method.to_lowercase(), &response);
            }
        }
    }
}

#[test]
fn the_readme_shows_real_responses() {
    let server = Server::start(&[]);
    let readme = read("README.md");
    let mut shown = 0;
    for example in readme
        .split("$ curl --silent 'http://127.0.0.1:3000")
        .skip(1)
    {
        let (path, rest) = example.split_once('\'').expect("a quoted URL");
        let Some(json) = rest.strip_prefix(" | jq\n") else {
            continue;
        };
        let written = Deserializer::from_str(json).into_iter::<Value>().next();
        let written = written.expect("a response").expect("JSON");
        assert_possible(&written);
        assert_eq!(masked(server.get(path).json()), masked(written), "{path}");
        shown += 1;
    }
    assert!(shown > 0);
}

#[test]
fn contract_and_manifest_have_the_version_of_the_component() {
    let manifest: toml::Table = read("spin.toml").parse().expect("TOML");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(contract()["info"]["version"], version);
    assert_eq!(manifest["application"]["version"].as_str(), Some(version));
}

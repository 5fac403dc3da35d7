//! `openapi.yaml` describes the responses of the component, and so do the examples in the README.

use std::fs;

use jsonschema::Validator;
use serde_json::{Deserializer, Map, Value};
use testkit::{Method, Response, Server, digest};

fn read(file: &str) -> String {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn contract() -> Value {
    serde_saphyr::from_str(&read("openapi.yaml")).expect("YAML")
}

/// A validator for a schema that refers to others of the contract.
fn validator(contract: &Value, schema: &Value) -> Validator {
    let mut root = schema.clone();
    root["components"] = contract["components"].clone();
    jsonschema::validator_for(&root).expect("a valid schema")
}

/// A response without the values that differ from run to run.
fn masked(mut answer: Value) -> Value {
    let fields = answer.as_object_mut().expect("an object");
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
    answer
}

/// Asserts that a report which a document shows is possible.
fn assert_possible(report: &Value) {
    let iterations = report["iterations"].as_u64().expect("iterations");
    assert_eq!(report["digest"], digest(iterations), "{report}");
    let [cpu_time, waited, elapsed] =
        ["cpu_time_ms", "waited_ms", "elapsed_ms"].map(|name| report[name].as_f64().expect(name));
    assert!(waited > 0.0 && cpu_time + waited <= elapsed, "{report}");
}

/// Asserts that the contract describes `answer` for the operation.
fn assert_described(contract: &Value, path: &str, method: &str, answer: &Response) {
    let status = answer.status.to_string();
    let response = match answer.status {
        405 => &contract["components"]["responses"]["MethodNotAllowed"],
        _ => &contract["paths"][path][method]["responses"][&status],
    };
    assert!(
        response.is_object(),
        "{method} {path}: no {status} for {answer:?}"
    );
    let empty = Map::new();
    for (name, header) in response["headers"].as_object().unwrap_or(&empty) {
        let value = answer.header(name);
        assert!(
            header["required"] != true || !value.is_empty(),
            "no {name} in {answer:?}"
        );
        let expected = header["schema"].get("const");
        assert!(
            expected.is_none_or(|expected| expected == value),
            "{name} in {answer:?}"
        );
    }
    let Some(content) = response.get("content") else {
        return assert_eq!(answer.body, "");
    };
    let content_type = answer.header("content-type");
    let body = match content_type {
        "text/plain" => answer.body.clone().into(),
        _ => answer.json(),
    };
    let schema = &content[content_type]["schema"];
    assert!(schema.is_object(), "no schema for {answer:?}");
    if let Err(error) = validator(contract, schema).validate(&body) {
        panic!("{error} in {answer:?}");
    }
}

#[test]
fn the_responses_to_the_examples_are_those_of_the_contract() {
    let contract = contract();
    let server = Server::start(&[]);
    let examples = contract["components"]["parameters"]["load"]["examples"]
        .as_object()
        .expect("examples");
    for (name, example) in examples {
        let pairs = example["value"].as_object().expect("an object");
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().expect("text")))
            .collect();
        let answer = server.get(&format!("/?{}", pairs.join("&")));
        assert_described(&contract, "/", "get", &answer);
        let response = &contract["paths"]["/"]["get"]["responses"][answer.status.to_string()];
        let written =
            &response["content"][answer.header("content-type")]["examples"][name]["value"];
        assert!(written.is_object(), "{name} is answered {answer:?}");
        let answered = masked(answer.json());
        if answer.status == 200 {
            assert_possible(written);
        }
        let expected = masked(written.clone());
        assert_eq!(answered, expected, "{name}");
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
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = server.ask(
                Method::from_bytes(method.as_bytes()).expect("a method"),
                &format!("{path}{query}"),
            );
            // Like GET, without the body.
            if method != "HEAD" || path == "/" {
                assert_described(&contract, path, &method.to_lowercase(), &answer);
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
fn the_contract_has_the_version_of_the_component() {
    assert_eq!(contract()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

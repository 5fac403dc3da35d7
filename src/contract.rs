//! The patterns of `openapi.yaml` accept the queries that the parser accepts, and any load is
//! formatted so that it parses to the same.

use go_duration::GoDuration;
use jsonschema::Validator;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use crate::load::Load;

/// A validator of the schema of a query.
fn schema() -> Validator {
    let contract: Value =
        serde_saphyr::from_str(include_str!("../openapi.yaml")).expect("valid YAML");
    let mut root = json!({"$ref": "#/components/schemas/Load"});
    root["components"] = contract["components"].clone();
    jsonschema::validator_for(&root).expect("a valid schema")
}

/// The query as the object that the schema describes; none if it has a key twice, as no object can,
/// or if it is not UTF-8.
fn object(query: &str) -> Option<Map<String, Value>> {
    let decoded = |text| percent_decode_str(text).decode_utf8().ok();
    let mut object = Map::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if object
            .insert(decoded(key)?.into(), decoded(value)?.into())
            .is_some()
        {
            return None;
        }
    }
    Some(object)
}

/// Whether a value that matches its pattern is rejected for its size alone: an integer of 2^64 or
/// more, a duration that rounds to zero or does not fit into 64 bits.
fn is_out_of_range(key: &str, value: &str) -> bool {
    match key {
        "iterations" => value.parse::<u64>().is_err(),
        "cpu_time" | "duration" => !matches!(value.parse(), Ok(GoDuration(1..))),
        _ => false,
    }
}

fn assert_agreement(schema: &Validator, query: &str) {
    let parsed: Result<Load, _> = query.parse();
    let described = object(query).filter(|object| schema.is_valid(&object.clone().into()));
    match (&parsed, &described) {
        (Ok(load), Some(_)) => assert_eq!(load.to_string().parse(), Ok(*load), "{query}"),
        (Err(_), None) => {}
        (Ok(load), None) => panic!("{query} is parsed as {load}, and not described"),
        (Err(error), Some(object)) => {
            let mut values = object.iter();
            assert!(
                values.any(|(key, value)| is_out_of_range(key, value.as_str().expect("a string"))),
                "{query}: {error}"
            );
        }
    }
}

#[test]
fn the_patterns_accept_the_queries_that_the_parser_accepts() {
    let schema = schema();
    for line in include_str!("../tests/loads.tsv").lines() {
        let (query, _) = line.split_once('\t').expect("a tab");
        assert_agreement(&schema, query);
    }
    let value = prop_oneof![
        "[0-9]{0,21}",
        "([0-9]{0,3}(\\.[0-9]{0,3})?(ns|us|µs|μs|ms|s|m|h)){0,3}",
        "0{0,2}[01]?[0-9]{0,3}(\\.[0-9]{0,11}0{0,3})?m?",
        "[0-9.nuµμmshe+ -]{0,8}",
        "\\PC{0,4}",
    ];
    let key = prop::sample::select(vec!["iterations", "cpu_time", "cpu", "duration", "other"]);
    let pairs = proptest::collection::vec((key, value), 1..4);
    let cpu = "0{0,1}[01]?[0-9]{0,3}(\\.[0-9]{0,11}0{0,3})?m?";
    let encode = |pairs: &[(&str, String)]| {
        let encoded = pairs
            .iter()
            .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        encoded.collect::<Vec<_>>().join("&")
    };
    TestRunner::new(ProptestConfig::with_cases(5_000))
        .run(&(pairs, cpu), |(pairs, cpu)| {
            let paced = [("cpu", cpu), ("duration", pairs[0].1.clone())];
            for query in [encode(&pairs), encode(&pairs[..1]), encode(&paced)] {
                assert_agreement(&schema, &query);
            }
            Ok(())
        })
        .expect("agreement");
}

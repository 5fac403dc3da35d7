//! The command line and the result of [bombardier](https://github.com/codesenberg/bombardier).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to install it.
pub const INSTALL: &str = "go install github.com/codesenberg/bombardier@latest";

/// The program and its arguments for a load whose [`Report`] it prints, without a progress bar.
/// `timeout`, the time limit of each request, and `duration` are whole seconds.
pub fn command(connections: u32, timeout: Duration, duration: Duration, url: &str) -> Vec<String> {
    let [timeout, duration] = [timeout, duration].map(|time| time.as_secs());
    let options = format!("-o json -p r -l -c {connections} -t {timeout}s -d {duration}s");
    let words = ["bombardier"].into_iter().chain(options.split(' '));
    words.chain([url]).map(Into::into).collect()
}

/// The part of its result that is used; latencies in microseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    #[serde(rename = "timeTakenSeconds")]
    pub seconds: f64,
    pub req1xx: u64,
    pub req2xx: u64,
    pub req3xx: u64,
    pub req4xx: u64,
    pub req5xx: u64,
    pub others: u64,
    #[serde(default)]
    pub errors: Vec<Failure>,
    pub latency: Latency,
}

/// Requests without a response, for the same reason.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Failure {
    pub description: String,
    pub count: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Latency {
    pub mean: f64,
    pub max: f64,
    /// With `-l` only.
    pub percentiles: Option<Percentiles>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Percentiles {
    #[serde(rename = "50")]
    pub p50: f64,
    #[serde(rename = "95")]
    pub p95: f64,
}

impl Report {
    /// Reads what it prints with `-o json -p r`; `None` if it is anything else.
    pub fn parse(output: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Output {
            result: Report,
        }
        let output: Option<Output> = serde_json::from_str(output).ok();
        output.map(|output| output.result)
    }

    pub fn requests(&self) -> u64 {
        self.req2xx + self.not_2xx()
    }

    /// Responses with another status, and requests without a response.
    pub fn not_2xx(&self) -> u64 {
        self.req1xx + self.req3xx + self.req4xx + self.req5xx + self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_understood() {
        let output = r#"{"spec":{"numberOfConnections":2},"result":{"bytesRead":1,"bytesWritten":2,
            "timeTakenSeconds":1.5,"req1xx":0,"req2xx":980,"req3xx":0,"req4xx":1,"req5xx":2,
            "others":4,"errors":[{"description":"dial tcp: connection refused","count":4}],
            "latency":{"mean":2036.2,"stddev":4866.8,"max":54883,"percentiles":
            {"50":1025,"75":1505,"90":2810,"95":4785,"99":29829}},"rps":{"mean":981.7}}}"#;
        let report = Report::parse(output).expect("it is a result");
        assert_eq!((report.requests(), report.not_2xx()), (987, 7));
        let percentiles = report.latency.percentiles.expect("they are there");
        assert_eq!(percentiles.p95, 4785.0);
        assert_eq!(Report::parse("Statistics"), None);
    }
}

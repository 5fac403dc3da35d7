//! The HTTP entry point: a query asks for a load, a burn runs it, the response reports it.

mod burn;
mod chain;
mod clock;
mod load;
mod meter;
mod pacer;
mod problem;
mod report;
mod response;
mod scheduler;
mod settings;

use std::time::Duration;

use anyhow::Result;
use http::StatusCode;
use spin_sdk::http::{IncomingRequest, Method, ResponseOutparam};

use burn::burn;
use clock::HostClock;
use load::Load;
use problem::Problem;
use report::Report;
use response::Response;

/// The wall-clock time after which the head of a response is sent before its body is known, so that
/// a disconnected client is noticed. Earlier it would delay a short response by up to 40 ms: two
/// small packets meet delayed acknowledgements.
const HEAD_DELAY: Duration = Duration::from_secs(1);

/// The time between two spaces that a long response sends before its JSON: proxies close an idle
/// connection, many after a minute and some after ten seconds.
const SPACE_INTERVAL: Duration = Duration::from_secs(5);

const REPORT_HEADERS: [(&str, &str); 2] = [
    ("content-type", "application/json"),
    ("cache-control", "no-store"),
];
const PROBLEM_HEADERS: [(&str, &str); 2] = [
    ("content-type", "application/problem+json"),
    ("allow", "GET, HEAD"),
];

/// The export of the component. Native builds, for the tests, cannot link such names.
#[cfg(target_family = "wasm")]
#[allow(unsafe_code)] // The macro's code takes raw memory from the host.
mod export {
    use super::{IncomingRequest, ResponseOutparam};

    #[spin_sdk::http_component]
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        super::handle(request, out);
    }
}

pub fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let dry_run = request.method() == Method::Head;
    let result = match validate(&request) {
        Ok(_) if dry_run => {
            Response::new(out, 200, &REPORT_HEADERS).and_then(|response| response.finish(b""))
        }
        Ok((load, replica)) => run(load, replica, out),
        Err(problem) => refuse(&problem, dry_run, out),
    };
    if let Err(error) = result {
        eprintln!("{error:#}");
    }
}

/// The load that a request asks for and the name of this replica, or the reason for a refusal.
fn validate(request: &IncomingRequest) -> Result<(Load, Option<String>), Problem> {
    match request.method() {
        Method::Get | Method::Head => {}
        other => return Err(problem::method_not_allowed(&other.to_string())),
    }
    let target = request.path_with_query().unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    settings::load(query)
        .and_then(|load| Ok((load, settings::replica()?)))
        .map_err(|rejection| problem::rejected(&rejection))
}

fn run(load: Load, replica: Option<String>, out: ResponseOutparam) -> Result<()> {
    let mut response = Response::new(out, 200, &REPORT_HEADERS)?;
    let mut space_due = SPACE_INTERVAL;
    let burnt = burn(load, &HostClock, |elapsed| {
        if elapsed >= HEAD_DELAY {
            response.send_head();
        }
        if elapsed >= space_due {
            space_due = elapsed + SPACE_INTERVAL;
            return response.send_space();
        }
        response.check()
    });
    let Ok(burnt) = burnt else {
        return Ok(());
    };
    let report = Report::new(load, &burnt, replica);
    response.finish(&serde_json::to_vec(&report)?)
}

fn refuse(problem: &Problem, dry_run: bool, out: ResponseOutparam) -> Result<()> {
    let status = problem.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Only a method that is not allowed requires the header that lists the allowed ones (RFC 9110).
    let headers = match status {
        StatusCode::METHOD_NOT_ALLOWED => &PROBLEM_HEADERS[..],
        _ => &PROBLEM_HEADERS[..1],
    };
    let body = serde_json::to_vec(problem)?;
    Response::new(out, status.as_u16(), headers)?.finish(if dry_run { b"" } else { &body })
}

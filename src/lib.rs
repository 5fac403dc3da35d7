//! HTTP entry point: a query asks for a load, the load is burnt, a report is answered.

mod burn;
mod chain;
mod clock;
mod load;
mod meter;
mod problem;
mod report;
mod response;
mod scheduler;
mod settings;

use std::time::Duration;

use anyhow::Result;
use http::StatusCode;
use spin_sdk::http::{IncomingRequest, Method, ResponseOutparam};
use spin_sdk::variables;

use clock::HostClock;
use load::Load;
use problem::Problem;
use report::Report;
use response::Answer;
use settings::Settings;

/// After this much wall-clock time the head of an answer leaves before its body is known, so that
/// a client that leaves is noticed. Earlier it would cost a short burn up to 40 ms: two small
/// packets meet delayed acknowledgements.
const HEAD_FIRST: Duration = Duration::from_secs(1);

/// How often a long answer sends a space ahead of its JSON: proxies close a connection on which
/// nothing moves, many after a minute and some after ten seconds.
const SPACE_EVERY: Duration = Duration::from_secs(5);

const REPORT: [(&str, &str); 2] = [
    ("content-type", "application/json"),
    ("cache-control", "no-store"),
];
const PROBLEM: [(&str, &str); 2] = [
    ("content-type", "application/problem+json"),
    ("allow", "GET, HEAD"),
];

/// What the component exports. Native builds, for the tests, cannot link such names.
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
    let answered = match judge(&request) {
        Ok(_) if dry_run => Answer::new(out, 200, &REPORT).and_then(|answer| answer.finish(b"")),
        Ok((load, replica)) => run(load, replica, out),
        Err(problem) => refuse(&problem, dry_run, out),
    };
    if let Err(error) = answered {
        eprintln!("{error:#}");
    }
}

/// The load that a request asks for and the name of this replica, or what is wrong with it.
fn judge(request: &IncomingRequest) -> Result<(Load, Option<String>), Problem> {
    match request.method() {
        Method::Get | Method::Head => {}
        other => return Err(problem::method_not_allowed(&other.to_string())),
    }
    let settings = Settings(|name: &str| Ok(variables::get(name)?));
    let target = request.path_with_query().unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let load = settings.load(query);
    load.and_then(|load| Ok((load, settings.replica()?)))
        .map_err(|rejection| problem::rejected(&rejection))
}

fn run(load: Load, replica: Option<String>, out: ResponseOutparam) -> Result<()> {
    let mut answer = Answer::new(out, 200, &REPORT)?;
    let mut space_due = SPACE_EVERY;
    let burnt = burn::burn(load, &HostClock, |elapsed| {
        if elapsed >= HEAD_FIRST {
            answer.start();
        }
        if elapsed >= space_due {
            space_due = elapsed + SPACE_EVERY;
            return answer.send_space();
        }
        !answer.is_abandoned()
    });
    match burnt {
        Some(burnt) => answer.finish(&serde_json::to_vec(&Report::new(load, &burnt, replica))?),
        None => Ok(()),
    }
}

fn refuse(problem: &Problem, dry_run: bool, out: ResponseOutparam) -> Result<()> {
    let status = problem.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Only a method that is not allowed asks for the header that names those which are (RFC 9110).
    let headers = match status {
        StatusCode::METHOD_NOT_ALLOWED => &PROBLEM[..],
        _ => &PROBLEM[..1],
    };
    let body = serde_json::to_vec(problem)?;
    Answer::new(out, status.as_u16(), headers)?.finish(if dry_run { b"" } else { &body })
}

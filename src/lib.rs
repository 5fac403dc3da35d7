//! HTTP entry point: a query asks for a load, the load is burnt, a report is answered.

mod answer;
mod burn;
mod chain;
mod clock;
mod load;
mod meter;
mod problem;
mod report;
mod settings;
mod turns;

use std::time::Duration;

use anyhow::Result;
use spin_sdk::http::{IncomingRequest, Method, ResponseOutparam};
use spin_sdk::variables;

use answer::Answer;
use clock::HostClock;
use report::Report;
use settings::Settings;

/// After this much wall-clock time the head of an answer leaves before its body is known, so that
/// a client that leaves is noticed. Earlier it would cost a short burn up to 40 ms: two small
/// packets meet delayed acknowledgements.
const HEAD_FIRST: Duration = Duration::from_secs(1);

// Native builds, for the tests, cannot link the names that a component exports.
#[cfg_attr(target_family = "wasm", spin_sdk::http_component)]
pub fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if let Err(error) = answer(&request, out) {
        eprintln!("{error:#}");
    }
}

fn answer(request: &IncomingRequest, out: ResponseOutparam) -> Result<()> {
    let method = request.method();
    let dry_run = method == Method::Head;
    if !dry_run && method != Method::Get {
        return refuse(
            out,
            &problem::method_not_allowed(&method.to_string()),
            dry_run,
        );
    }
    let settings = Settings(|name: &str| Ok(variables::get(name)?));
    let query = request.path_with_query().unwrap_or_default();
    let query = query.split_once('?').map_or("", |(_, query)| query);
    let (load, replica) = match settings
        .load(query)
        .and_then(|load| Ok((load, settings.replica()?)))
    {
        Ok(judged) => judged,
        Err(rejection) => return refuse(out, &problem::rejected(&rejection), dry_run),
    };
    let mut answer = Answer::new(
        out,
        200,
        &[
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
        ],
    )?;
    if dry_run {
        return answer.finish(b"");
    }
    let burnt = burn::burn(load, &HostClock, |elapsed| {
        if elapsed >= HEAD_FIRST {
            answer.start();
        }
        !answer.is_abandoned()
    });
    match burnt {
        Some(burnt) => answer.finish(&serde_json::to_vec(&Report::new(load, &burnt, replica))?),
        None => Ok(()),
    }
}

fn refuse(out: ResponseOutparam, problem: &problem::Problem, dry_run: bool) -> Result<()> {
    let status = problem.status.unwrap_or_default().as_u16();
    let mut headers = vec![("content-type", "application/problem+json")];
    if status == 405 {
        headers.push(("allow", "GET, HEAD"));
    }
    let body = if dry_run {
        vec![]
    } else {
        serde_json::to_vec(problem)?
    };
    Answer::new(out, status, &headers)?.finish(&body)
}

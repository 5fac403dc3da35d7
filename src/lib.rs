//! The HTTP entry point: a query asks for a load, a burn runs it, the response reports it.

mod burn;
mod chain;
mod clock;
#[cfg(test)]
mod contract;
mod load;
mod meter;
mod overhead;
mod pacer;
mod problem;
mod report;
mod response;
mod scheduler;
mod settings;

use std::time::Duration;

use anyhow::Result;
use spin_sdk::http::{IncomingRequest, Method, ResponseOutparam};

use burn::burn;
use clock::HostClock;
use load::Load;
use overhead::Overhead;
use problem::Problem;
use report::Report;
use response::{Disconnected, Fields, Response};
use settings::Rejection;

/// A long response sends one space per interval ahead of its JSON; its head goes with the first.
///
/// Proxies close an idle connection, and notice that a client has disconnected when they send
/// something to it. A head before the first second would delay a short response by up to 40 ms: two
/// small packets meet delayed acknowledgements.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// Paths of health checks, by convention.
const HEALTH_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Paths, and starts of paths, that browsers, crawlers and collectors of metrics request unasked.
const ABSENT_PATHS: [&str; 3] = ["/metrics", "/robots.txt", "/sitemap.xml"];
const ABSENT_PREFIXES: [&str; 3] = ["/.well-known/", "/apple-touch-icon", "/favicon"];

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

/// The action that a valid request asks for.
enum Action {
    Run(Run),
    CheckHealth,
}

/// A load and the settings that its run needs.
struct Run {
    load: Load,
    overhead: Overhead,
    replica: Option<String>,
}

pub fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let is_head = request.method() == Method::Head;
    let result = match route(&request) {
        Ok(Action::Run(Run { load, .. })) if is_head => dry_run(load, out),
        Ok(Action::Run(run)) => run.respond(out),
        Ok(Action::CheckHealth) => {
            let content = (!is_head).then_some(&b"OK"[..]);
            response::send(out, 200, fields("text/plain"), content)
        }
        Err(problem) => reject(&problem, is_head, out),
    };
    if let Err(error) = result {
        eprintln!("{error:#}");
    }
}

/// The action that a request asks for, or why it is rejected.
fn route(request: &IncomingRequest) -> Result<Action, Problem> {
    match request.method() {
        Method::Get | Method::Head => {}
        other => return Err(problem::method_not_allowed(&other.to_string())),
    }
    let target = request.path_with_query().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    if HEALTH_PATHS.contains(&path) {
        return Ok(Action::CheckHealth);
    }
    let starts_path = |prefix: &&str| path.starts_with(*prefix);
    if ABSENT_PATHS.contains(&path) || ABSENT_PREFIXES.iter().any(starts_path) {
        return Err(problem::not_found(path));
    }
    let run = Run::new(query).map_err(|rejection| problem::rejected(&rejection))?;
    Ok(Action::Run(run))
}

/// Responds with the load that GET would run and the limits in force.
fn dry_run(load: Load, out: ResponseOutparam) -> Result<()> {
    let mut fields = fields("application/json");
    fields.push(("load", load.to_string()));
    match settings::limits() {
        Ok(limits) => fields.extend(limits),
        Err(rejection) => return reject(&problem::rejected(&rejection), true, out),
    }
    response::send(out, 200, fields, None)
}

impl Run {
    fn new(query: &str) -> Result<Self, Rejection> {
        let load = settings::load(query)?;
        Ok(Self {
            load,
            overhead: settings::overhead(load)?,
            replica: settings::replica()?,
        })
    }

    fn respond(self, out: ResponseOutparam) -> Result<()> {
        let mut response = Response::new(out, fields("application/json"));
        let mut space_due = SPACE_INTERVAL;
        let burnt = burn(self.load, self.overhead, &HostClock, |elapsed| {
            if elapsed < space_due {
                return response.check();
            }
            space_due = elapsed + SPACE_INTERVAL;
            response.send_space()
        });
        if burnt
            .as_ref()
            .is_err_and(|error| error.is::<Disconnected>())
        {
            return Ok(());
        }
        let report = Report::new(self.load, &burnt?, self.replica);
        response.finish(&serde_json::to_vec(&report)?)
    }
}

fn reject(problem: &Problem, is_head: bool, out: ResponseOutparam) -> Result<()> {
    let mut fields = fields("application/problem+json");
    if problem.status == 405 {
        // Required for this status (RFC 9110, section 15.5.6).
        fields.push(("allow", "GET, HEAD".into()));
    }
    let content = serde_json::to_vec(problem)?;
    response::send(out, problem.status, fields, (!is_head).then_some(&content))
}

fn fields(content_type: &str) -> Fields {
    vec![
        ("content-type", content_type.into()),
        ("cache-control", "no-store".into()),
    ]
}

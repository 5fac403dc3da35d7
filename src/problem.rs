//! The problem details (RFC 9457) of a request that is refused.

use std::borrow::Cow;

use http::StatusCode;
use problem_details::ProblemDetails;
use serde::Serialize;

use crate::load::shorten;
use crate::settings::Rejection;

/// Problem details of the type `about:blank`, whose title is that of the status.
pub type Problem = Box<ProblemDetails<Fault>>;

/// The member that this project adds to the standard ones.
#[derive(Serialize)]
pub struct Fault {
    /// The parameter of the query that is at fault, if it is a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
}

/// The problem of a request whose method is neither GET nor HEAD.
pub fn method_not_allowed(method: &str) -> Problem {
    let method = shorten(method);
    let detail = format!("{method} is not allowed; use GET, or HEAD for a dry run");
    problem(StatusCode::METHOD_NOT_ALLOWED, detail, None)
}

/// The problem of a request for a path at which there is nothing.
pub fn not_found(path: &str) -> Problem {
    let detail = format!("nothing is served at {path}; most other paths run a load");
    problem(StatusCode::NOT_FOUND, detail, None)
}

/// The problem of a request whose load is rejected.
pub fn rejected(rejection: &Rejection) -> Problem {
    let (status, parameter) = match rejection {
        Rejection::Query(error) => (StatusCode::BAD_REQUEST, error.parameter()),
        Rejection::AboveLimit(above) => (StatusCode::BAD_REQUEST, above.parameter.map(Cow::from)),
        Rejection::Variable { .. } => (StatusCode::INTERNAL_SERVER_ERROR, None),
    };
    problem(status, rejection.to_string(), parameter)
}

fn problem(status: StatusCode, detail: String, parameter: Option<Cow<'_, str>>) -> Problem {
    let parameter = parameter.map(Cow::into_owned);
    ProblemDetails::from_status_code(status)
        .with_detail(detail)
        .with_extensions(Fault { parameter })
        .boxed()
}

//! The problem details (RFC 9457) of a request that is rejected.

use std::borrow::Cow;

use serde::Serialize;

use crate::load::shorten;
use crate::settings::Rejection;

/// Problem details of the type `about:blank`, whose title is that of the status.
#[derive(Serialize)]
pub struct Problem {
    title: &'static str,
    pub status: u16,
    detail: String,
    /// The parameter of the query that is at fault, if it is a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
}

/// The problem of a request whose method is neither GET nor HEAD.
pub fn method_not_allowed(method: &str) -> Problem {
    let method = shorten(method);
    Problem {
        title: "Method Not Allowed",
        status: 405,
        detail: format!("{method} is not allowed; use GET, or HEAD for a dry run"),
        parameter: None,
    }
}

/// The problem of a request for a path at which there is nothing.
pub fn not_found(path: &str) -> Problem {
    let path = shorten(path);
    Problem {
        title: "Not Found",
        status: 404,
        detail: format!("nothing is served at {path}; most other paths run a load"),
        parameter: None,
    }
}

/// The problem of a request whose load is rejected.
pub fn rejected(rejection: &Rejection) -> Problem {
    let (status, title, parameter) = match rejection {
        Rejection::Query(error) => (400, "Bad Request", error.parameter()),
        Rejection::AboveLimit(above) => (400, "Bad Request", above.parameter.map(Cow::from)),
        Rejection::Variable { .. } => (500, "Internal Server Error", None),
    };
    Problem {
        title,
        status,
        detail: rejection.to_string(),
        parameter: parameter.map(Cow::into_owned),
    }
}

//! Baseline: the smallest Spin HTTP component, for the cost of a request without a load.

use spin_sdk::http::{IntoResponse, Request, Response};

#[spin_sdk::http_component]
fn hello(_request: Request) -> anyhow::Result<impl IntoResponse> {
    Ok(Response::builder()
        .status(200)
        .header("content-type", "text/plain")
        .body("Hello, world!")
        .build())
}

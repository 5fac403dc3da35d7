//! Baseline: the smallest Spin HTTP component, for the cost of a request without a load.

use spin_sdk::http::{IntoResponse, Request, Response};

#[allow(unsafe_code)] // The macro's code takes raw memory from the host.
mod export {
    use super::{IntoResponse, Request};

    #[spin_sdk::http_component]
    fn handle(_request: Request) -> anyhow::Result<impl IntoResponse> {
        Ok(super::hello())
    }
}

fn hello() -> impl IntoResponse {
    Response::builder()
        .status(200)
        .header("content-type", "text/plain")
        .body("Hello, world!")
        .build()
}

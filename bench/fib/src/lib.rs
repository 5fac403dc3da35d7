//! Baseline: what the SpinKube autoscaling sample does for a request, fib(43) in one go.

use std::hint::black_box;

use spin_sdk::http::{IntoResponse, Request, Response};
use spin_sdk::http_component;

fn fib(n: u32) -> u64 {
    if n < 2 {
        u64::from(n)
    } else {
        fib(n - 1) + fib(n - 2)
    }
}

#[http_component]
fn handle(_request: Request) -> anyhow::Result<impl IntoResponse> {
    let n = 43;
    let result = fib(black_box(n));
    Ok(Response::builder()
        .status(200)
        .header("content-type", "text/plain")
        .body(format!("fib({n}) = {result}\n"))
        .build())
}

//! Controls, which burn CPU in one go: `/fib`, the fib(43) of the SpinKube autoscaling sample, in
//! Rust, and `/chain?N`, N iterations of the chain that our component makes, without a wait.

use std::hint::black_box;

use spin_sdk::http::{IntoResponse, Request, Response};

#[path = "../../../../src/chain.rs"]
mod chain;

fn fib(n: u32) -> u64 {
    if n < 2 {
        u64::from(n)
    } else {
        fib(n - 1) + fib(n - 2)
    }
}

#[spin_sdk::http_component]
fn burn(request: Request) -> anyhow::Result<impl IntoResponse> {
    let body = if request.path() == "/fib" {
        format!("fib(43) = {}\n", fib(black_box(43)))
    } else {
        let mut chain = chain::Chain::default();
        chain.extend(request.query().parse()?);
        format!("{} iterations: {}\n", chain.iterations(), chain.digest())
    };
    Ok(Response::builder()
        .status(200)
        .header("content-type", "text/plain")
        .body(body)
        .build())
}

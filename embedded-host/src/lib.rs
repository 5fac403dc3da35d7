//! Serves the Spin application of a `spin.toml` over HTTP on Wasmtime, where Spin itself is not installed.
//!
//! It runs what Spin 3 would run, with the engine settings that change how the guest's code runs, and a new
//! instance for every request. It serves one component with one HTTP trigger and knows no runtime config.
//!
//! ```no_run
//! # async fn example() -> Result<(), embedded_host::Error> {
//! let server = embedded_host::Server::start(embedded_host::Options {
//!     manifest: "spin.toml".into(),
//!     listen: ([127, 0, 0, 1], 0).into(),
//!     variables: [("load".to_owned(), "iterations=1000".to_owned())].into(),
//! })
//! .await?;
//! println!("http://{}/", server.addr());
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

mod error;
mod guest;
mod manifest;
mod server;
mod variables;

pub use error::Error;
pub use server::{Options, Server};
pub use variables::from_env as variables_from_env;

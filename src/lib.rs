//! Taskyard takes tasks over gRPC, runs them on a fixed pool of workers, and
//! streams every start and finish to whoever is watching. Durable by default,
//! in one binary.
//!
//! The modules stand in the order in which a task passes through them:
//! [`grpc`] ─▶ [`admission`] ─▶ [`store`] ─▶ [`pool`] ─▶ [`handler`], with
//! [`events`] leading from the store's commits back to the watchers. [`task`],
//! [`queue`] and [`event`] are the domain that all of them speak; [`server`] puts them
//! together. `docs/design.md` is the full account.
//!
//! To run kinds of task of your own, implement [`handler::Handler`] and hand it
//! to [`App`]:
//!
//! ```no_run
//! use taskyard::{App, handler::{Error, Execution, Output}};
//!
//! async fn greet(execution: Execution) -> Result<Output, Error> {
//!     let name: String = execution.arg("name")?;
//!     Ok(Output::json(&format!("Hello, {name}!"))?)
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     App::new().handler("greet", greet).run()
//! }
//! ```

pub mod config;
pub mod drain;
pub mod grpc;
pub mod handler;
pub mod pool;
pub mod server;
pub mod telemetry;

mod app;
mod commands;
mod process;

pub use app::App;
pub use taskyard_cli::Exit;
pub use taskyard_client as client;
pub use taskyard_domain::{event, queue, sizing, task};
pub use taskyard_engine::{admission, events, store, supervisor};
pub use taskyard_proto as proto;

use taskyard_engine::failpoint;

//! The engine of Taskyard: it admits tasks, decides what becomes of them, commits that,
//! and publishes what happened.
//!
//! Must not know gRPC, handlers, configuration files or the command line: the server puts
//! those around it. [`admission`] hands out permits, [`store`] decides and commits, and
//! [`events`] leads from its commits to the watchers. `docs/design.md` is the full account.

pub mod admission;
pub mod events;
pub mod store;
pub mod supervisor;

#[doc(hidden)]
pub mod failpoint;

use taskyard_domain::{event, queue, task};
use taskyard_proto as proto;

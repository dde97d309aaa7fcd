//! What a server's process has from whoever started it, put in order before anything
//! else begins.
//!
//! Owns inherited signal masks and dispositions ([`signals`]), the limit of open files
//! ([`descriptors`]), and the duties of process 1 ([`init`]). Must not know the server.

mod descriptors;
mod init;
mod signals;

pub use descriptors::{Shortage, restore as restore_limits, secure as secure_descriptors};
pub use init::serve_beside_orphans;
pub use signals::{Inherited, hear_no_signals, reset as reset_signals};

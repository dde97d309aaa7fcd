//! The composition: bind, open, serve, drain. Readable from top to bottom.

use std::net::SocketAddr;

use crate::{config::Config, handler::Registry};

/// A running server.
pub struct Server {}

/// Why a server did not start. One clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be served on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// What a drain left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Executions that ended by themselves during the drain.
    pub finished: u64,
    /// Executions that were interrupted; their tasks run again at the next start.
    pub interrupted: u64,
    /// Tasks that wait for the next start, the interrupted ones included.
    pub remaining: u64,
    /// Everything ended within the bound.
    pub complete: bool,
}

impl Server {
    /// Binds the address, opens the store, and serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: &Config, registry: Registry) -> Result<Self, StartError> {
        let _ = (config, registry);
        todo!()
    }

    /// The address it serves on; tells the port that was given for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// Stops taking and starting tasks, lets running ones finish, and ends
    /// within [`Config::drain_timeout`], whatever clients do.
    pub async fn drain(self) -> DrainReport {
        todo!()
    }
}

//! Whose turn a watch is: the server's, which has nothing to tell, or its
//! connection's, which does not ask for what there is.
//!
//! What was last answered does not tell: the library asks until there is nothing more,
//! and then keeps what it was given until its client has room for it. So it counts,
//! too, whether anything has happened since, of which the connection was told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Whose turn it is. As a waker it is the one that a watch's messages have.
#[derive(Debug, Default)]
pub struct Turn {
    asks: AtomicU64,
    is_servers: AtomicBool,
    connection: AtomicWaker,
}

impl Turn {
    /// The connection asks for a message; `waker` tells it that it may ask again.
    pub fn asked(&self, waker: &Waker) {
        self.connection.register(waker);
        self.asks.store(self.asks.load(Relaxed).wrapping_add(1), Relaxed);
        self.is_servers.store(true, Relaxed);
    }

    /// It was given one.
    pub fn answered(&self) {
        self.is_servers.store(false, Relaxed);
    }

    /// Something has happened: the connection may ask again.
    pub fn call(&self) {
        self.is_servers.store(false, Relaxed);
        self.connection.wake();
    }

    /// How often it was asked for a message: changes while its client reads.
    pub fn asks(&self) -> u64 {
        self.asks.load(Relaxed)
    }

    /// Whether it was asked for a message and has none to give.
    pub fn is_servers(&self) -> bool {
        self.is_servers.load(Relaxed)
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.call();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.call();
    }
}

//! Signs of life: whether a silent client is still there.

use std::{pin::Pin, task::Context, time::Duration};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// The client gave no sign of life.
#[derive(Debug)]
pub struct Silent;

/// Asks a client that is silent for a sign of life.
pub struct KeepAlive {
    pings: PingPong,
    /// Silence before it is asked, and then time to answer.
    interval: Duration,
    timer: Pin<Box<Sleep>>,
    /// Bytes received when it was last looked.
    received: u64,
    heard: Instant,
    is_asked: bool,
}

impl KeepAlive {
    /// Begins now.
    pub fn new(pings: PingPong, interval: Duration) -> Self {
        let heard = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(heard + interval));
        Self { pings, interval, timer, received: 0, heard, is_asked: false }
    }

    /// Looks after it; to be called in every turn of the connection, with the bytes that
    /// were received in all.
    ///
    /// # Errors
    /// If the client did not answer in time.
    pub fn poll(&mut self, received: u64, cx: &mut Context<'_>) -> Result<(), Silent> {
        if self.received != received {
            self.received = received;
            self.heard = Instant::now();
        }
        // An error is the connection's end, which it tells by itself.
        if self.is_asked && self.pings.poll_pong(cx).is_ready() {
            self.is_asked = false;
            self.timer.as_mut().reset(self.heard + self.interval);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.is_asked {
                return Err(Silent);
            }
            let mut due = self.heard + self.interval;
            if due <= Instant::now() {
                self.is_asked = self.pings.send_ping(Ping::opaque()).is_ok();
                due = Instant::now() + self.interval;
                if self.is_asked && self.pings.poll_pong(cx).is_ready() {
                    self.is_asked = false;
                }
            }
            self.timer.as_mut().reset(due);
        }
        Ok(())
    }
}

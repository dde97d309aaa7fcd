//! What a call answers, handed to its client as far as that reads it.
//!
//! A message is given to the library a part at a time, as much as the client's windows
//! take, and the next one is asked for when all of the last one was taken. So a client
//! that does not read costs one message, and what the library has for the socket; and only
//! for so long.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body as _;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;

use crate::grpc::shares::{Held, Pressure};

/// Bytes for which a call asks the window at a time.
const MAX_PART: usize = super::MAX_SEND_BUFFER;

/// How often it is looked whether an answer is taken, and how long it may not be while others
/// wait for its room.
const TICK: Duration = Duration::from_secs(1);

/// How long an answer may not be taken.
#[derive(Clone, Debug)]
pub struct Patience {
    /// At most.
    pub timeout: Duration,
    /// Whether others wait for its room.
    pub pressure: Pressure,
}

/// Looks whether an answer is taken.
struct StallTimer {
    patience: Patience,
    taken: Instant,
    tick: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    /// Something was taken.
    fn reset(&mut self) {
        self.taken = Instant::now();
    }

    /// Ready when it has not been taken for too long. To be asked when nothing is.
    fn poll(&mut self, has_room: bool, cx: &mut Context<'_>) -> Poll<()> {
        let Self { patience, taken, tick } = self;
        let step = TICK.min(patience.timeout);
        let tick = tick.get_or_insert_with(|| Box::pin(tokio::time::sleep(step)));
        loop {
            ready!(tick.as_mut().poll(cx));
            let waited = taken.elapsed();
            let is_wanted = has_room && patience.pressure.is_felt();
            if waited >= patience.timeout || (is_wanted && waited >= TICK) {
                return Poll::Ready(());
            }
            tick.as_mut().reset(Instant::now() + step);
        }
    }
}

/// An answer on its way.
pub struct Outgoing {
    stream: SendStream<Bytes>,
    body: Body,
    /// What is left of the message that was asked for.
    left: Bytes,
    /// Unless it has a bound of its own.
    stall: Option<StallTimer>,
    /// Given up when all was handed over.
    room: Option<Held>,
}

impl Outgoing {
    /// Begins to send `body`, which takes `room`.
    pub fn new(
        stream: SendStream<Bytes>,
        body: Body,
        patience: Option<Patience>,
        room: Option<Held>,
    ) -> Self {
        let now = Instant::now();
        let stall = patience.map(|patience| StallTimer { patience, taken: now, tick: None });
        Self { stream, body, left: Bytes::new(), stall, room }
    }

    /// Sends what the client takes. Ready when all was handed over, or nobody wants it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
                return Poll::Ready(reset.and_then(|reason| Err(reason.into())));
            }
            match self.poll_hand_over(cx) {
                Poll::Ready(handed) => handed?,
                Poll::Pending => {
                    let has_room = self.room.is_some();
                    let Some(stall) = &mut self.stall else { return Poll::Pending };
                    ready!(stall.poll(has_room, cx));
                    self.stream.send_reset(h2::Reason::CANCEL);
                    return Poll::Ready(Err(h2::Reason::CANCEL.into()));
                }
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(self.stream.send_data(Bytes::new(), true));
            };
            let Ok(frame) = frame else {
                // The library of gRPC makes a status of every error.
                self.stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Poll::Ready(Ok(()));
            };
            match frame.into_data() {
                Ok(data) => {
                    self.left = data;
                    if let Some(stall) = &mut self.stall {
                        stall.reset();
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(self.stream.send_trailers(trailers));
                    }
                }
            }
        }
    }

    /// Hands over what is left, as far as the windows take it.
    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.left.is_empty() {
            self.stream.reserve_capacity(self.left.len().min(MAX_PART));
            let taken = self.stream.capacity().min(self.left.len());
            if taken > 0 {
                self.stream.send_data(self.left.split_to(taken), false)?;
                if let Some(stall) = &mut self.stall {
                    stall.reset();
                }
                continue;
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(capacity) => drop(capacity?),
                None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
            }
        }
        // Not the last slice of a large message.
        self.left = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

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

/// Bytes of a message that count as taking it. One now and then does not: it would keep the
/// room of all the others.
const LEAST_TAKEN: usize = 16 << 10;

/// Parts of a message, of which one must be taken within [`StallLimit::timeout`]: so all of it
/// is within as many times that.
const PARTS: usize = 8;

/// How long an answer may not be taken.
#[derive(Clone, Debug)]
pub struct StallLimit {
    /// At most.
    pub timeout: Duration,
    /// Whether others wait for its room.
    pub pressure: Pressure,
}

/// Looks whether an answer is taken.
struct StallTimer {
    stall_limit: StallLimit,
    /// Bytes of the message.
    message: usize,
    /// By parts of the message.
    part: Taken,
    /// By the least that counts, while others wait.
    least: Taken,
    tick: Option<Pin<Box<Sleep>>>,
}

/// Since when so many bytes have been taken.
#[derive(Clone, Copy)]
struct Taken {
    since: Instant,
    bytes: usize,
}

impl Taken {
    fn now() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    fn add(&mut self, bytes: usize, enough: usize) {
        self.bytes += bytes;
        if self.bytes >= enough {
            *self = Self::now();
        }
    }
}

impl StallTimer {
    fn new(stall_limit: StallLimit) -> Self {
        let now = Taken::now();
        Self { stall_limit, message: 0, part: now, least: now, tick: None }
    }

    /// All of what came before was taken, and so many bytes are next.
    fn begin(&mut self, message: usize) {
        self.message = message;
        (self.part, self.least) = (Taken::now(), Taken::now());
    }

    /// Something was taken.
    fn taken(&mut self, bytes: usize) {
        self.part.add(bytes, LEAST_TAKEN.max(self.message / PARTS));
        self.least.add(bytes, LEAST_TAKEN);
    }

    /// Ready when it has not been taken for too long. To be asked when nothing is.
    fn poll(&mut self, has_room: bool, cx: &mut Context<'_>) -> Poll<()> {
        let Self { stall_limit, part, least, tick, .. } = self;
        let step = TICK.min(stall_limit.timeout);
        let tick = tick.get_or_insert_with(|| Box::pin(tokio::time::sleep(step)));
        loop {
            ready!(tick.as_mut().poll(cx));
            let is_wanted = has_room && stall_limit.pressure.is_felt();
            if part.since.elapsed() >= stall_limit.timeout
                || (is_wanted && least.since.elapsed() >= TICK)
            {
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
        stall_limit: Option<StallLimit>,
        room: Option<Held>,
    ) -> Self {
        let stall = stall_limit.map(StallTimer::new);
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
                    if let Some(stall) = &mut self.stall {
                        stall.begin(data.len());
                    }
                    self.left = data;
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
                    stall.taken(taken);
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    const MESSAGE: usize = 1 << 20;
    const TIMEOUT: Duration = Duration::from_secs(30);

    fn stall() -> StallTimer {
        let mut stall =
            StallTimer::new(StallLimit { timeout: TIMEOUT, pressure: Pressure::default() });
        stall.begin(MESSAGE);
        stall
    }

    async fn is_waited_for(stall: &mut StallTimer) -> bool {
        poll_fn(|cx| Poll::Ready(stall.poll(true, cx))).await.is_pending()
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_does_not_count_as_taking_it() {
        let (mut stall, began) = (stall(), Instant::now());
        while is_waited_for(&mut stall).await {
            assert!(began.elapsed() < 2 * TIMEOUT, "it keeps its room for ever");
            advance(TICK).await;
            stall.taken(1);
        }
        assert!(began.elapsed() >= TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn each_part_that_is_taken_gives_more_time_for_the_rest() {
        let mut stall = stall();
        for _ in 0..PARTS {
            advance(TIMEOUT.saturating_sub(2 * TICK)).await;
            assert!(is_waited_for(&mut stall).await);
            stall.taken(MESSAGE / PARTS);
        }
    }
}

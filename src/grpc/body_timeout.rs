//! Requests that must arrive: what is there of a message takes memory, and a
//! client that stops in the middle of one must not hold it for ever.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};
use tonic::Status;
use tower::BoxError;

use super::{
    shares::{MAX_REQUEST_BYTES, NoRoom, Room, SMALL, Shares},
    status,
};

/// How long a request may take to arrive, once it has begun; and a part of a message of a
/// stream ([`part`]).
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How much later than that a server that reads finds a message late, at most.
const AWAY: Duration = Duration::from_secs(5);

/// A part of a message of a stream: what must come of it in time. A byte now and then is no
/// sign of life that keeps a message's room: a message arrives within eight times
/// [`ARRIVAL_TIMEOUT`].
const fn part(message: usize) -> usize {
    const LEAST: usize = 16 << 10;
    if message / 8 > LEAST { message / 8 } else { LEAST }
}

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// One message, which arrives in time as a whole.
    OneMessage,
    /// Messages, with as much time between them as the client likes. Within one,
    /// each part of it has the bound: how long a message takes in all depends on when
    /// the server reads on, too.
    Messages,
}

/// The body of a request that must arrive in time.
pub struct BodyTimeout<B> {
    body: B,
    expected: Expected,
    frames: Frames,
    /// Begins when the rest has to be waited for, which it mostly has not.
    late: Option<Pin<Box<Sleep>>>,
    /// Bytes of the message that have come since.
    since_late: usize,
    /// Given up with the request.
    _permit: Option<OwnedSemaphorePermit>,
    /// Where a large message has its room from.
    shares: Option<Shares>,
    room: RoomOf,
}

/// The room of the message that arrives, with the message's number.
enum RoomOf {
    /// It needs none, or it is not known yet.
    None,
    /// It waits for it.
    Wanted(BoxFuture<'static, Result<Room, NoRoom>>, u64),
    /// It has it; given up with the request, or when the message is there.
    Had(#[expect(dead_code, reason = "dropped, when it is no longer needed")] Room, u64),
}

impl<B> BodyTimeout<B> {
    /// Lets `body` arrive, which has `permit` of those of its connection.
    pub fn new(
        body: B,
        expected: Expected,
        shares: Option<Shares>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let frames = Frames::default();
        Self {
            body,
            expected,
            frames,
            late: None,
            since_late: 0,
            _permit: permit,
            shares,
            room: RoomOf::None,
        }
    }

    /// Bytes have come: the next part of a message has all its time again once one is there.
    fn note_arrival(&mut self, bytes: usize, begun_before: u64) {
        if self.expected == Expected::OneMessage {
            return;
        }
        self.since_late = self.since_late.saturating_add(bytes);
        let is_part = self.since_late >= part(self.frames.length);
        let is_message = self.frames.begun != begun_before || self.frames.is_between_messages();
        // Had the server waited for it, it would have found it late long before: it did not read.
        let was_away =
            self.late.as_ref().is_some_and(|late| late.deadline() + AWAY <= Instant::now());
        if is_part || is_message || was_away {
            self.late = None;
            self.since_late = 0;
        }
    }

    /// A message that is there needs no more room for what arrives, though nobody may ask for
    /// the next one for long: a stream that is pushed back keeps nothing from others.
    fn give_up_room_of_what_arrived(&mut self) {
        let has_begun = self.frames.begun;
        if let RoomOf::Had(_, message) = self.room
            && (message != has_begun || self.frames.is_between_messages())
        {
            self.room = RoomOf::None;
        }
    }

    /// Waits for the room of a message that is large, before more of it is taken.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // What came before was read, or it would not be asked for more.
        let is_read = match self.room {
            RoomOf::None => false,
            RoomOf::Wanted(_, message) | RoomOf::Had(_, message) => message != self.frames.begun,
        };
        if is_read || self.frames.is_between_messages() {
            self.room = RoomOf::None;
        }
        if let RoomOf::None = self.room {
            let is_large = self.frames.missing > 0 && self.frames.length > SMALL;
            let Some(shares) = self.shares.clone().filter(|_| is_large) else {
                return Poll::Ready(Ok(()));
            };
            // One that is larger than all of its connection's has all of it.
            let bytes = self.frames.length.min(MAX_REQUEST_BYTES);
            self.room = RoomOf::Wanted(Box::pin(shares.request(bytes)), self.frames.begun);
        }
        if let RoomOf::Wanted(wanted, message) = &mut self.room {
            let (room, message) = (ready!(wanted.as_mut().poll(cx)), *message);
            self.room = RoomOf::Had(room.map_err(|_| status::no_room_for_request())?, message);
            // It was the server that did not read.
            self.late = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<B> http_body::Body for BodyTimeout<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Err(status) = ready!(this.poll_room(cx)) {
            return Poll::Ready(Some(Err(Box::new(status))));
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                let begun = this.frames.begun;
                this.frames.pass(data);
                this.note_arrival(data.len(), begun);
                this.give_up_room_of_what_arrived();
            }
            if this.expected == Expected::OneMessage && this.frames.begun > 1 {
                return Poll::Ready(Some(Err(Box::new(status::too_many_messages()))));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.expected == Expected::Messages && this.frames.is_between_messages() {
            return Poll::Pending;
        }
        let late = this.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(ARRIVAL_TIMEOUT)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Some(Err(Box::new(status::not_arrived(ARRIVAL_TIMEOUT)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Bytes before each message: whether it is compressed, and its length.
const HEADER: usize = 5;

/// Where in the messages of a stream its bytes end.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    of_header: usize,
    /// Bytes of the message that have not.
    missing: usize,
    /// Bytes of the message in all.
    length: usize,
    /// Messages of which something has come.
    begun: u64,
}

impl Frames {
    fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.of_header < HEADER {
                self.begun += u64::from(self.of_header == 0);
                let count = data.len().min(HEADER - self.of_header);
                self.header[self.of_header..self.of_header + count].copy_from_slice(&data[..count]);
                self.of_header += count;
                data = &data[count..];
                if self.of_header < HEADER {
                    return;
                }
                let [_, length @ ..] = self.header;
                self.length = u32::from_be_bytes(length) as usize;
                self.missing = self.length;
            }
            let count = data.len().min(self.missing);
            self.missing -= count;
            data = &data[count..];
            if self.missing == 0 {
                self.of_header = 0;
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.of_header == 0
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, future::poll_fn};

    use http_body::{Body as _, Frame};
    use proptest::{collection::vec, prelude::*};
    use tokio::time::advance;

    use super::*;
    use crate::grpc::shares::{Budgets, ROOM_TIMEOUT};

    /// A request of which some has come, and whose rest never does.
    struct Stuck(VecDeque<Bytes>);

    impl http_body::Body for Stuck {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0
                .pop_front()
                .map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
        }
    }

    fn stuck(came: &[&[u8]], expected: Expected) -> BodyTimeout<Stuck> {
        let came = came.iter().map(|data| Bytes::copy_from_slice(data)).collect();
        BodyTimeout::new(Stuck(came), expected, None, None)
    }

    /// Reads what has come, and how it ends.
    async fn end(mut body: BodyTimeout<Stuck>) -> Status {
        loop {
            let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            if let Err(error) = next.expect("an end") {
                return *error.downcast::<Status>().expect("a status");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_there_keeps_no_room_though_nobody_asks_for_the_next() {
        let shares = Budgets::new(MAX_REQUEST_BYTES as u64, 1 << 20).share();
        let message = vec![7; MAX_REQUEST_BYTES - 1];
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let header = [&[0], &length[..]].concat();
        let came = [header.into(), message.into()].into();
        let mut body =
            BodyTimeout::new(Stuck(came), Expected::Messages, Some(shares.clone()), None);
        for _ in 0..2 {
            let part = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            assert!(part.expect("a part").is_ok());
        }
        assert!(shares.request(MAX_REQUEST_BYTES).await.is_ok(), "there is room for others");
        drop(body);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_is_given_up() {
        for (came, expected) in [
            (&[][..], Expected::OneMessage),
            (&[&[0, 0, 0, 0, 9, 1][..]], Expected::OneMessage),
            (&[&[0, 0, 0][..]], Expected::Messages),
            (&[&[0, 0, 0, 0, 2, 1, 2][..], &[0, 0, 0, 0, 9, 1]], Expected::Messages),
        ] {
            let began = Instant::now();
            let status = end(stuck(came, expected)).await;
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
            assert_eq!(began.elapsed().as_secs(), ARRIVAL_TIMEOUT.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_be_silent_between_its_messages() {
        for came in [&[][..], &[&[0, 0, 0, 0, 2, 1][..], &[2]], &[&[0, 0, 0, 0, 0][..]]] {
            let hours = Duration::from_hours(5);
            let waits = tokio::time::timeout(hours, end(stuck(came, Expected::Messages)));
            assert!(waits.await.is_err(), "it was given up");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_within_a_message_gives_more_time_for_the_rest() {
        const LENGTH: usize = 1 << 20;
        let length = u32::try_from(LENGTH).unwrap().to_be_bytes();
        let mut body = stuck(&[&[&[0], &length[..], &[1]].concat()], Expected::Messages);
        for _ in 0..3 {
            assert!(is_waited_for(&mut body).await);
            advance(NEARLY).await;
            body.body.0.push_back(vec![1; part(LENGTH)].into());
        }
    }

    const NEARLY: Duration = ARRIVAL_TIMEOUT.checked_sub(Duration::from_secs(3)).unwrap();

    /// Reads what has come. Whether there is time for what has not.
    async fn is_waited_for(body: &mut BodyTimeout<Stuck>) -> bool {
        loop {
            match poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await {
                Poll::Ready(frame) if frame.as_ref().expect("a frame").is_ok() => {}
                Poll::Ready(_) => return false,
                Poll::Pending => return true,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_not_an_arrival() {
        let length = 60_000_u32.to_be_bytes();
        let mut body = stuck(&[&[&[0], &length[..], &[1]].concat()], Expected::Messages);
        let began = Instant::now();
        while is_waited_for(&mut body).await {
            assert!(began.elapsed() < 2 * ARRIVAL_TIMEOUT, "it keeps its room for ever");
            advance(Duration::from_secs(1)).await;
            body.body.0.push_back(Bytes::from_static(&[1]));
        }
        assert!(began.elapsed() >= ARRIVAL_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_server_does_not_read_nothing_is_late() {
        let length = 60_000_u32.to_be_bytes();
        let mut body = stuck(&[&[&[0], &length[..], &[1]].concat()], Expected::Messages);
        assert!(is_waited_for(&mut body).await);
        body.body.0.push_back(Bytes::from_static(&[1]));
        advance(2 * ARRIVAL_TIMEOUT).await;
        assert!(is_waited_for(&mut body).await, "it came in time, and was read late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_one_message_has_no_second() {
        for came in [&[&[0, 0, 0, 0, 1, 7, 0][..]][..], &[&[0, 0, 0, 0, 0][..], &[0]]] {
            let status = end(stuck(came, Expected::OneMessage)).await;
            assert_eq!(status.code(), tonic::Code::Unimplemented);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_large_message_of_a_stream_has_a_room_of_its_own() {
        let budgets = Budgets::new(MAX_REQUEST_BYTES as u64, 0);
        let (shares, mut others) = (budgets.share(), Vec::new());
        // All but what the first message takes.
        let left = MAX_REQUEST_BYTES - 2 * SMALL;
        others.push(shares.clone().request(left).await.expect("room"));
        let header = |length: usize| {
            let length = u32::try_from(length).unwrap().to_be_bytes();
            [&[0][..], &length, &[7; 9]].concat()
        };
        let first = header(2 * SMALL);
        let rest = [vec![7; 2 * SMALL - 9], header(4 * SMALL)].concat();
        let came = [first, rest].map(Bytes::from);
        let stuck = Stuck(came.into_iter().collect());
        let mut body = BodyTimeout::new(stuck, Expected::Messages, Some(shares), None);
        let began = Instant::now();
        let status = loop {
            let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            if let Err(error) = next.expect("an end") {
                break *error.downcast::<Status>().expect("a status");
            }
        };
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(began.elapsed(), ROOM_TIMEOUT);
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_are_cut(
            lengths in vec(0..40usize, 1..6),
            cuts in vec(1..12usize, 60),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for length in lengths {
                bytes.extend_from_slice(&[0, 0, 0, 0, u8::try_from(length).unwrap()]);
                bytes.resize(bytes.len() + length, 7);
                ends.push(bytes.len());
            }
            let (mut frames, mut passed) = (Frames::default(), 0);
            for cut in cuts {
                let next = (passed + cut).min(bytes.len());
                frames.pass(&bytes[passed..next]);
                passed = next;
                prop_assert_eq!(frames.is_between_messages(), ends.contains(&passed));
            }
        }
    }
}

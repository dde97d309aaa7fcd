//! Tasks handed in over a stream, and their acknowledgements over another.
//!
//! A stream has a driver, a task of its own: it reads and checks what has arrived, gets
//! permits for it, commits this as one chunk, and reads on meanwhile. It reads only when
//! there is room for a chunk's acknowledgements, and [`MAX_CHUNKS`] of them have room:
//! so a client that does not read them is not read any further. The driver waits neither for
//! its client nor for a check while it holds permits of a queue.
//!
//! What a stream holds is bounded: [`MAX_CHUNKS`] chunks, each of at most
//! [`MAX_CHUNK_TASKS`] tasks and of [`MAX_CHUNK_BYTES`] and one task more; as much that was
//! checked, and waits behind a request that waits for its permit; the
//! message that arrives; and what HTTP/2 lets a client send ahead.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream::FuturesOrdered};
use tokio::{
    select,
    sync::mpsc::{self, OwnedPermit},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};
use tonic_types::pb;
use tracing::Instrument as _;

use super::{LateAdmission, Submitter, is_final, may_be_known, may_wait};
use crate::{
    admission::{Permit, WaitLimit, WhenFull},
    events::BoxFuture,
    grpc::{
        EncodedSubmitStreamResponse, ShutdownTokens, acks::AckWriter, deadline::passed, status,
    },
    handler::{CheckError, Violation},
    proto::v1,
    store::{self, Submission, Submitted},
};

/// Tasks that are committed together.
const MAX_CHUNK_TASKS: usize = 512;
/// Bytes of tasks after which no further one joins a chunk.
const MAX_CHUNK_BYTES: u64 = 1 << 20;
/// Chunks of one stream that were read, and whose acknowledgements were not sent.
const MAX_CHUNKS: usize = 4;

type Message = EncodedSubmitStreamResponse;

/// The acknowledgements of a stream. Dropping it ends the stream.
pub struct Acks {
    messages: mpsc::Receiver<Message>,
    /// How the stream ends; `None` once that is said.
    driver: Option<AbortOnDropHandle<Result<(), Status>>>,
}

impl Acks {
    /// Begins to take tasks, until `shutdown` says that nobody is taken any more.
    pub fn begin(
        submitter: Submitter,
        requests: Streaming<v1::SubmitStreamRequest>,
        deadline: Option<Instant>,
        shutdown: ShutdownTokens,
    ) -> Self {
        let (sender, messages) = mpsc::channel(MAX_CHUNKS);
        let reader = Reader {
            submitter,
            requests,
            messages: sender,
            room: None,
            checked: VecDeque::new(),
            last: None,
            held: None,
            end: None,
        };
        let driver = tokio::spawn(drive(reader, deadline, shutdown).in_current_span());
        Self { messages, driver: Some(AbortOnDropHandle::new(driver)) }
    }
}

impl Stream for Acks {
    type Item = Result<Message, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = ready!(self.messages.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(message)));
        }
        let Some(driver) = &mut self.driver else { return Poll::Ready(None) };
        let end = ready!(driver.poll_unpin(cx));
        self.driver = None;
        Poll::Ready(match end {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(Err(status)),
            Err(ended) => Some(Err(status::panicked(&ended.to_string()))),
        })
    }
}

/// Reads the requests of one stream.
struct Reader {
    submitter: Submitter,
    requests: Streaming<v1::SubmitStreamRequest>,
    messages: mpsc::Sender<Message>,
    /// Room for the acknowledgements of the chunk that is read next.
    room: Option<OwnedPermit<Message>>,
    /// Requests that were read and checked, in order, and have looked for no permit yet.
    checked: VecDeque<Checked>,
    /// How the requests ended, once there are no more than those above.
    last: Option<Result<(), Status>>,
    /// A request that waits for its permit: nothing is taken past it.
    held: Option<Box<Held>>,
    /// Nothing more is taken: because the client has said all, or because of this.
    end: Option<Result<(), Status>>,
}

/// A request with what its check found.
struct Checked {
    sequence: u64,
    found: Result<(Submission, WhenFull), CheckError>,
}

struct Held {
    sequence: u64,
    submission: Submission,
    permit: BoxFuture<'static, Result<LateAdmission, Status>>,
}

/// A chunk whose acknowledgements can be sent.
type Committed = Result<(OwnedPermit<Message>, Message), Status>;

/// Takes the tasks of one stream to its end, which it returns.
async fn drive(
    mut reader: Reader,
    deadline: Option<Instant>,
    shutdown: ShutdownTokens,
) -> Result<(), Status> {
    let mut in_flight = FuturesOrdered::new();
    let mut deadline = pin!(passed(deadline));
    let mut draining = pin!(shutdown.draining.cancelled());
    let end = loop {
        crate::failpoint::hit("stream");
        select! {
            biased;
            () = &mut deadline => return Err(status::deadline()),
            Some(committed) = in_flight.next() => send(committed)?,
            () = &mut draining => break Err(shutdown.status()),
            read = reader.read() => match read {
                Some((room, chunk)) => {
                    in_flight.push_back(commit(reader.submitter.clone(), room, chunk));
                }
                None => break reader.end.take().unwrap_or(Ok(())),
            },
        }
    };
    // Who stands in line leaves it; what is on its way is acknowledged.
    drop(reader);
    loop {
        select! {
            biased;
            () = &mut deadline => return Err(status::deadline()),
            committed = in_flight.next() => match committed {
                Some(committed) => send(committed)?,
                None => return end,
            },
        }
    }
}

async fn commit(submitter: Submitter, room: OwnedPermit<Message>, chunk: Chunk) -> Committed {
    let Chunk { requests, tasks, .. } = chunk;
    let outcomes =
        if tasks.is_empty() { Ok(Vec::new()) } else { submitter.store.submit_all(tasks).await };
    let mut outcomes = outcomes.map_err(|error| status::store(&error))?.into_iter();
    let mut acks = AckWriter::new(&submitter.hub, requests.len());
    for (sequence, decided) in requests {
        match decided {
            Decided::Known(task) => acks.taken(sequence, task),
            Decided::Refused(status) => acks.refused(sequence, *status),
            Decided::Committed => match outcomes.next() {
                Some(Ok(task)) => acks.taken(sequence, task),
                Some(Err(error)) => {
                    acks.refused(sequence, status::to_message(&status::store(&error)));
                }
                None => return Err(status::internal("a task has no outcome")),
            },
        }
    }
    Ok((room, acks.finish()))
}

impl Reader {
    /// Reads a chunk; `None` at the end. Dropping the future loses nothing: once
    /// something is in the chunk, it waits for nothing more.
    async fn read(&mut self) -> Option<(OwnedPermit<Message>, Chunk)> {
        if self.end.is_some() {
            return None;
        }
        if self.room.is_none() {
            // There is nobody to send to when the client has gone.
            self.room = Some(self.messages.clone().reserve_owned().await.ok()?);
        }
        let mut chunk = Chunk::default();
        while chunk.requests.is_empty() && self.end.is_none() {
            if let Some(held) = &mut self.held {
                let permit = held.permit.as_mut().await;
                if let Some(held) = self.held.take() {
                    self.settle(*held, permit, &mut chunk);
                }
            }
            poll_fn(|cx| self.fill(&mut chunk, cx)).await;
        }
        if chunk.requests.is_empty() {
            return None;
        }
        Some((self.room.take()?, chunk))
    }

    /// A request that was held has its permit, or has it not.
    fn settle(
        &mut self,
        Held { sequence, submission, .. }: Held,
        permit: Result<LateAdmission, Status>,
        chunk: &mut Chunk,
    ) {
        match permit {
            Ok(LateAdmission::Admitted(permit)) => chunk.add(sequence, submission, permit),
            Ok(LateAdmission::Known(task)) => chunk.requests.push((sequence, Decided::Known(task))),
            // Nobody gets in any more.
            Err(status) if status.code() == Code::Unavailable => self.end = Some(Err(status)),
            Err(status) => chunk.refuse(sequence, &status),
        }
    }

    /// Takes what has been read; waits only if that is nothing and nothing has arrived.
    fn fill(&mut self, chunk: &mut Chunk, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.admit(chunk);
            if !chunk.requests.is_empty() || self.held.is_some() || self.end.is_some() {
                return Poll::Ready(());
            }
            // All that has arrived, before any of it has a permit: a check may take long, and
            // others wait for whoever has a permit.
            ready!(self.check_arrived(cx));
        }
    }

    /// Reads and checks what has arrived, up to a chunk; waits only if that is nothing.
    fn check_arrived(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { submitter, requests, checked, last, .. } = self;
        let mut validator = submitter.validator();
        let mut bytes = 0;
        while last.is_none() && checked.len() < MAX_CHUNK_TASKS && bytes < MAX_CHUNK_BYTES {
            match requests.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(v1::SubmitStreamRequest { sequence, request }))) => {
                    let missing =
                        || CheckError::Invalid(vec![Violation::new("request", "is required")]);
                    let found =
                        request.ok_or_else(missing).and_then(|request| validator.check(request));
                    bytes += found.as_ref().map_or(0, |(task, _)| store::weight(&task.task));
                    checked.push_back(Checked { sequence, found });
                }
                Poll::Ready(Some(Err(status))) => {
                    *last = Some(Err(status::repaired(&status, "").unwrap_or(status)));
                }
                Poll::Ready(None) => *last = Some(Ok(())),
                Poll::Pending if checked.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }

    /// Puts what was checked into the chunk, up to one that has to wait for its permit.
    fn admit(&mut self, chunk: &mut Chunk) {
        while self.held.is_none() && self.end.is_none() && !chunk.is_full() {
            let Some(Checked { sequence, found }) = self.checked.pop_front() else {
                self.end = self.last.take();
                return;
            };
            match found {
                Ok((submission, when_full)) => {
                    self.admit_one(sequence, submission, when_full, chunk);
                }
                Err(error) => chunk.refuse(sequence, &status::unchecked(&error)),
            }
        }
    }

    /// Puts a task into the chunk, if it can be decided at once.
    fn admit_one(
        &mut self,
        sequence: u64,
        submission: Submission,
        when_full: WhenFull,
        chunk: &mut Chunk,
    ) {
        let submitter = &self.submitter;
        let permits = chunk.tasks.iter().map(|(_, permit)| permit);
        if let Some(permit) = submitter.admit_behind(permits, &submission, when_full) {
            return chunk.add(sequence, submission, permit);
        }
        let refused = match submitter.admit_now(&submission, when_full) {
            Ok(permit) => return chunk.add(sequence, submission, permit),
            Err(refused) => refused,
        };
        let known = submission.task.request_id.is_some() && may_be_known(refused);
        if known || may_wait(when_full, refused) {
            // Only the stream's end bounds the wait: this is how a full queue pushes back.
            let wait_limit = WaitLimit::Unlimited;
            let permit =
                Box::pin(submitter.admit_later(&submission, when_full, wait_limit, refused));
            self.held = Some(Box::new(Held { sequence, submission, permit }));
            return;
        }
        let status = status::refused(&submission.task.queue, refused);
        if is_final(refused) {
            self.end = Some(Err(status));
        } else {
            chunk.refuse(sequence, &status);
        }
    }
}

fn send(committed: Committed) -> Result<(), Status> {
    let (room, message) = committed?;
    // It hands back a sender that nobody needs.
    drop(room.send(message));
    Ok(())
}

/// Requests that are committed together, in the order in which they came.
#[derive(Default)]
struct Chunk {
    /// Each with its sequence number.
    requests: Vec<(u64, Decided)>,
    tasks: Vec<(Submission, Permit)>,
    bytes: u64,
}

/// What a request's acknowledgement will say.
enum Decided {
    /// What becomes of its task, which is one of those to be committed.
    Committed,
    /// That its task was there already.
    Known(Submitted),
    /// This.
    Refused(Box<pb::Status>),
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.requests.len() >= MAX_CHUNK_TASKS || self.bytes >= MAX_CHUNK_BYTES
    }

    fn add(&mut self, sequence: u64, submission: Submission, permit: Permit) {
        self.bytes += permit.bytes();
        self.requests.push((sequence, Decided::Committed));
        self.tasks.push((submission, permit));
    }

    fn refuse(&mut self, sequence: u64, status: &Status) {
        let refused = Decided::Refused(Box::new(status::to_message(status)));
        self.requests.push((sequence, refused));
    }
}

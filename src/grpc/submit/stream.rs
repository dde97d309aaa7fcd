//! Tasks handed in over a stream, and their acknowledgements over another.
//!
//! A stream has a driver, a task of its own: it reads what has arrived as one
//! chunk, commits the chunk, and reads on meanwhile. A chunk is read only when
//! there is room for its acknowledgements, and [`MAX_CHUNKS`] of them have room:
//! so a client that does not read them is not read any further, and the driver
//! never waits for its client while it holds permits of a queue.
//!
//! What a stream holds is bounded: [`MAX_CHUNKS`] chunks, each of at most
//! [`MAX_CHUNK_TASKS`] tasks and of [`MAX_CHUNK_BYTES`] and one task more; the
//! message that arrives; and what HTTP/2 lets a client send ahead.

use std::{
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
    admission::{Patience, Permit},
    events::BoxFuture,
    grpc::{
        EncodedSubmitStreamResponse, ShutdownTokens, acks::AckWriter, convert::SubmissionValidator,
        deadline::passed, status,
    },
    handler::Violation,
    proto::v1,
    store::{Submission, Submitted},
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
        let reader =
            Reader { submitter, requests, messages: sender, room: None, held: None, end: None };
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
    /// A request that waits for its permit: nothing is read past it.
    held: Option<Box<Held>>,
    /// Nothing more is read: because the client has said all, or because of this.
    end: Option<Result<(), Status>>,
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

    /// Reads what has arrived; waits only if that is nothing.
    fn fill(&mut self, chunk: &mut Chunk, cx: &mut Context<'_>) -> Poll<()> {
        let Self { submitter, requests, held, end, .. } = self;
        let mut validator = submitter.validator();
        while held.is_none() && end.is_none() && !chunk.is_full() {
            match requests.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    match take(submitter, &mut validator, request, chunk) {
                        Taken::Decided => {}
                        Taken::Waits(waits) => *held = Some(waits),
                        Taken::Ends(status) => *end = Some(Err(status)),
                    }
                }
                Poll::Ready(Some(Err(status))) => {
                    *end = Some(Err(status::repaired(&status, "").unwrap_or(status)));
                }
                Poll::Ready(None) => *end = Some(Ok(())),
                Poll::Pending if chunk.requests.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }
}

fn send(committed: Committed) -> Result<(), Status> {
    let (room, message) = committed?;
    // It hands back a sender that nobody needs.
    drop(room.send(message));
    Ok(())
}

/// What became of a request that was read.
enum Taken {
    /// It is in the chunk.
    Decided,
    /// It has to wait.
    Waits(Box<Held>),
    /// Nobody gets in any more.
    Ends(Status),
}

/// Puts a request into the chunk, if it can be decided at once.
fn take(
    submitter: &Submitter,
    validator: &mut SubmissionValidator<'_>,
    v1::SubmitStreamRequest { sequence, request }: v1::SubmitStreamRequest,
    chunk: &mut Chunk,
) -> Taken {
    let checked = match request {
        Some(request) => validator.check(request),
        None => Err(vec![Violation::new("request", "is required")]),
    };
    let (submission, when_full) = match checked {
        Ok(checked) => checked,
        Err(wrong) => {
            chunk.refuse(sequence, &status::invalid(&wrong));
            return Taken::Decided;
        }
    };
    let refused = match submitter.admit_now(&submission, when_full) {
        Ok(permit) => {
            chunk.add(sequence, submission, permit);
            return Taken::Decided;
        }
        Err(refused) => refused,
    };
    let known = submission.task.request_id.is_some() && may_be_known(refused);
    if known || may_wait(when_full, refused) {
        // Only the stream's end bounds the wait: this is how a full queue pushes back.
        let patience = Patience::Unlimited;
        let permit = Box::pin(submitter.admit_later(&submission, when_full, patience, refused));
        return Taken::Waits(Box::new(Held { sequence, submission, permit }));
    }
    let status = status::refused(&submission.task.queue, refused);
    if is_final(refused) {
        return Taken::Ends(status);
    }
    chunk.refuse(sequence, &status);
    Taken::Decided
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

//! A watch that stands up again: the loop that clients in every language follow.
//!
//! Owns the cursor, and with it the promise to go on exactly where a broken stream
//! ended. The rules of the loop:
//!
//! 1. The cursor of every message that has one replaces the one before, also of a
//!    message without events. Until there is one, a broken watch begins as it began at
//!    first.
//! 2. While a snapshot is told no message has a cursor: resuming would leave out what
//!    was not told, so a broken snapshot is told anew from its beginning.
//! 3. Nothing for two heartbeats and [`GRACE`] is an outage: a connection that died
//!    without a word, as when a machine loses its power, never ends by itself.
//! 4. An outage is a lost connection, UNAVAILABLE, an end without a status, and, once
//!    it is an outage, `TOO_MANY_WATCHERS`: places of the lost connection may be taken
//!    for a moment. Its tries rest as [`backoff`] says, or as the server asks; after
//!    [`Watch::patience`] it ends the watch.
//! 5. `WATCH_LIFETIME` and `WATCH_STALLED` are no outage. The watch is opened again at
//!    once.
//! 6. Everything else ends the watch: the cursor has expired, is of another store, or
//!    the request is wrong. Trying again would not help.

use std::{pin::Pin, time::Duration};

use tokio::{select, time::Instant};
use tonic::{Status, Streaming};

use super::{
    Tasks,
    retry::backoff,
    status::{Pushback, is_lost, pushback, reason},
};
use crate::proto::v1::{
    Event, EventFilter, GapPolicy, SubmitRequest, SubmitResponse, Task, WatchEventsRequest,
    WatchEventsResponse, WatchGap, WatchStart, Worker, watch_events_response::Control,
};

/// Silence beyond two heartbeats that is taken for an outage: the server, or the way
/// to it, may be slow.
const GRACE: Duration = Duration::from_secs(5);

/// The shortest rest between two tries, whatever the server asks for.
const LEAST_REST: Duration = Duration::from_millis(10);

/// Where a watch begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the next event.
    #[default]
    Live,
    /// With the oldest event that is kept.
    Oldest,
    /// With the tasks and workers as they stand, then the events after them.
    Snapshot,
    /// After this cursor.
    After(String),
}

/// What to watch, and how stubbornly.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Where to begin.
    pub start: Start,
    /// Only these events; `None` is all.
    pub filter: Option<EventFilter>,
    /// End once every event was seen that had happened when the watch began, or when
    /// it was last opened.
    pub until_caught_up: bool,
    /// Go on after events that are no longer kept, with [`Seen::Gap`], rather than end
    /// with `CURSOR_EXPIRED`.
    pub over_gaps: bool,
    /// Silence before the server sends a heartbeat: 100 ms to 1 h, 15 s at first.
    pub heartbeat: Duration,
    /// The longest outage that is waited for, 1 min at first; with zero, the first one
    /// ends the watch.
    pub patience: Duration,
}

impl Watch {
    /// All events from there on.
    pub fn begin(start: Start) -> Self {
        Self {
            start,
            filter: None,
            until_caught_up: false,
            over_gaps: false,
            heartbeat: Duration::from_secs(15),
            patience: Duration::from_mins(1),
        }
    }

    fn request(&self) -> WatchEventsRequest {
        let (after_cursor, start) = match &self.start {
            Start::Live => (String::new(), WatchStart::Live),
            Start::Oldest => (String::new(), WatchStart::Oldest),
            Start::Snapshot => (String::new(), WatchStart::Unspecified),
            Start::After(cursor) => (cursor.clone(), WatchStart::Unspecified),
        };
        let gap_policy = if self.over_gaps { GapPolicy::Continue } else { GapPolicy::Fail };
        WatchEventsRequest {
            after_cursor,
            start: start.into(),
            // What is too long for the wire is refused all the same: 0 is too short.
            heartbeat_interval: Some(self.heartbeat.try_into().unwrap_or_default()),
            filter: self.filter.clone(),
            include_snapshot: self.start == Start::Snapshot,
            stop_when_caught_up: self.until_caught_up,
            gap_policy: gap_policy.into(),
        }
    }
}

/// What a watcher sees.
#[derive(Debug)]
#[non_exhaustive]
pub enum Seen {
    /// The task that is followed was submitted, or had been. Told once.
    Submitted(SubmitResponse),
    /// The stream stands, and there is a cursor to resume after.
    Started,
    /// Events, at least one.
    Events(Batch),
    /// A snapshot begins, perhaps again: what an earlier one told is void.
    SnapshotBegun,
    /// A part of the snapshot.
    Snapshot {
        /// Tasks that have not ended, in the order of submission.
        tasks: Vec<Task>,
        /// The crew, in the first parts.
        workers: Vec<Worker>,
    },
    /// The snapshot is complete; what follows are events.
    SnapshotEnded,
    /// What had happened when the watch was opened has been seen.
    CaughtUp,
    /// Nothing has happened that the filter lets through; the cursor went on.
    Heartbeat,
    /// Events are missing here, as they are no longer kept.
    Gap(WatchGap),
    /// The server began to drain; the stream is about to be lost.
    Draining,
    /// The stream broke. It is tried again; told once, until [`Self::Restored`].
    Lost(Status),
    /// The watch goes on, exactly where it had stopped. Instead of [`Self::Started`].
    Restored,
}

/// Events that arrived together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// In commit order.
    pub events: Vec<Event>,
    /// Resume after it, and these events come again; empty at the very start.
    pub before: String,
    /// Resume after it, and what follows comes next.
    pub after: String,
}

/// A watch under way. Made by [`super::Client::watch`]; connects when it is first asked.
pub struct Watcher {
    client: Tasks,
    /// What to ask for next: its start is where the watch stands.
    watch: Watch,
    /// The task that is followed, if it is one.
    followed: Option<Followed>,
    stream: Stream,
    outage: Option<Outage>,
    /// The stream is not opened before.
    rest_until: Option<Instant>,
    /// What to tell before the next message is read.
    untold: Option<Seen>,
    /// The stream told that it had caught up, so it may end.
    caught_up: bool,
    over: bool,
}

type Opening = Pin<Box<dyn Future<Output = Result<Streaming<WatchEventsResponse>, Status>> + Send>>;

enum Stream {
    /// There is none.
    Closed,
    /// It is asked for, or rested before.
    Opening(Opening),
    /// It stands.
    Open {
        messages: Box<Streaming<WatchEventsResponse>>,
        /// Since when it has been listened to in vain.
        silent_since: Option<Instant>,
    },
}

/// One task, from its submission on.
struct Followed {
    request: SubmitRequest,
    /// It was told that it is submitted.
    is_submitted: bool,
    /// The number of the last event that was told.
    last: u64,
}

impl Followed {
    /// Takes out of a message what was told by an earlier stream.
    fn pass_over_the_known(&mut self, message: &mut WatchEventsResponse) {
        let is_submission = matches!(message.control, Some(Control::Submitted(_)));
        if is_submission && std::mem::replace(&mut self.is_submitted, true) {
            message.control = None;
        }
        message.events.retain(|event| event.seq > self.last);
        self.last = message.events.last().map_or(self.last, |event| event.seq);
    }
}

/// Since when there has been no stream.
struct Outage {
    failures: u32,
    since: Instant,
    is_told: bool,
}

impl Watcher {
    pub(super) fn new(client: Tasks, watch: Watch) -> Self {
        Self {
            client,
            watch,
            followed: None,
            stream: Stream::Closed,
            outage: None,
            rest_until: None,
            untold: None,
            caught_up: false,
            over: false,
        }
    }

    /// Submits a task and follows it. The request must have a `request_id`: a stream that
    /// broke is opened by the same request, which finds the same task, and tells it again
    /// from its beginning.
    pub(super) fn follow(client: Tasks, request: SubmitRequest) -> Self {
        let followed = Followed { request, is_submitted: false, last: 0 };
        Self { followed: Some(followed), ..Self::new(client, Watch::begin(Start::Live)) }
    }

    /// The cursor to resume after; `None` until the server has told one, and while a
    /// snapshot is not complete.
    pub fn cursor(&self) -> Option<&str> {
        match &self.watch.start {
            Start::After(cursor) => Some(cursor),
            Start::Live | Start::Oldest | Start::Snapshot => None,
        }
    }

    /// What comes next; `None` once it has caught up, if it was to end there. After
    /// that, and after an error, there is nothing more. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// What the server answered, if trying again is of no use or the patience is over.
    pub async fn next(&mut self) -> Result<Option<Seen>, Status> {
        while !self.over {
            if let Some(seen) = self.untold.take() {
                return Ok(Some(seen));
            }
            let status = match self.message().await {
                Ok(Some(message)) => match self.take(message) {
                    Some(seen) => return Ok(Some(seen)),
                    None => continue,
                },
                Ok(None) if self.may_end() => break,
                Ok(None) => Status::unavailable("the server ended the stream"),
                Err(status) => status,
            };
            self.stream = Stream::Closed;
            if self.lose(&status).inspect_err(|_| self.over = true)? {
                return Ok(Some(Seen::Lost(status)));
            }
        }
        self.over = true;
        self.stream = Stream::Closed;
        Ok(None)
    }

    /// Whether it is no outage if the server ends the stream well.
    fn may_end(&self) -> bool {
        let is_at_the_end = self.watch.until_caught_up && self.caught_up;
        is_at_the_end || self.followed.as_ref().is_some_and(|followed| followed.is_submitted)
    }

    /// The next message of the stream, which is opened if there is none. The future may
    /// be dropped: what is under way is kept.
    async fn message(&mut self) -> Result<Option<WatchEventsResponse>, Status> {
        loop {
            match &mut self.stream {
                Stream::Closed => self.stream = Stream::Opening(self.open()),
                Stream::Opening(opening) => {
                    let messages = Box::new(opening.await?);
                    self.caught_up = false;
                    self.stream = Stream::Open { messages, silent_since: None };
                }
                Stream::Open { messages, silent_since } => {
                    let since = *silent_since.get_or_insert_with(Instant::now);
                    let limit = self.watch.heartbeat.saturating_mul(2).saturating_add(GRACE);
                    let message = select! {
                        biased;
                        message = messages.message() => message?,
                        () = passed(since.checked_add(limit)) => {
                            return Err(Status::unavailable("the server has gone silent"));
                        }
                    };
                    *silent_since = None;
                    return Ok(message);
                }
            }
        }
    }

    fn open(&self) -> Opening {
        let (mut client, request) = (self.client.clone(), self.watch.request());
        let submission = self.followed.as_ref().map(|followed| followed.request.clone());
        let rest_until = self.rest_until;
        Box::pin(async move {
            if let Some(rest_until) = rest_until {
                tokio::time::sleep_until(rest_until).await;
            }
            // It may wait for room; keep-alive notices a server that has gone.
            if let Some(submission) = submission {
                return Ok(client.submit_and_watch(submission).await?.into_inner());
            }
            // A server that takes the connection and says nothing must not hold it up.
            let answer = client.watch_events(request);
            match tokio::time::timeout(GRACE, answer).await {
                Ok(answer) => Ok(answer?.into_inner()),
                Err(_) => Err(Status::unavailable("the server does not answer")),
            }
        })
    }

    /// Takes the message over; what it tells, if anything.
    fn take(&mut self, mut message: WatchEventsResponse) -> Option<Seen> {
        if let Some(followed) = &mut self.followed {
            followed.pass_over_the_known(&mut message);
        }
        let restored = self.outage.take().is_some_and(|outage| outage.is_told);
        let before = self.cursor().unwrap_or_default().to_owned();
        let is_telling = self.watch.start == Start::Snapshot;
        if !message.cursor.is_empty() {
            self.watch.start = Start::After(message.cursor.clone());
        }
        let seen = match message.control {
            Some(Control::Started(_)) if is_telling => Some(Seen::SnapshotBegun),
            Some(Control::Started(_)) => (!restored).then_some(Seen::Started),
            None if message.events.is_empty() => None,
            None => {
                Some(Seen::Events(Batch { events: message.events, before, after: message.cursor }))
            }
            Some(Control::Snapshot(part)) => {
                Some(Seen::Snapshot { tasks: part.tasks, workers: part.workers })
            }
            Some(Control::SnapshotEnd(_)) => Some(Seen::SnapshotEnded),
            Some(Control::CaughtUp(_)) => {
                self.caught_up = true;
                Some(Seen::CaughtUp)
            }
            Some(Control::Heartbeat(_)) => Some(Seen::Heartbeat),
            Some(Control::Gap(gap)) => Some(Seen::Gap(gap)),
            Some(Control::Draining(_)) => Some(Seen::Draining),
            Some(Control::Submitted(submitted)) => Some(Seen::Submitted(submitted)),
        };
        if restored {
            self.untold = seen;
            return Some(Seen::Restored);
        }
        seen
    }

    /// Notes that there is no stream; whether that is to be told. Ends if it is of no use
    /// to wait.
    fn lose(&mut self, status: &Status) -> Result<bool, Status> {
        let now = Instant::now();
        let reason = reason(status);
        if matches!(reason.as_deref(), Some("WATCH_LIFETIME" | "WATCH_STALLED")) {
            self.rest_until = now.checked_add(asked_rest(status)?.unwrap_or_default());
            return Ok(false);
        }
        let is_crowded = reason.as_deref() == Some("TOO_MANY_WATCHERS") && self.outage.is_some();
        if !is_lost(status) && !is_crowded {
            return Err(status.clone());
        }
        let new = Outage { failures: 0, since: now, is_told: false };
        let outage = self.outage.get_or_insert(new);
        outage.failures = outage.failures.saturating_add(1);
        let rest = asked_rest(status)?.unwrap_or_else(|| backoff(outage.failures));
        let ends = outage.since.checked_add(self.watch.patience);
        let next_try = now.checked_add(rest.max(LEAST_REST));
        let in_time = next_try.filter(|next| ends.is_none_or(|ends| *next <= ends));
        self.rest_until = Some(in_time.ok_or_else(|| status.clone())?);
        Ok(!std::mem::replace(&mut outage.is_told, true))
    }
}

/// The rest that the server asks for before another try, if it does.
///
/// # Errors
/// It asks for no other try.
fn asked_rest(status: &Status) -> Result<Option<Duration>, Status> {
    match pushback(status) {
        Pushback::Unsaid => Ok(None),
        Pushback::After(rest) => Ok(Some(rest)),
        Pushback::Never => Err(status.clone()),
    }
}

/// Completes at that moment; never, if there is none.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

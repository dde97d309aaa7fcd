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
//! 3. Nothing for two heartbeats and 5 s is an outage, and so is a call that has no
//!    answer for 5 s: a connection that died without a word, as when a machine loses its
//!    power, does not end by itself. It is tried again on a new connection.
//! 4. An outage is a lost connection, UNAVAILABLE, an end without a status, and, once a
//!    stream has stood, `TOO_MANY_WATCHERS`: the place that was its own may be taken for
//!    a moment. Its tries rest as [`super::backoff`] says, or as the server asks; after
//!    [`Watch::max_outage`] it ends the watch, and no try is waited for beyond that. It is
//!    over once a stream has stood for 1 s, so that one that is accepted and dropped,
//!    again and again, is still an outage.
//! 5. `WATCH_LIFETIME` and `WATCH_STALLED` are no outage. The watch is opened again, after
//!    the rest that the server asks for.
//! 6. A task that is followed is submitted again, by the same `request_id`, until it is
//!    told that it is submitted; that may wait for room, so no try of it is cut off. From
//!    then on a broken stream is opened as a watch of this one task after the cursor, which
//!    ends with the task: the server may have forgotten the `request_id` with the task, and
//!    would run it again.
//! 7. Everything else ends the watch: the cursor has expired, is of another store, or
//!    the request is wrong. Trying again would not help.

mod followed;
mod outage;
mod stream;

use std::time::Duration;

use taskyard_proto::v1::{
    Event, EventFilter, GapPolicy, SubmitRequest, SubmitResponse, Task, WatchEventsRequest,
    WatchEventsResponse, WatchGap, WatchStart, Worker, watch_events_response::Control,
};
use tonic::Status;

use self::{
    followed::Followed,
    outage::Outages,
    stream::{Ask, Broken, Stream},
};
use super::Client;

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
    pub max_outage: Duration,
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
            max_outage: Duration::from_mins(1),
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
    /// The stream stands. Also after an outage before there was a cursor: then the watch
    /// begins anew, and a live one does not know what happened in between.
    Started,
    /// Events, at least one.
    Events(Batch),
    /// A snapshot begins, perhaps again: what an earlier one told is void.
    SnapshotBegun,
    /// A part of the snapshot.
    Snapshot {
        /// Tasks that have not ended, in the order of submission.
        tasks: Vec<Task>,
        /// The pool, in the first parts.
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
    /// The stream broke. It is tried again; told once, until it stands.
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
    client: Client,
    /// What to ask for next: its start is where the watch stands.
    watch: Watch,
    /// The task that is followed, if it is one.
    followed: Option<Followed>,
    stream: Stream,
    outages: Outages,
    /// What came after an outage, to be told after [`Seen::Restored`].
    untold: Option<WatchEventsResponse>,
    /// The stream told that it had caught up, so it may end.
    caught_up: bool,
    /// The task that is followed is watched by its id, no longer by its submission.
    is_resumed: bool,
    over: bool,
}

impl Watcher {
    pub(super) fn new(client: Client, watch: Watch) -> Self {
        Self {
            client,
            outages: Outages::new(watch.max_outage),
            watch,
            followed: None,
            stream: Stream::Closed,
            untold: None,
            caught_up: false,
            is_resumed: false,
            over: false,
        }
    }

    /// Submits a task and follows it. The request must have a `request_id`.
    pub(super) fn follow(client: Client, request: SubmitRequest) -> Self {
        let followed = Some(Followed::new(request));
        Self { followed, ..Self::new(client, Watch::begin(Start::Live)) }
    }

    /// The cursor to resume after, having done with what was told; `None` until the server
    /// has given one, and while a snapshot is not complete.
    pub fn cursor(&self) -> Option<&str> {
        match &self.watch.start {
            Start::After(cursor) => Some(cursor),
            Start::Live | Start::Oldest | Start::Snapshot => None,
        }
    }

    /// What comes next; `None` once it has caught up, if it was to end there, or once the
    /// task that is followed has ended. After that, and after an error, there is nothing
    /// more. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What the server answered, if trying again is of no use or the outage is too long.
    pub async fn next(&mut self) -> Result<Option<Seen>, Status> {
        while !self.over {
            if let Some(message) = self.untold.take() {
                match self.tell(message, true) {
                    Some(seen) => return Ok(Some(seen)),
                    None => continue,
                }
            }
            // The stream of a submission ends by itself; a watch does not.
            if self.is_resumed && self.end_is_told() {
                break;
            }
            if matches!(self.stream, Stream::Closed) {
                self.caught_up = false;
                self.stream = self.open();
            }
            let status = match self.stream.message().await {
                Ok(Some(message)) => match self.take(message) {
                    Some(seen) => return Ok(Some(seen)),
                    None => continue,
                },
                Ok(None) if self.may_end() => break,
                Ok(None) => Status::unavailable("the server ended the stream"),
                Err(Broken::Status(status)) => status,
                Err(Broken::Silent) => {
                    self.client = self.client.anew();
                    Status::unavailable("the server has gone silent")
                }
            };
            self.stream = Stream::Closed;
            if self.end_is_told() {
                break;
            }
            if self.outages.lose(&status).inspect_err(|_| self.over = true)? {
                return Ok(Some(Seen::Lost(status)));
            }
        }
        self.over = true;
        self.stream = Stream::Closed;
        Ok(None)
    }

    fn open(&mut self) -> Stream {
        let ask = match &self.followed {
            Some(followed) if self.cursor().is_none() => Ask::Follow(followed.request.clone()),
            Some(followed) => {
                self.is_resumed = true;
                let request = WatchEventsRequest {
                    filter: followed.filter(),
                    // Of a task that had ended when it was submitted again, no event of its
                    // end may be kept, and then nothing comes that could be waited for.
                    stop_when_caught_up: followed.has_ended(),
                    ..self.watch.request()
                };
                Ask::Watch(request, self.watch.heartbeat)
            }
            None => Ask::Watch(self.watch.request(), self.watch.heartbeat),
        };
        let (backoff_until, try_until) = (self.outages.backoff_until(), self.outages.try_until());
        Stream::open(self.client.tasks(), ask, backoff_until, try_until)
    }

    fn end_is_told(&self) -> bool {
        self.followed.as_ref().is_some_and(Followed::end_is_told)
    }

    /// Whether it is no outage if the server ends the stream well.
    fn may_end(&self) -> bool {
        let is_at_the_end = self.watch.until_caught_up && self.caught_up;
        is_at_the_end || self.followed.as_ref().is_some_and(Followed::has_ended)
    }

    /// Takes a message over; what is to be told first, if anything.
    fn take(&mut self, message: WatchEventsResponse) -> Option<Seen> {
        let is_news = self.outages.stands();
        // Without a cursor it begins anew, and [`Seen::Started`] or
        // [`Seen::SnapshotBegun`] says so.
        let goes_on = self.cursor().is_some() || self.followed.is_some();
        if is_news && goes_on {
            self.untold = Some(message);
            return Some(Seen::Restored);
        }
        self.tell(message, false)
    }

    /// What a message tells, if anything. From then on its cursor counts.
    fn tell(&mut self, mut message: WatchEventsResponse, restored: bool) -> Option<Seen> {
        if let Some(followed) = &mut self.followed {
            followed.pass_over_the_known(&mut message);
        }
        let before = self.cursor().unwrap_or_default().to_owned();
        let is_telling = self.watch.start == Start::Snapshot;
        if !message.cursor.is_empty() {
            self.watch.start = Start::After(message.cursor.clone());
        }
        match message.control {
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
        }
    }
}

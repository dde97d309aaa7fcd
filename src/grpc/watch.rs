//! Watch streams: a tail of the events, with heartbeats, as responses.
//!
//! A stream holds a cursor and at most one response. It is asked for the next
//! one only when the connection has room for it, so a client that does not read
//! costs nothing but its connection.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::Status;

use super::{
    convert::{Watch, WatchStart},
    deadline::passed,
    follow::{Follower, Life, Past},
    pulse::Pulse,
    response::{Control, EncodedWatchEventsResponse},
    status,
};
use crate::{
    event::Seq,
    events::{Ended, EventBatch, History, Hub, Tail},
    proto::v1::{SubmitResponse, WatchStarted},
    store::Submitted,
};

/// What a `WatchEvents` call answers with.
pub type WatchStream =
    Pin<Box<dyn Stream<Item = Result<EncodedWatchEventsResponse, Status>> + Send>>;

/// Completes when a stream has been open for as long as its caller allows.
pub(super) type Passed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// All watchers of a server.
#[derive(Clone)]
pub struct Watchers {
    hub: Hub,
    history: Arc<dyn History>,
    places: Arc<Semaphore>,
    limit: usize,
    heartbeat: Duration,
}

impl Watchers {
    /// At most `limit` watchers at a time, with a heartbeat after `heartbeat`
    /// of silence unless they ask for another.
    #[must_use]
    pub fn new(hub: Hub, history: Arc<dyn History>, limit: usize, heartbeat: Duration) -> Self {
        let places = Arc::new(Semaphore::new(limit));
        Self { hub, history, places, limit, heartbeat }
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Begins a watch.
    pub(super) fn watch(
        &self,
        watch: &Watch,
        deadline: Option<Instant>,
    ) -> Result<WatchStream, Status> {
        let after = match watch.start {
            WatchStart::Live => None,
            WatchStart::Oldest => Some(self.hub.oldest().previous()),
            WatchStart::After(cursor) => {
                Some(self.hub.resolve(cursor).map_err(|wrong| status::cursor(wrong, &self.hub))?)
            }
        };
        let watcher = Watcher {
            _place: self.place()?,
            tail: self.tail(after),
            hub: self.hub.clone(),
            pulse: Pulse::new(watch.heartbeat.unwrap_or(self.heartbeat)),
            deadline: Box::pin(passed(deadline)),
            phase: Phase::Beginning,
        };
        Ok(Box::pin(stream::unfold(watcher, Watcher::step)))
    }

    /// A place among the watchers.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let places = Arc::clone(&self.places);
        places.try_acquire_owned().map_err(|_| status::too_many_watchers(self.limit))
    }

    /// The events after `after`, or only those to come.
    pub(super) fn tail(&self, after: Option<Seq>) -> Tail {
        self.hub.follow(after, Arc::clone(&self.history))
    }

    /// Follows a task that was submitted while `tail` was open.
    pub(super) fn follow_new(
        &self,
        task: &Submitted,
        ack: SubmitResponse,
        tail: Tail,
        deadline: Option<Instant>,
        place: OwnedSemaphorePermit,
    ) -> WatchStream {
        let life = Life { task: task.task, tail, past: Past::default() };
        self.follow(life, ack, deadline, place)
    }

    /// Follows a task from before, from its first event that is still kept.
    /// `past` tells whether it had ended.
    pub(super) fn follow_existing(
        &self,
        task: &Submitted,
        ack: SubmitResponse,
        past: Past,
        deadline: Option<Instant>,
        place: OwnedSemaphorePermit,
    ) -> WatchStream {
        let past = Past { newest: self.hub.newest(), ..past };
        let tail = self.tail(Some(task.seq.previous()));
        self.follow(Life { task: task.task, tail, past }, ack, deadline, place)
    }

    fn follow(
        &self,
        life: Life,
        ack: SubmitResponse,
        deadline: Option<Instant>,
        place: OwnedSemaphorePermit,
    ) -> WatchStream {
        let events = (self.hub.clone(), Arc::clone(&self.history));
        let pulse = Pulse::new(self.heartbeat);
        Follower::begin(life, ack, events, pulse, Box::pin(passed(deadline)), place)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent.
    Beginning,
    /// Events and heartbeats.
    Following,
    /// The last message was sent; the status is left to say.
    Draining,
    /// All is said.
    Over,
}

/// One watch stream.
struct Watcher {
    tail: Tail,
    hub: Hub,
    pulse: Pulse,
    deadline: Passed,
    phase: Phase,
    _place: OwnedSemaphorePermit,
}

type Step = Result<EncodedWatchEventsResponse, Status>;

impl Watcher {
    async fn step(mut self) -> Option<(Step, Self)> {
        let step = match self.phase {
            Phase::Beginning => {
                self.phase = Phase::Following;
                Ok(self.started())
            }
            Phase::Following => self.follow().await,
            Phase::Draining => {
                self.phase = Phase::Over;
                Err(status::draining())
            }
            Phase::Over => return None,
        };
        if step.is_err() {
            self.phase = Phase::Over;
        }
        self.pulse.sent();
        Some((step, self))
    }

    async fn follow(&mut self) -> Step {
        select! {
            biased;
            () = &mut self.deadline => Err(status::deadline()),
            next = self.tail.next() => match next {
                Ok(piece) => Ok(self.events(&piece)),
                Err(Ended::Closed) => {
                    self.phase = Phase::Draining;
                    Ok(self.message(Control::Draining))
                }
                Err(ended) => Err(status::watch_ended(&ended, &self.hub)),
            },
            () = self.pulse.silence() => Ok(self.message(Control::Heartbeat)),
        }
    }

    fn started(&self) -> EncodedWatchEventsResponse {
        let newest_cursor = self.hub.cursor(self.hub.newest()).to_string();
        self.message(Control::Started(WatchStarted { newest_cursor }))
    }

    fn message(&self, control: Control) -> EncodedWatchEventsResponse {
        let cursor = self.hub.cursor(self.tail.cursor()).to_string();
        EncodedWatchEventsResponse { cursor, events: Bytes::new(), control: Some(control) }
    }

    fn events(&self, piece: &EventBatch) -> EncodedWatchEventsResponse {
        EncodedWatchEventsResponse {
            cursor: self.hub.cursor(piece.last()).to_string(),
            events: piece.data().clone(),
            control: None,
        }
    }
}

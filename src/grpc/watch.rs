//! Watch streams: a tail of the events, with heartbeats, as responses.
//!
//! A stream holds a cursor and at most one response. It is asked for the next
//! one only when the connection has room for it, so a client that does not read
//! costs nothing but its connection.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::Status;

use super::{
    Deadline,
    convert::{Watch, WatchStart},
    response::{Control, EncodedWatchEventsResponse},
    status,
};
use crate::{
    event::Seq,
    events::{EventBatch, History, Hub, Tail},
    proto::v1::WatchStarted,
};

/// What a `WatchEvents` call answers with.
pub type WatchStream =
    Pin<Box<dyn Stream<Item = Result<EncodedWatchEventsResponse, Status>> + Send>>;

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
        deadline: Option<Deadline>,
    ) -> Result<WatchStream, Status> {
        let after = match watch.start {
            WatchStart::Live => None,
            WatchStart::Oldest => Some(Seq(0)),
            WatchStart::After(cursor) => {
                Some(self.hub.resolve(cursor).map_err(|wrong| status::cursor(wrong, &self.hub))?)
            }
        };
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| status::too_many_watchers(self.limit))?;
        let heartbeat = watch.heartbeat.unwrap_or(self.heartbeat);
        let watcher = Watcher {
            tail: self.hub.follow(after, Arc::clone(&self.history)),
            hub: self.hub.clone(),
            heartbeat,
            next_heartbeat: Instant::now() + heartbeat,
            deadline: deadline.map(|deadline| deadline.0.into()),
            phase: Phase::Beginning,
            _place: place,
        };
        Ok(Box::pin(stream::unfold(watcher, Watcher::step)))
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
    heartbeat: Duration,
    next_heartbeat: Instant,
    deadline: Option<Instant>,
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
        self.next_heartbeat = Instant::now() + self.heartbeat;
        Some((step, self))
    }

    async fn follow(&mut self) -> Step {
        let deadline = self.deadline;
        let passed = async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        select! {
            biased;
            () = passed => Err(status::deadline()),
            next = self.tail.next() => match next {
                Ok(piece) => Ok(self.events(&piece)),
                Err(crate::events::Ended::Closed) => {
                    self.phase = Phase::Draining;
                    Ok(self.message(Control::Draining))
                }
                Err(ended) => Err(status::watch_ended(&ended, &self.hub)),
            },
            () = tokio::time::sleep_until(self.next_heartbeat) => {
                Ok(self.message(Control::Heartbeat))
            }
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

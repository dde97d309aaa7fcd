//! One task, followed to its end.
//!
//! A follower is a watcher of one task's events. It looks them up in the index
//! of each batch, which is parsed once for all followers, so that a thousand of
//! them do not decode everything a thousand times.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use prost::Message as _;
use tokio::select;

use super::{
    close::{CloseFuture, CloseReason},
    guard::{Step, Steps},
    heartbeat::HeartbeatTimer,
    stats::WatchStats,
};
use crate::{
    event::Seq,
    events::{Ended, EventBatch, History, Hub, Tail, Unreadable},
    grpc::{
        response::{Control, EncodedWatchEventsResponse},
        status,
    },
    proto::v1::{self, EventType, SubmitResponse},
    task::TaskId,
};

/// Where to begin, and how to know the end.
pub struct Life {
    /// Which task.
    pub task: TaskId,
    /// The events from before its first one on.
    pub tail: Tail,
    /// What had happened to it when following began.
    pub past: Past,
}

/// What had happened to a task when following began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past {
    /// The newest event at that time; an end up to there may have been undone by
    /// a redrive.
    pub newest: Seq,
    /// It had ended.
    pub ended: bool,
    /// When, if that is known: the time of the event that tells it.
    pub end: Option<prost_types::Timestamp>,
}

/// One stream that follows a task.
pub struct Follower {
    task: u64,
    tail: Tail,
    past: Past,
    /// Something was read: from now on, what is missing is a loss.
    begun: bool,
    /// The task has ended, by the events that were seen.
    ended: bool,
    phase: Phase,
    hub: Hub,
    history: Arc<dyn History>,
    stats: Arc<WatchStats>,
    heartbeat: HeartbeatTimer,
    closed: CloseFuture,
}

enum Phase {
    /// The acknowledgement is to be sent.
    Beginning(SubmitResponse),
    /// Events and heartbeats.
    Following,
    /// The last message was sent; the status is left to say.
    Draining,
    /// All is said.
    Over,
}

impl Follower {
    /// Begins to follow, with the acknowledgement as the first message.
    pub fn begin(
        life: Life,
        submitted: SubmitResponse,
        (hub, history): (Hub, Arc<dyn History>),
        stats: Arc<WatchStats>,
        heartbeat: HeartbeatTimer,
        closed: CloseFuture,
    ) -> Steps {
        stats.begin(life.tail.cursor());
        let follower = Self {
            task: life.task.number(),
            tail: life.tail,
            past: life.past,
            begun: false,
            ended: false,
            phase: Phase::Beginning(submitted),
            hub,
            history,
            stats,
            heartbeat,
            closed,
        };
        // In a place of its own: every message moves it, twice.
        Box::pin(stream::unfold(Box::new(follower), Self::step))
    }

    async fn step(mut self: Box<Self>) -> Option<(Step, Box<Self>)> {
        let step = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Beginning(submitted) => {
                self.phase = Phase::Following;
                Ok(EncodedWatchEventsResponse {
                    cursor: submitted.cursor.clone(),
                    events: Bytes::new(),
                    control: Some(Control::Submitted(submitted)),
                })
            }
            Phase::Following => self.follow().await?,
            Phase::Draining => Err(status::draining()),
            Phase::Over => return None,
        };
        self.heartbeat.sent();
        Some((step, self))
    }

    /// The next message; `None` after the task's end.
    async fn follow(&mut self) -> Option<Step> {
        while !self.is_over() {
            let before = self.tail.cursor();
            let next = select! {
                biased;
                reason = &mut self.closed => return Some(Err(self.over(reason))),
                // Before the events: others' events must not silence it.
                () = self.heartbeat.silence() => {
                    self.phase = Phase::Following;
                    return Some(Ok(self.control(Control::Heartbeat)));
                }
                next = self.tail.next_batch() => next,
            };
            match next {
                Ok(batch) => match self.pick(&batch, before) {
                    None => {
                        return Some(Err(status::watch_ended(
                            &Unreadable::damaged(before).into(),
                            &self.hub,
                        )));
                    }
                    Some(message) if message.events.is_empty() => {}
                    Some(message) => {
                        self.phase = Phase::Following;
                        return Some(Ok(message));
                    }
                },
                Err(Ended::Unreadable(Unreadable::Expired(oldest))) if !self.begun => {
                    // Its beginning is no longer kept: it is told from what is.
                    let (after, history) = (oldest.previous(), Arc::clone(&self.history));
                    self.tail = self.hub.follow(Some(after), history);
                }
                Err(Ended::Closed) => {
                    self.phase = Phase::Draining;
                    return Some(Ok(self.control(Control::Draining)));
                }
                Err(Ended::Failed(cause)) => {
                    let cursor = self.hub.cursor(self.tail.cursor()).to_string();
                    return Some(Err(status::server_failed(&cause, &cursor)));
                }
                Err(Ended::StoreFailed(cause)) => {
                    let cursor = self.hub.cursor(self.tail.cursor()).to_string();
                    return Some(Err(status::store_failed(&cause, &cursor)));
                }
                Err(ended) => return Some(Err(status::watch_ended(&ended, &self.hub))),
            }
        }
        None
    }

    /// Whether nothing more is to come: it has ended, and what was known of its
    /// past has been seen.
    fn is_over(&self) -> bool {
        self.tail.cursor() >= self.past.newest && (self.ended || self.past.ended)
    }

    /// The task's events of a batch that come after `before`, up to its end;
    /// `None` if the batch is damaged. They are few, whatever the size of the
    /// batch: a task runs between two commits, not within one.
    fn pick(&mut self, batch: &EventBatch, before: Seq) -> Option<EncodedWatchEventsResponse> {
        self.begun = true;
        let (mut events, mut count, mut cursor) = (BytesMut::new(), 0, batch.last());
        for (at, event) in batch.index()?.of_task(self.task) {
            let seq = Seq(batch.first().0 + at as u64);
            if seq <= before {
                continue;
            }
            let bytes = batch.data().get(event.bytes.clone())?;
            events.extend_from_slice(bytes);
            count += 1;
            if self.ends_it(event.event_type, seq, bytes) {
                cursor = seq;
                self.past.newest = Seq::default();
                break;
            }
        }
        self.stats.moved(cursor, self.tail.reads_history());
        if count > 0 {
            self.stats.hand(Some(cursor), count);
        }
        let cursor = self.hub.cursor(cursor).to_string();
        Some(EncodedWatchEventsResponse { cursor, events: events.freeze(), control: None })
    }

    /// Whether the task has ended for good with this event.
    fn ends_it(&mut self, event_type: i32, seq: Seq, bytes: &[u8]) -> bool {
        match EventType::try_from(event_type) {
            Ok(EventType::Succeeded | EventType::Failed | EventType::Cancelled) => {
                self.ended = true;
                let is_the_end = |end| time_of(bytes).is_some_and(|time| time == end);
                seq > self.past.newest || self.past.end.is_some_and(is_the_end)
            }
            Ok(EventType::Redriven) => {
                self.ended = false;
                false
            }
            _ => false,
        }
    }

    fn over(&self, end: CloseReason) -> tonic::Status {
        status::watch_over(end, &self.hub.cursor(self.tail.cursor()).to_string())
    }

    fn control(&self, control: Control) -> EncodedWatchEventsResponse {
        self.stats.hand(Some(self.tail.cursor()), 0);
        let cursor = self.hub.cursor(self.tail.cursor()).to_string();
        EncodedWatchEventsResponse { cursor, events: Bytes::new(), control: Some(control) }
    }
}

/// When the one event that is encoded here happened.
fn time_of(bytes: &[u8]) -> Option<prost_types::Timestamp> {
    v1::WatchEventsResponse::decode(bytes).ok()?.events.first()?.time
}

#[cfg(test)]
mod tests;

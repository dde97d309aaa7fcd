//! One watch of many tasks: what it says, and when.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::select;

use super::{
    Feed,
    close::CloseFuture,
    guard::{Step, Steps},
    heartbeat::HeartbeatTimer,
    snapshot::Snapshot,
    stats::WatchStats,
};
use crate::{
    event::Seq,
    events::{Ended, EventBatch, EventFilter, MAX_PIECE_BYTES, Tail, Unreadable},
    grpc::{
        response::{Control, EncodedWatchEventsResponse},
        status,
    },
    proto::v1::{WatchGap, WatchStarted},
};

/// Bytes of a batch that are looked through for one unit of the scheduler's budget,
/// which has 128 of them.
const BYTES_OF_A_LOOK: usize = 16 << 10;

/// What is wanted of a watch.
pub struct Terms {
    /// Only these events.
    pub filter: Option<EventFilter>,
    /// First the tasks as they stand.
    pub snapshot: Option<Snapshot>,
    /// End once it has caught up.
    pub stop_when_caught_up: bool,
    /// Go on after a gap.
    pub over_gaps: bool,
    /// It begins with the oldest event that is kept: there is none before it to miss.
    pub from_oldest: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent.
    Beginning,
    /// The snapshot, a part at a time.
    Telling,
    /// Events and heartbeats.
    Following,
    /// The last message was sent; the status is left to say.
    Draining,
    /// All is said.
    Over,
}

/// One watch stream.
pub struct Watcher {
    tail: Tail,
    terms: Terms,
    /// The newest event when it began.
    target: Seq,
    /// It was said that the target was reached.
    caught_up: bool,
    /// A batch of which the events up to the number are done with.
    held: Option<(EventBatch, Seq)>,
    phase: Phase,
    feed: Feed,
    stats: Arc<WatchStats>,
    heartbeat: HeartbeatTimer,
    closed: CloseFuture,
}

impl Watcher {
    /// Begins to watch where the tail stands.
    pub fn begin(
        tail: Tail,
        terms: Terms,
        feed: Feed,
        stats: Arc<WatchStats>,
        heartbeat: HeartbeatTimer,
        closed: CloseFuture,
    ) -> Steps {
        stats.begin(tail.cursor());
        if terms.snapshot.is_some() {
            stats.hand(None, 0);
        }
        let watcher = Self {
            tail,
            terms,
            target: feed.hub.newest(),
            caught_up: false,
            held: None,
            phase: Phase::Beginning,
            feed,
            stats,
            heartbeat,
            closed,
        };
        // In a place of its own: every message moves it, twice.
        Box::pin(stream::unfold(Box::new(watcher), Self::step))
    }

    async fn step(mut self: Box<Self>) -> Option<(Step, Box<Self>)> {
        crate::failpoint::hit("watch");
        let step = match self.phase {
            Phase::Beginning => {
                self.phase = match self.terms.snapshot {
                    Some(_) => Phase::Telling,
                    None => Phase::Following,
                };
                self.begun().await
            }
            Phase::Telling => self.tell().await,
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
        self.heartbeat.sent();
        Some((step, self))
    }

    /// The first message. Where it is to begin with the oldest event, that is read before:
    /// once there is a cursor, what comes after it must not go without a word.
    async fn begun(&mut self) -> Step {
        if self.terms.from_oldest {
            while self.held.is_none() && self.tail.cursor() < self.target {
                let before = self.tail.cursor();
                let next = select! {
                    biased;
                    reason = &mut self.closed => return Err(self.ended(reason)),
                    next = next(&mut self.tail, self.terms.filter.is_some()) => next,
                };
                match next {
                    Ok(batch) => self.held = Some((batch, before)),
                    Err(Ended::Unreadable(Unreadable::Expired(oldest))) => {
                        self.tail = self.feed.tail(Some(oldest.previous()));
                    }
                    Err(ended) => return self.lost(&ended),
                }
            }
        }
        let cursor = self.held.as_ref().map_or(self.tail.cursor(), |(_, before)| *before);
        let newest_cursor = self.feed.hub.cursor(self.target).to_string();
        let started = Control::Started(WatchStarted { newest_cursor });
        Ok(self.message(cursor, Bytes::new(), 0, Some(started)))
    }

    /// The next part of the snapshot. The tail stands where it stood before the
    /// first part was read, so nothing that happens meanwhile is missed.
    async fn tell(&mut self) -> Step {
        let Some(snapshot) = &mut self.terms.snapshot else {
            self.phase = Phase::Following;
            return Ok(self.control(Control::SnapshotEnd));
        };
        let part = select! {
            biased;
            reason = &mut self.closed => return Err(self.ended(reason)),
            part = snapshot.next() => part.map_err(|error| status::store(&error))?,
            () = self.heartbeat.silence() => return Ok(self.control(Control::Heartbeat)),
        };
        Ok(if let Some(part) = part {
            self.control(Control::Snapshot(part))
        } else {
            self.terms.snapshot = None;
            self.phase = Phase::Following;
            self.control(Control::SnapshotEnd)
        })
    }

    async fn follow(&mut self) -> Step {
        loop {
            if let Some((batch, after)) = self.held.take() {
                if self.terms.filter.is_none() {
                    return Ok(self.piece(&batch));
                }
                let looks = 1 + batch.data().len() / BYTES_OF_A_LOOK;
                if let Some(message) = self.select(batch, after)? {
                    return Ok(message);
                }
                // Others' events must neither silence it nor keep its thread.
                if self.heartbeat.is_due() {
                    return Ok(self.control(Control::Heartbeat));
                }
                for _ in 0..looks {
                    tokio::task::consume_budget().await;
                }
            }
            if !self.caught_up && self.tail.cursor() >= self.target {
                self.caught_up = true;
                if self.terms.stop_when_caught_up {
                    self.phase = Phase::Over;
                }
                return Ok(self.control(Control::CaughtUp));
            }
            let before = self.tail.cursor();
            let is_filtered = self.terms.filter.is_some();
            let next = select! {
                biased;
                reason = &mut self.closed => return Err(self.ended(reason)),
                next = next(&mut self.tail, is_filtered) => next,
                () = self.heartbeat.silence() => return Ok(self.control(Control::Heartbeat)),
            };
            match next {
                Ok(batch) => {
                    if is_filtered {
                        self.held = Some((batch, before));
                    } else {
                        return Ok(self.piece(&batch));
                    }
                }
                Err(ended) => return self.lost(&ended),
            }
        }
    }

    /// What is wanted of a batch; `None` if that is nothing.
    fn select(&mut self, batch: EventBatch, after: Seq) -> Result<Option<Message>, tonic::Status> {
        let Some(filter) = &self.terms.filter else { return Ok(None) };
        let Some(selection) = filter.select(&batch, after, MAX_PIECE_BYTES) else {
            return Err(status::watch_ended(&Unreadable::damaged(after).into(), &self.feed.hub));
        };
        self.stats.moved(selection.upto, self.tail.reads_history());
        let message = (selection.count > 0)
            .then(|| self.message(selection.upto, selection.events, selection.count, None));
        if selection.upto < batch.last() {
            self.held = Some((batch, selection.upto));
        }
        Ok(message)
    }

    fn piece(&self, piece: &EventBatch) -> Message {
        self.stats.moved(piece.last(), self.tail.reads_history());
        let count = piece.last().0 + 1 - piece.first().0;
        self.message(piece.last(), piece.data().clone(), count, None)
    }

    /// The tail goes no further: the message that says so, if it is not an error.
    fn lost(&mut self, ended: &Ended) -> Step {
        let oldest = match ended {
            Ended::Closed => {
                self.phase = Phase::Draining;
                return Ok(self.control(Control::Draining));
            }
            Ended::Failed(cause) => {
                let cursor = self.cursor(self.resume(self.tail.cursor()));
                return Err(status::server_failed(cause, &cursor));
            }
            Ended::StoreFailed(cause) => {
                let cursor = self.cursor(self.resume(self.tail.cursor()));
                return Err(status::store_failed(cause, &cursor));
            }
            Ended::Unreadable(Unreadable::Expired(oldest)) => *oldest,
            Ended::Unreadable(_) => return Err(status::watch_ended(ended, &self.feed.hub)),
        };
        if !self.terms.over_gaps {
            return Err(status::watch_ended(ended, &self.feed.hub));
        }
        let (from, to) = (self.tail.cursor(), oldest.previous());
        self.tail = self.feed.tail(Some(to));
        self.stats.moved(to, true);
        Ok(self.control(Control::Gap(WatchGap {
            from_cursor: self.feed.hub.cursor(from).to_string(),
            to_cursor: self.feed.hub.cursor(to).to_string(),
            missing_events: to.0.saturating_sub(from.0),
        })))
    }

    fn ended(&self, end: super::close::CloseReason) -> tonic::Status {
        status::watch_over(end, &self.cursor(self.resume(self.tail.cursor())))
    }

    fn control(&self, control: Control) -> Message {
        self.message(self.tail.cursor(), Bytes::new(), 0, Some(control))
    }

    fn message(&self, after: Seq, events: Bytes, count: u64, control: Option<Control>) -> Message {
        let after = self.resume(after);
        self.stats.hand(after, count);
        EncodedWatchEventsResponse { cursor: self.cursor(after), events, control }
    }

    /// What to resume after, having told all up to `after`: nothing before the snapshot
    /// is complete, as that would leave out what was not told of it.
    fn resume(&self, after: Seq) -> Option<Seq> {
        self.terms.snapshot.is_none().then_some(after)
    }

    fn cursor(&self, after: Option<Seq>) -> String {
        after.map(|after| self.feed.hub.cursor(after).to_string()).unwrap_or_default()
    }
}

type Message = EncodedWatchEventsResponse;

/// What follows, in pieces that are sent as they are, or whole, so that the index
/// is shared. Dropping the future loses nothing.
async fn next(tail: &mut Tail, whole: bool) -> Result<EventBatch, Ended> {
    if whole { tail.next_batch().await } else { tail.next().await }
}

#[cfg(test)]
mod tests;

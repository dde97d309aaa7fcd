//! What happens at start: the new incarnation takes over what the one before
//! left.
//!
//! There is no timer and no guess. Whatever a slot names was running when the
//! previous process ended without a word, so it is recorded as interrupted and
//! is ready again before the first command is taken.

use std::{collections::VecDeque, sync::Arc};

use rusqlite::Connection;
use tokio::sync::watch;

use super::{
    engine::{Engine, Entry, Group, GroupError, Index, wall_clock},
    identity::Identity,
    ready::Ready,
    sqlite::{self, DatabaseError, LiveRow, Writer},
};
use crate::{
    admission::Admission,
    events::{self, Chronicle, Encoder, Hub, Incarnation},
    task::{Lifecycle, State, Timestamp},
};

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Of those, how many were running at a crash.
    pub interrupted: usize,
}

/// What the engine's thread hands back once it can serve.
pub struct Opened {
    pub identity: Identity,
    pub hub: Hub,
    pub failure: watch::Receiver<Option<Arc<str>>>,
    pub recovered: Recovered,
}

/// Makes an engine from what is on disk, and commits what its start changes.
pub fn recover(
    connection: &Connection,
    admission: Arc<Admission>,
    max_crashes: u32,
) -> Result<(Engine<'_>, Opened), DatabaseError> {
    let identity = sqlite::identity(connection)?;
    let (newest_task, newest_event) = sqlite::newest(connection)?;
    let incarnation = Incarnation { mark: rand::random(), first: newest_event.next() };
    let mut incarnations = sqlite::incarnations(connection)?;
    incarnations.push(incarnation);
    let chronicle = Chronicle::new(identity.cursor_mark(), incarnations);
    let (publisher, hub) = events::hub(newest_event, chronicle);
    let (failed, failure) = watch::channel(None);
    let mut engine = Engine {
        writer: Writer::new(connection)?,
        identity,
        admission,
        publisher,
        failure: failed,
        index: Index::default(),
        ready: Ready::default(),
        encoder: Encoder::new(newest_event),
        newest_task,
        max_crashes,
        idle: VecDeque::new(),
        draining: false,
        group: Group { now: wall_clock(), ..Group::default() },
    };
    let interrupted = begin_incarnation(&mut engine, connection, incarnation)?;
    let recovered = Recovered { tasks: engine.index.len(), interrupted };
    Ok((engine, Opened { identity, hub, failure, recovered }))
}

fn begin_incarnation(
    engine: &mut Engine<'_>,
    connection: &Connection,
    incarnation: Incarnation,
) -> Result<usize, DatabaseError> {
    let slots = sqlite::slots(connection)?;
    let running: std::collections::HashSet<u64> = slots.iter().map(|slot| slot.task).collect();
    sqlite::each_live(connection, |row| {
        let number = row.number;
        let waits = !running.contains(&number);
        let entry = entry_of(engine, &row, waits);
        if waits {
            engine.await_turn(number, &entry);
        }
        engine.index.insert(number, entry);
    })?;
    engine.writer.begin()?;
    engine.writer.insert_incarnation(incarnation, engine.group.now)?;
    for slot in &slots {
        engine.crashed(*slot).map_err(|error| match error {
            GroupError::Sqlite(error) => DatabaseError::Sqlite(error),
            damaged @ GroupError::Inconsistent(_) => DatabaseError::Damaged(damaged.to_string()),
        })?;
        engine.writer.delete_slot(slot.worker)?;
    }
    engine.group.slots.clear();
    let batch = engine.encoder.take();
    if let Some(batch) = &batch {
        engine.writer.insert_events(batch)?;
    }
    engine.writer.commit()?;
    if let Some(batch) = batch {
        engine.publisher.publish(batch);
    }
    engine.group.effects.drain(..).for_each(super::engine::Effect::perform);
    Ok(slots.len())
}

fn entry_of(engine: &mut Engine<'_>, row: &LiveRow, waits: bool) -> Entry {
    let place = waits.then(|| engine.admission.readmit(&row.queue, row.bytes));
    let queue = match &place {
        Some(place) => Arc::clone(place.queue()),
        None => engine.index.share(&row.queue),
    };
    Entry {
        life: Lifecycle {
            state: waiting_state(row.due, engine.group.now),
            attempt: row.attempt,
            failures: row.failures,
            crashes: row.crashes,
            cancel_requested: row.cancel_requested,
        },
        kind: engine.index.share(&row.kind),
        queue,
        priority: row.priority,
        max_attempts: row.max_attempts,
        due: row.due,
        bytes: row.bytes,
        place,
        execution: None,
    }
}

/// A task that waits is SCHEDULED until its due time and QUEUED from then on;
/// no row is written when the time comes.
pub fn waiting_state(due: Timestamp, now: Timestamp) -> State {
    if due > now { State::Scheduled } else { State::Queued }
}

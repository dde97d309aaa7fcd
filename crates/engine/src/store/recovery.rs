//! What happens at start: the new incarnation takes over what the one before
//! left.
//!
//! There is no timer and no guess. Whatever a slot names was running when the
//! previous process ended without a word, so it is recorded as interrupted and
//! is ready again before the first command is taken.

use std::{
    collections::{HashSet, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{
    Settings,
    clock::Clock,
    engine::{
        ByNumber, DiskWatch, EndedCount, Engine, Entry, Group, GroupError, Index, LogKeeper, Mix,
        Queues, RetentionTrimmer,
    },
    identity::Identity,
    journal::{Found, Journal, LiveHead, QueueRow, Records, SlotRow, TallyRow},
    ready::{DueTimer, ReadyQueues},
    record::QueueRecord,
    space::Space,
    sqlite::{DatabaseError, wait_out},
};
use crate::{
    admission::Admission,
    event::Seq,
    events::{self, CursorCodec, Encoder, Hub, Incarnation},
    store::Durability,
    task::{Lifecycle, State, Timestamp},
};

/// Tasks that are read together.
const TASKS_TOGETHER: usize = 1_000;

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

/// Makes an engine from what a journal has, and commits what its start changes. `database` is
/// the file in which it keeps that, if it is one.
pub fn recover<'j>(
    mut journal: Box<dyn Journal + 'j>,
    database: Option<&Path>,
    admission: Arc<Admission>,
    settings: &Settings,
) -> Result<(Engine<'j>, Opened), DatabaseError> {
    let found = journal.find()?;
    let Found { newest_task, newest_event, .. } = found;
    let has_tasks = |numbers| journal.has_tasks(numbers);
    let identity = found.identity.begin_start(newest_task + 1, has_tasks)?;
    let incarnation = Incarnation { mark: rand::random(), first: newest_event.next() };
    let mut incarnations = found.starts;
    incarnations.push(incarnation);
    let forgotten = forget_unneeded(&mut incarnations, found.oldest_event);
    let codec = CursorCodec::new(identity.cursor_mark(), incarnations);
    let (publisher, hub) = events::hub(newest_event, codec);
    let (failed, failure) = watch::channel(None);
    let clock = Clock::new(settings.clock.clone(), found.uptime);
    let now = clock.now();
    let mut engine = Engine {
        records: Records::new(journal),
        log_keeper: LogKeeper::new(settings.max_log / 4_096),
        disk: DiskWatch::new(),
        identity: identity.clone(),
        queues: Queues::new(Arc::clone(&admission), &now),
        mix: Mix::default(),
        admission,
        publisher,
        failure: failed,
        directory: None,
        clock,
        index: Index::default(),
        ready: ReadyQueues::default(),
        encoder: Encoder::new(newest_event),
        trimmer: RetentionTrimmer::new(settings.retention),
        space: space_of(database, settings),
        newest_task,
        newest_ended: found.newest_ended,
        max_crashes: settings.max_crashes,
        idle: VecDeque::new(),
        running: ByNumber::default(),
        lost: Vec::new(),
        retiring: HashSet::new(),
        draining: false,
        group: Group::new(now),
    };
    take_over_queues(&mut engine, &found.queues, &found.tallies)?;
    let interrupted = found.slots.len();
    take_over_tasks(&mut engine, &found.slots)?;
    begin_incarnation(&mut engine, incarnation, forgotten, &found.slots, found.newest_batch)?;
    let recovered = Recovered { tasks: engine.index.len(), interrupted };
    Ok((engine, Opened { identity, hub, failure, recovered }))
}

/// What is in memory alone takes no room. A database may be elsewhere, by a link.
fn space_of(database: Option<&Path>, settings: &Settings) -> Space {
    let reserve = match settings.durability {
        Durability::Memory => 0,
        Durability::Fsync | Durability::Os => settings.disk_reserve,
    };
    let directory = database.and_then(Path::parent).unwrap_or(&settings.data_dir);
    Space::new(directory.to_owned(), reserve)
}

/// The queues that the configuration names, those that were changed, and those
/// in which tasks have ended.
fn take_over_queues(
    engine: &mut Engine<'_>,
    rows: &[QueueRow],
    tallies: &[TallyRow],
) -> Result<(), DatabaseError> {
    let admission = Arc::clone(&engine.admission);
    let now = engine.group.now;
    for name in admission.queue_config().declared.keys() {
        engine.queues.ensure(name, &mut engine.ready, &now);
    }
    for row in rows {
        let overrides = QueueRecord::from_bytes(&row.overrides)
            .map_err(|wrong| DatabaseError::Damaged(format!("queue {:?}: {wrong}", row.name)))?;
        let id = engine.queues.ensure(&row.name, &mut engine.ready, &now);
        let settings = engine.queues.set_overrides(id, overrides, &mut engine.ready);
        engine.queues.set_paused(id, row.paused, &mut engine.ready);
        if let (Some(queue), Some(settings)) = (engine.queues.get(id), settings) {
            queue.handle.configure(settings);
        }
    }
    for row in tallies {
        if row.tasks > 0 {
            let id = engine.queues.ensure(&row.queue, &mut engine.ready, &now);
            engine.queues.count(id, row.state, EndedCount { tasks: row.tasks, bytes: row.bytes });
        }
    }
    Ok(())
}

/// Tasks that have not ended; those that the slots name were running.
fn take_over_tasks(engine: &mut Engine<'_>, slots: &[SlotRow]) -> Result<(), DatabaseError> {
    let running: HashSet<u64> = slots.iter().map(|slot| slot.task).collect();
    let mut beyond = 0;
    loop {
        let rows = engine.records.journal.live_tasks(beyond, TASKS_TOGETHER)?;
        let Some(last) = rows.last() else { return Ok(()) };
        beyond = last.number;
        for row in rows {
            let number = row.number;
            let waits = !running.contains(&number);
            let entry = entry_of(engine, &row, waits);
            if waits {
                engine.await_turn(number, &entry);
            }
            engine.index.insert(number, entry);
        }
    }
}

fn begin_incarnation(
    engine: &mut Engine<'_>,
    incarnation: Incarnation,
    forgotten: Vec<Incarnation>,
    slots: &[SlotRow],
    mut newest_batch: Seq,
) -> Result<(), DatabaseError> {
    engine.records.insert_start(incarnation);
    for old in forgotten {
        engine.records.delete_start(old);
    }
    engine.records.remember_starts(engine.identity.starts());
    for slot in slots {
        engine.crashed(*slot).map_err(damaged)?;
        engine.group.slots.insert(slot.worker, None);
    }
    engine.write_gathered();
    let batches = engine.encoder.take_all();
    let uptime = engine.uptime();
    for batch in &batches {
        engine.records.insert_events(batch.clone(), uptime);
        newest_batch = batch.first();
    }
    wait_out(|| engine.records.commit(engine.group.now.wall))?;
    engine.begin_trimming(newest_batch).map_err(damaged)?;
    // Nothing more is to be read.
    engine.records.commit(engine.group.now.wall)?;
    if let Some(first) = engine.trimmer.first_event() {
        engine.publisher.kept_from(first);
    }
    for batch in batches {
        engine.publisher.publish(batch);
    }
    for effect in engine.group.effects.drain(..) {
        effect.perform();
    }
    Ok(())
}

/// Takes out the process starts that no event and no cursor needs any more: those of
/// which no event is kept, not even as the one that the oldest cursor stands after, and
/// those that told nothing. Without this they would be more with every start, for ever.
fn forget_unneeded(incarnations: &mut Vec<Incarnation>, oldest: Seq) -> Vec<Incarnation> {
    let begun = incarnations.partition_point(|known| known.first <= oldest.previous());
    let mut forgotten: Vec<_> = incarnations.drain(..begun.saturating_sub(1)).collect();
    let starts: Vec<Seq> = incarnations.iter().map(|known| known.first).collect();
    let mut at = 0;
    incarnations.retain(|known| {
        at += 1;
        // The first one of all has given out the cursor before the first event.
        let told_nothing = at > 1 && starts.get(at) == Some(&known.first);
        if told_nothing {
            forgotten.push(*known);
        }
        !told_nothing
    });
    forgotten
}

fn damaged(error: GroupError) -> DatabaseError {
    match error {
        GroupError::Journal(error) => error.into(),
        damaged @ GroupError::Inconsistent(_) => DatabaseError::Damaged(damaged.to_string()),
    }
}

fn entry_of(engine: &mut Engine<'_>, row: &LiveHead, waits: bool) -> Entry {
    let now = engine.group.now;
    let queue = engine.queues.ensure(&row.queue, &mut engine.ready, &now);
    let permit = waits.then(|| engine.admission.readmit(&row.queue, row.bytes));
    // Of an interval, only the time of the wall clock at which it was to end is left;
    // whatever that clock says by now, no more remains of it than its length.
    let left = row.due.since(now.wall).min(row.interval.unwrap_or(Duration::MAX));
    let timer = match row.interval {
        _ if left.is_zero() => DueTimer::elapsed(row.due, &now),
        None => DueTimer::Wall(row.due),
        Some(_) => DueTimer::Steady(now.steady.after(left)),
    };
    let kind = engine.index.share(&row.kind);
    Entry {
        life: Lifecycle {
            state: waiting_state(row.due, row.interval, now.wall),
            attempt: row.attempt,
            failures: row.failures,
            crashes: row.crashes,
            cancel_requested: row.cancel_requested,
        },
        class: engine.mix.class(queue, &kind),
        kind,
        queue,
        priority: row.priority,
        max_attempts: row.max_attempts,
        due: row.due,
        timer,
        bytes: row.bytes,
        has_labels: row.has_labels,
        permit,
        execution: None,
    }
}

/// A task that waits is SCHEDULED until its due time and QUEUED from then on;
/// no row is written when the time comes. One that was to wait for no time at all is
/// QUEUED, whatever the clocks have done since.
pub fn waiting_state(due: Timestamp, interval: Option<Duration>, now: Timestamp) -> State {
    let waits = interval.is_none_or(|interval| !interval.is_zero());
    if waits && due > now { State::Scheduled } else { State::Queued }
}

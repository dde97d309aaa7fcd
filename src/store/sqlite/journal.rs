//! The journal in SQLite: how a group becomes rows. `lookups` has what it is asked, `start`
//! what is read when it is opened.

#[cfg(test)]
mod tests;

use std::{ops::Range, path::Path};

use rusqlite::{Connection, Statement, types::ValueRef};

use super::{
    Table, fault,
    log::Log,
    lookups::Lookups,
    numbers::pack,
    packs::{self, PackStatements, Packs},
    start, state_column,
    sum::{values, write},
};
use crate::{
    event::Seq,
    events::EventBatch,
    store::{
        MAX_ATTEMPTS_KEPT,
        clock::Uptime,
        engine::ENDS,
        journal::{
            AttemptRow, Damage, EndedRow, Fault, FinishRow, FinishedTask, Found, Journal,
            JournalError, Labels, LiveHead, LiveRow, Moved, OutputRow, QueueRow, RequestRow,
            SlotRow, TallyChange, TaskRow, WriteSet, WrittenLive,
        },
        record,
    },
    task::{State, Timestamp, WorkerId},
};

type Rows<T> = Result<T, rusqlite::Error>;
type Asked<T> = Result<T, JournalError>;

/// A journal on the connection that writes.
pub struct SqliteJournal<'c> {
    pub(super) connection: &'c Connection,
    pub(super) lookups: Lookups<'c>,
    statements: Statements<'c>,
    packs: Packs,
    log: Log<'c>,
    /// Whether any output of an execution may be kept.
    pub(super) has_outputs: bool,
    /// What was refused may still be in the log.
    is_uncut: bool,
}

/// The statements that write, prepared once.
struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    next_start: Statement<'c>,
    insert_start: Statement<'c>,
    delete_start: Statement<'c>,
    insert_task: Statement<'c>,
    packs: PackStatements<'c>,
    insert_live: Statement<'c>,
    replace_live: Statement<'c>,
    delete_live: Statement<'c>,
    put_slot: Statement<'c>,
    delete_slot: Statement<'c>,
    put_finish: Statement<'c>,
    delete_finish: Statement<'c>,
    delete_finishes: Statement<'c>,
    insert_attempt: Statement<'c>,
    forget_attempts: Statement<'c>,
    delete_attempts: Statement<'c>,
    insert_output: Statement<'c>,
    forget_outputs: Statement<'c>,
    delete_outputs: Statement<'c>,
    delete_tasks: Statement<'c>,
    insert_request: Statement<'c>,
    delete_request: Statement<'c>,
    insert_ended: Statement<'c>,
    replace_ended: Statement<'c>,
    delete_ended: Statement<'c>,
    insert_event: Statement<'c>,
    delete_events: Statement<'c>,
    put_tally: Statement<'c>,
    delete_tallies: Statement<'c>,
    put_queue: Statement<'c>,
    delete_queue: Statement<'c>,
    put_meta: Statement<'c>,
}

impl<'c> SqliteJournal<'c> {
    /// Of the database that this connection has open, at this path or in memory.
    pub fn new(connection: &'c Connection, path: Option<&Path>) -> Rows<Self> {
        // The log is written by commits alone, so that nothing else can lack room.
        connection.pragma_update(None, "cache_spill", false)?;
        Ok(Self {
            connection,
            lookups: Lookups::new(connection)?,
            statements: Statements::new(connection)?,
            packs: Packs::load(connection)?,
            log: Log::new(connection, path)?,
            has_outputs: connection.prepare("SELECT 1 FROM output LIMIT 1")?.exists([])?,
            is_uncut: false,
        })
    }

    /// Gives up what was begun, as well as that is possible.
    pub(super) fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    fn try_commit(&mut self, set: &WriteSet, now: Timestamp) -> Rows<()> {
        self.end_reading()?;
        if self.is_uncut {
            self.is_uncut = !self.log.forget_uncommitted();
        }
        if set.is_empty() {
            return Ok(());
        }
        self.has_outputs |= !set.outputs.is_empty();
        let changes = self.packs.changes(set);
        self.statements.begin.execute([])?;
        self.statements.packs.write(&changes)?;
        self.statements.write(set, &self.packs, now, self.has_outputs)?;
        // With fsync it returns when the disk has it.
        self.statements.commit.execute([])?;
        self.packs.apply(changes);
        Ok(())
    }
}

impl<'c> Statements<'c> {
    fn new(connection: &'c Connection) -> Rows<Self> {
        let prepare = |sql: &str| connection.prepare(sql);
        let insert = |table: Table| connection.prepare(&table.insert("INSERT"));
        let replace = |table: Table| connection.prepare(&table.insert("INSERT OR REPLACE"));
        Ok(Self {
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            next_start: prepare("SELECT coalesce(max(id), 0) + 1 FROM incarnation")?,
            insert_start: insert(Table::Incarnation)?,
            delete_start: prepare("DELETE FROM incarnation WHERE mark = ?1 AND first_seq = ?2")?,
            insert_task: insert(Table::Task)?,
            packs: PackStatements::new(connection)?,
            insert_live: insert(Table::Live)?,
            replace_live: replace(Table::Live)?,
            delete_live: prepare("DELETE FROM live WHERE id = ?1")?,
            put_slot: replace(Table::Slot)?,
            delete_slot: prepare("DELETE FROM slot WHERE worker = ?1")?,
            put_finish: replace(Table::Finish)?,
            delete_finish: prepare("DELETE FROM finish WHERE id = ?1")?,
            delete_finishes: prepare("DELETE FROM finish WHERE id BETWEEN ?1 AND ?2")?,
            insert_attempt: prepare(&Table::Attempt.insert("INSERT OR IGNORE"))?,
            forget_attempts: prepare("DELETE FROM attempt WHERE task = ?1 AND attempt <= ?2")?,
            delete_attempts: prepare("DELETE FROM attempt WHERE task BETWEEN ?1 AND ?2")?,
            insert_output: replace(Table::Output)?,
            forget_outputs: prepare("DELETE FROM output WHERE task = ?1 AND attempt <= ?2")?,
            delete_outputs: prepare("DELETE FROM output WHERE task BETWEEN ?1 AND ?2")?,
            delete_tasks: prepare("DELETE FROM task WHERE id BETWEEN ?1 AND ?2")?,
            insert_request: insert(Table::Request)?,
            delete_request: prepare("DELETE FROM request WHERE id = ?1 AND task = ?2")?,
            insert_ended: insert(Table::Ended)?,
            replace_ended: replace(Table::Ended)?,
            delete_ended: prepare("DELETE FROM ended WHERE id = ?1")?,
            insert_event: insert(Table::Event)?,
            delete_events: prepare("DELETE FROM event WHERE first = ?1")?,
            put_tally: replace(Table::Tally)?,
            delete_tallies: prepare("DELETE FROM tally WHERE queue = ?1")?,
            put_queue: replace(Table::Queue)?,
            delete_queue: prepare("DELETE FROM queue WHERE name = ?1")?,
            put_meta: replace(Table::Meta)?,
        })
    }

    /// Rows of one table in the order of their keys, which is that in which they lie.
    fn write(
        &mut self,
        set: &WriteSet,
        packs: &Packs,
        now: Timestamp,
        has_outputs: bool,
    ) -> Rows<()> {
        self.write_starts(set, now)?;
        self.trim(set, has_outputs)?;
        for new in &set.tasks {
            self.insert_task(&new.task)?;
        }
        self.write_live(set, packs)?;
        self.write_finished(set)?;
        for (id, row) in &set.requests {
            let values = values![&**id, row.task, row.fingerprint.as_slice()];
            write(&mut self.insert_request, Table::Request, &values)?;
        }
        for output in &set.outputs {
            let OutputRow { task, attempt, data } = output;
            let values = values![*task, *attempt, data.as_slice()];
            write(&mut self.insert_output, Table::Output, &values)?;
        }
        for attempt in &set.attempts {
            self.insert_attempt(attempt, has_outputs)?;
        }
        for (worker, slot) in &set.slots {
            self.write_slot(*worker, *slot)?;
        }
        self.write_ended(set)?;
        for (batch, uptime) in &set.events {
            self.insert_events(batch, *uptime)?;
        }
        for (queue, change) in &set.tallies {
            self.write_tallies(queue, change)?;
        }
        for (name, row) in &set.queues {
            self.write_queue(name, row.as_ref())?;
        }
        for (key, value) in &set.meta {
            write(&mut self.put_meta, Table::Meta, &values![*key, value.as_slice()])?;
        }
        Ok(())
    }

    fn write_starts(&mut self, set: &WriteSet, now: Timestamp) -> Rows<()> {
        for start in &set.starts {
            let next: i64 = self.next_start.query_row([], |row| row.get(0))?;
            let values = values![next, start.mark, start.first.0, now.0];
            write(&mut self.insert_start, Table::Incarnation, &values)?;
        }
        for start in &set.forgotten_starts {
            self.delete_start.execute((start.mark, start.first.0))?;
        }
        Ok(())
    }

    fn insert_task(&mut self, row: &TaskRow) -> Rows<()> {
        let values = values![
            row.number,
            row.seq.0,
            row.created.0,
            &*row.queue,
            &*row.kind,
            row.request_id.as_deref(),
            row.labels.as_deref(),
            row.record.as_slice(),
        ];
        write(&mut self.insert_task, Table::Task, &values)
    }

    /// A task that came and ended within the group has had no row here, nor has one that was in
    /// a pack.
    fn write_live(&mut self, set: &WriteSet, packs: &Packs) -> Rows<()> {
        let mut numbers: Vec<u64> = set.live.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            match (set.live.get(&number).and_then(Option::as_ref), set.is_new(number)) {
                (Some(row), true) => write(&mut self.insert_live, Table::Live, &live_values(row))?,
                (Some(row), false) => {
                    write(&mut self.replace_live, Table::Live, &live_values(row))?;
                }
                (None, true) => {}
                (None, false) if packs.holder(number).is_some() => {}
                (None, false) => drop(self.delete_live.execute([number])?),
            }
        }
        Ok(())
    }

    fn write_finished(&mut self, set: &WriteSet) -> Rows<()> {
        let mut numbers: Vec<u64> = set.finished.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            match set.finished.get(&number).and_then(Option::as_ref) {
                Some(row) => self.put_finish(row)?,
                None => drop(self.delete_finish.execute([number])?),
            }
        }
        Ok(())
    }

    fn put_finish(&mut self, row: &FinishRow) -> Rows<()> {
        let (result_type, result) = row.result.as_ref().map(record::result_columns).unzip();
        let values = values![
            row.number,
            state_column(row.life.state),
            row.finished.0,
            row.due.0,
            row.life.attempt,
            row.life.failures,
            row.life.cancel_requested,
            row.bytes,
            row.ended,
            row.execution.map(|(worker, _)| worker.0),
            row.execution.map(|(_, started)| started.0),
            row.failure.as_ref().map(|failure| failure.reason.as_str()),
            row.failure.as_ref().map(|failure| failure.message.as_str()),
            result_type,
            result,
        ];
        write(&mut self.put_finish, Table::Finish, &values)
    }

    /// Notes an execution, and forgets those that are so many executions older.
    fn insert_attempt(&mut self, row: &AttemptRow, has_outputs: bool) -> Rows<()> {
        let values = values![
            row.task,
            row.attempt,
            row.worker.0,
            row.started.0,
            row.ended.0,
            row.failure.as_ref().map(|failure| failure.reason.as_str()),
            row.failure.as_ref().map(|failure| failure.message.as_str()),
        ];
        write(&mut self.insert_attempt, Table::Attempt, &values)?;
        match row.attempt.checked_sub(MAX_ATTEMPTS_KEPT) {
            None | Some(0) => Ok(()),
            Some(old) => {
                if has_outputs {
                    self.forget_outputs.execute((row.task, old))?;
                }
                self.forget_attempts.execute((row.task, old)).map(drop)
            }
        }
    }

    fn write_slot(&mut self, worker: WorkerId, slot: Option<SlotRow>) -> Rows<()> {
        match slot {
            Some(slot) => {
                let values = values![slot.worker.0, slot.task, slot.attempt, slot.started.0];
                write(&mut self.put_slot, Table::Slot, &values)
            }
            None => self.delete_slot.execute([worker.0]).map(drop),
        }
    }

    /// Tasks of which nothing is kept any more. They are neighbours, mostly, and go together.
    fn trim(&mut self, set: &WriteSet, has_outputs: bool) -> Rows<()> {
        let mut numbers: Vec<u64> = set.trimmed.keys().copied().collect();
        numbers.sort_unstable();
        for run in numbers.chunk_by(|before, after| *after == before + 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            self.delete_finishes.execute((first, last))?;
            self.delete_tasks.execute((first, last))?;
            self.delete_attempts.execute((first, last))?;
            if has_outputs {
                self.delete_outputs.execute((first, last))?;
            }
        }
        for (number, request_id) in &set.trimmed {
            if let Some(request_id) = request_id {
                self.delete_request.execute((request_id, number))?;
            }
        }
        Ok(())
    }

    /// What has ended in this group, and what is not kept any more.
    fn write_ended(&mut self, set: &WriteSet) -> Rows<()> {
        for row in &set.ended {
            write_ended(&mut self.insert_ended, row)?;
        }
        for row in set.shortened.values() {
            if row.tasks.is_empty() {
                self.delete_ended.execute([row.id])?;
            } else {
                write_ended(&mut self.replace_ended, row)?;
            }
        }
        for first in &set.trimmed_events {
            self.delete_events.execute([first.0])?;
        }
        Ok(())
    }

    fn insert_events(&mut self, batch: &EventBatch, now: Uptime) -> Rows<()> {
        let data: &[u8] = batch.data();
        let values = values![batch.first().0, batch.last().0, now.0, data];
        write(&mut self.insert_event, Table::Event, &values)
    }

    fn write_tallies(&mut self, queue: &str, change: &TallyChange) -> Rows<()> {
        if change.forget {
            self.delete_tallies.execute([queue])?;
        }
        for (state, (tasks, bytes)) in ENDS.iter().zip(change.counts.iter().flatten()) {
            let values = values![queue, state_column(*state), *tasks, *bytes];
            write(&mut self.put_tally, Table::Tally, &values)?;
        }
        Ok(())
    }

    fn write_queue(&mut self, name: &str, row: Option<&QueueRow>) -> Rows<()> {
        match row {
            Some(QueueRow { paused, overrides, .. }) => {
                let values = values![name, *paused, overrides.as_slice()];
                write(&mut self.put_queue, Table::Queue, &values)
            }
            None => self.delete_queue.execute([name]).map(drop),
        }
    }
}

fn write_ended(statement: &mut Statement<'_>, row: &EndedRow) -> Rows<()> {
    let tasks = pack(&row.tasks);
    write(statement, Table::Ended, &values![row.id, row.failed, row.uptime.0, tasks.as_slice()])
}

fn live_values(row: &LiveRow) -> [ValueRef<'_>; 17] {
    values![
        row.number,
        &*row.queue,
        &*row.kind,
        row.priority,
        row.due.0,
        row.interval.map(record::micros),
        row.bytes,
        row.max_attempts,
        row.life.attempt,
        row.life.failures,
        row.life.crashes,
        row.life.cancel_requested,
        row.execution.map(|(worker, _)| worker.0),
        row.execution.map(|(_, started)| started.0),
        row.failure.as_ref().map(|failure| failure.reason.as_str()),
        row.failure.as_ref().map(|failure| failure.message.as_str()),
        row.labels.as_deref(),
    ]
}

impl Journal for SqliteJournal<'_> {
    fn begin(&mut self) -> Asked<()> {
        self.begin_reading()?;
        // The first thing that is read meets whatever is in the way.
        Ok(self.lookups.touch()?)
    }

    fn find(&mut self) -> Asked<Found> {
        Ok(start::find(self.connection)?)
    }

    fn has_tasks(&mut self, numbers: Range<u64>) -> Asked<bool> {
        Ok(start::has_tasks(self.connection, numbers)?)
    }

    fn live_tasks(&mut self, beyond: u64, most: usize) -> Asked<Vec<LiveHead>> {
        let mut tasks = start::live_tasks(self.connection, beyond, most)?;
        let packed = packs::tasks(self.connection, beyond, most)?;
        tasks.extend(packed.into_iter().filter(|head| self.packs.holder(head.number).is_some()));
        tasks.sort_unstable_by_key(|head| head.number);
        tasks.truncate(most);
        Ok(tasks)
    }

    fn request(&mut self, id: &str) -> Asked<Option<RequestRow>> {
        Ok(self.look_up(Table::Request, format!("{id:?}"), |lookups| lookups.request(id))?)
    }

    fn record(&mut self, number: u64) -> Asked<Option<(Vec<u8>, Labels)>> {
        Ok(self.look_up(Table::Task, number, |lookups| lookups.record(number))?)
    }

    fn task(&mut self, number: u64) -> Asked<TaskRow> {
        Ok(self.look_up(Table::Task, number, |lookups| lookups.task(number))?)
    }

    fn submitted_seq(&mut self, number: u64) -> Asked<Seq> {
        self.task(number).map(|task| task.seq)
    }

    fn live(&mut self, number: u64) -> Asked<WrittenLive> {
        Ok(match self.packs.holder(number) {
            Some(pack) => {
                let packed = |lookups: &mut Lookups<'_>| lookups.packed(pack, number);
                let (interval, has_labels) = self.look_up(Table::Pack, pack, packed)?;
                let labels = if has_labels { self.task(number)?.labels } else { None };
                WrittenLive { interval, labels, ..WrittenLive::default() }
            }
            None => self.look_up(Table::Live, number, |lookups| lookups.live(number))?,
        })
    }

    fn finished_state(&mut self, number: u64) -> Asked<Option<State>> {
        Ok(self.look_up(Table::Finish, number, |lookups| lookups.finished_state(number))?)
    }

    fn finished_task(&mut self, number: u64) -> Asked<Option<FinishedTask>> {
        Ok(self.look_up(Table::Finish, number, |lookups| lookups.finished_task(number))?)
    }

    fn outputs(&mut self, number: u64) -> Asked<Vec<(u32, u64)>> {
        if !self.has_outputs {
            return Ok(Vec::new());
        }
        Ok(self.look_up(Table::Output, number, |lookups| lookups.outputs(number))?)
    }

    fn oldest_ended(
        &mut self,
        failed: bool,
        beyond: i64,
    ) -> Asked<Option<Result<EndedRow, (i64, Damage)>>> {
        self.begin_reading()?;
        Ok(self.lookups.oldest_ended(failed, beyond)?)
    }

    fn oldest_events(&mut self, beyond: Seq) -> Asked<Option<(Seq, Result<Uptime, Damage>)>> {
        self.begin_reading()?;
        Ok(self.lookups.oldest_events(beyond)?)
    }

    fn commit(&mut self, set: &WriteSet, now: Timestamp) -> Asked<()> {
        let committed = self.try_commit(set, now);
        Ok(committed.inspect_err(|error| {
            self.roll_back();
            // Not where somebody else may be writing to the log.
            if matches!(fault::of(error), Fault::Full | Fault::Write) {
                self.is_uncut = !self.log.forget_uncommitted();
            }
        })?)
    }

    fn log(&mut self) -> Asked<Moved> {
        Ok(self.log.stand()?)
    }

    fn move_log(&mut self, begin_anew: bool) -> Asked<Moved> {
        Ok(if begin_anew {
            self.log.move_and_begin_anew()?
        } else {
            self.log.move_into_database()?
        })
    }

    fn log_bytes(&self, pages: u64) -> u64 {
        self.log.bytes(pages)
    }

    fn cut_uncommitted(&mut self) -> Asked<()> {
        self.roll_back();
        self.log.cut_uncommitted()
    }

    fn pages(&mut self) -> Asked<(u64, u64)> {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get(0));
        Ok((pragma("page_count")?, pragma("freelist_count")?))
    }

    fn give_back(&mut self, pages: u64) -> Asked<()> {
        let sql = format!("PRAGMA incremental_vacuum({pages})");
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        // Each step gives one page back.
        while rows.next()?.is_some() {}
        Ok(())
    }
}

//! How a group becomes rows: the statements that write them.
//!
//! Owns in which order the rows of a set are written. Must not know of the transaction around
//! them, nor of what becomes of one that is refused.

use rusqlite::{Connection, Statement, types::ValueRef};

use super::{
    Table,
    numbers::pack,
    packs::{PackStatements, Packs},
    state_column,
    sum::{values, write},
};
use crate::{
    events::EventBatch,
    store::{
        MAX_ATTEMPTS_KEPT,
        clock::Uptime,
        engine::ENDS,
        journal::{
            AttemptRow, EndedRow, FinishRow, LiveRow, OutputRow, QueueRow, SlotRow, TallyChange,
            TaskRow, WriteSet,
        },
        record,
    },
    task::{Timestamp, WorkerId},
};

type Rows<T> = Result<T, rusqlite::Error>;

/// The statements that write, prepared once.
pub struct Statements<'c> {
    pub begin: Statement<'c>,
    pub commit: Statement<'c>,
    next_start: Statement<'c>,
    insert_start: Statement<'c>,
    delete_start: Statement<'c>,
    insert_task: Statement<'c>,
    pub packs: PackStatements<'c>,
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

impl<'c> Statements<'c> {
    /// On the connection that writes.
    pub fn new(connection: &'c Connection) -> Rows<Self> {
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
    pub fn write(
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

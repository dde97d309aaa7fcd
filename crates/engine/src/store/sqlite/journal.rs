//! The journal in SQLite: one transaction for a group. `statements` has how its rows are written,
//! `lookups` what it is asked, `start` what is read when it is opened.

#[cfg(test)]
mod tests;

use std::{ops::Range, path::Path};

use rusqlite::Connection;

use super::{
    Table, fault,
    log::Log,
    lookups::Lookups,
    packs::{self, Packs},
    start,
    statements::Statements,
};
use crate::{
    event::Seq,
    store::{
        clock::Uptime,
        journal::{
            Damage, EndedRow, Fault, FinishedTask, Found, Journal, JournalError, Labels, LiveHead,
            Moved, RequestRow, TaskRow, WriteSet, WrittenLive,
        },
    },
    task::{State, Timestamp},
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

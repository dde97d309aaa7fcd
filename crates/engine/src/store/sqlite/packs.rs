//! Packs: tasks that wait as they were submitted, up to 64 of them in one row.
//!
//! Owns which tasks are in packs. A pack never changes. Which of its tasks have changed or ended
//! since is one number beside it, in `unpacked`; when none is left, both rows go. So a task that
//! is submitted, runs once and ends has no row of its own in `live`.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, Statement, types::ValueRef};

use super::{
    Table,
    sum::{check, check_head, values, write},
};
use crate::store::{
    journal::{Damage, LiveHead, WriteSet},
    record::PackRecord,
};

type Rows<T> = Result<T, rusqlite::Error>;

/// Numbers that a pack covers: there is a bit for each.
pub const MAX_TASKS: u64 = 64;

/// A row of `pack` with that of `unpacked` beside it, if there is one.
const BOTH: &str =
    "SELECT pack.*, unpacked.* FROM pack LEFT JOIN unpacked ON unpacked.first = pack.first";

/// Rows of `unpacked` without a pack.
const ORPHANS: &str = "SELECT * FROM unpacked WHERE first NOT IN (SELECT first FROM pack)";

/// Columns of `pack`, with its checksum: where those of `unpacked` begin.
const UNPACKED: usize = 1 + Table::Pack.columns();

/// Which tasks a pack has, a bit for each, from that of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pack {
    /// When it was written.
    tasks: u64,
    /// Those of them that have changed or ended since.
    unpacked: u64,
}

impl Pack {
    fn has(self, bit: u64) -> bool {
        bit < MAX_TASKS && ((self.tasks & !self.unpacked) >> bit) & 1 == 1
    }

    fn is_empty(self) -> bool {
        self.tasks & !self.unpacked == 0
    }

    /// From a row of [`BOTH`].
    fn read(row: &Row<'_>) -> Rows<(u64, Self)> {
        check(row, 0, Table::Pack)?;
        Ok((row.get(1)?, Self { tasks: bits(row, 2)?, unpacked: unpacked(row, UNPACKED)? }))
    }
}

fn bits(row: &Row<'_>, at: usize) -> Rows<u64> {
    row.get::<_, i64>(at).map(i64::cast_unsigned)
}

/// Of the row of `unpacked` whose columns begin here; there may be none.
fn unpacked(row: &Row<'_>, at: usize) -> Rows<u64> {
    if row.get_ref(at + 1)? == ValueRef::Null {
        return Ok(0);
    }
    check(row, at, Table::Unpacked)?;
    bits(row, at + 2)
}

/// Which tasks are in packs, as of the last commit.
#[derive(Debug)]
pub struct Packs {
    there: BTreeMap<u64, Pack>,
}

/// Tasks of packs that are in this table, too, each with its pack. A row there that is damaged
/// proves nothing, and is told when its task is read.
fn also_in(connection: &Connection, table: Table) -> Rows<Vec<(u64, u64)>> {
    // The few packs lead, whatever SQLite thinks of it.
    let sql = format!(
        "SELECT pack.first, other.* FROM pack
         LEFT JOIN unpacked ON unpacked.first = pack.first CROSS JOIN {} AS other
         WHERE other.id BETWEEN pack.first AND pack.first + 63
         AND (((pack.tasks & ~coalesce(unpacked.tasks, 0)) >> (other.id - pack.first)) & 1) = 1",
        table.name()
    );
    let mut also = connection.prepare(&sql)?;
    let mut rows = also.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if check(row, 1, table).is_ok() {
            found.push((row.get(0)?, row.get(2)?));
        }
    }
    Ok(found)
}

/// What a commit changes about packs.
#[derive(Debug, Default)]
pub struct PackChanges {
    /// How those are after it that lose tasks.
    shrunk: BTreeMap<u64, Pack>,
    new: Vec<(u64, Pack, PackRecord)>,
}

impl Packs {
    /// Those that there are. A task that waits as it was submitted would run anew: so one that
    /// has a row of its own has left its pack, whatever `unpacked` says. That is so where the
    /// database and its log are not of one time, as after a loss that was accepted.
    pub fn load(connection: &Connection) -> Rows<Self> {
        let mut statement = connection.prepare(BOTH)?;
        let mut there: BTreeMap<u64, Pack> =
            statement.query_map([], Pack::read)?.collect::<Rows<_>>()?;
        let mut orphans = connection.prepare(ORPHANS)?;
        let mut rows = orphans.query([])?;
        while let Some(row) = rows.next()? {
            check(row, 0, Table::Unpacked)?;
            let first: u64 = row.get(1)?;
            tracing::error!(first, "tasks have left a pack that is not there");
        }
        for table in [Table::Live, Table::Finish] {
            for (first, task) in also_in(connection, table)? {
                let table = table.name();
                tracing::error!(task, table, "a task waits as it was submitted, and does not");
                if let Some(pack) = there.get_mut(&first) {
                    pack.unpacked |= 1 << (task - first);
                }
            }
        }
        Ok(Self { there })
    }

    /// The number of the pack that has this task.
    pub fn holder(&self, task: u64) -> Option<u64> {
        self.find(task).map(|(first, _)| first)
    }

    /// The pack that has this task, with its number.
    fn find(&self, task: u64) -> Option<(u64, Pack)> {
        let (first, pack) = self.there.range(..=task).next_back()?;
        pack.has(task - first).then_some((*first, *pack))
    }

    /// What a set changes about them.
    pub fn changes(&self, set: &WriteSet) -> PackChanges {
        let mut changes = PackChanges::default();
        for task in set.live.keys().chain(set.finished.keys()) {
            if let Some((first, pack)) = self.find(*task) {
                let shrunk = changes.shrunk.entry(first).or_insert(pack);
                shrunk.unpacked |= 1 << (task - first);
            }
        }
        for new in &set.tasks {
            let number = new.task.number;
            // It changed, or ended, within the group.
            if set.live.contains_key(&number) || set.finished.contains_key(&number) {
                continue;
            }
            let fits = |(first, ..): &&mut (u64, Pack, PackRecord)| number - first < MAX_TASKS;
            if let Some((first, pack, record)) = changes.new.last_mut().filter(fits) {
                pack.tasks |= 1 << (number - *first);
                record.push(*first, new);
            } else {
                let mut record = PackRecord::default();
                record.push(number, new);
                changes.new.push((number, Pack { tasks: 1, unpacked: 0 }, record));
            }
        }
        changes
    }

    /// A commit has changed them.
    pub fn apply(&mut self, changes: PackChanges) {
        for (first, pack) in changes.shrunk {
            if pack.is_empty() {
                self.there.remove(&first);
            } else {
                self.there.insert(first, pack);
            }
        }
        self.there.extend(changes.new.into_iter().map(|(first, pack, _)| (first, pack)));
    }
}

/// The statements that write packs, prepared once.
pub struct PackStatements<'c> {
    insert: Statement<'c>,
    delete: Statement<'c>,
    put_unpacked: Statement<'c>,
    delete_unpacked: Statement<'c>,
}

impl<'c> PackStatements<'c> {
    pub fn new(connection: &'c Connection) -> Rows<Self> {
        Ok(Self {
            insert: connection.prepare(&Table::Pack.insert("INSERT"))?,
            delete: connection.prepare("DELETE FROM pack WHERE first = ?1")?,
            put_unpacked: connection.prepare(&Table::Unpacked.insert("INSERT OR REPLACE"))?,
            delete_unpacked: connection.prepare("DELETE FROM unpacked WHERE first = ?1")?,
        })
    }

    /// Writes what a set changes.
    pub fn write(&mut self, changes: &PackChanges) -> Rows<()> {
        for (first, pack) in &changes.shrunk {
            if pack.is_empty() {
                self.delete.execute([first])?;
                self.delete_unpacked.execute([first])?;
            } else {
                let values = values![*first, pack.unpacked.cast_signed()];
                write(&mut self.put_unpacked, Table::Unpacked, &values)?;
            }
        }
        for (first, pack, record) in &changes.new {
            let data = record.to_bytes();
            let values = values![*first, pack.tasks.cast_signed(), data.as_slice()];
            write(&mut self.insert, Table::Pack, &values)?;
        }
        Ok(())
    }
}

/// What a row of `pack` has, those that have changed since included.
///
/// # Errors
/// Also if these are not the tasks that it says.
pub fn all_heads(row: &Row<'_>) -> Rows<Vec<LiveHead>> {
    let first = row.get(1)?;
    let damaged = |what: String| Damage::new(Table::Pack, first, what);
    let heads = PackRecord::heads(first, row.get_ref(3)?.as_blob()?).map_err(damaged)?;
    let bit = |head: &LiveHead| 1_u64.checked_shl(u32::try_from(head.number - first).ok()?);
    if heads.iter().filter_map(bit).fold(0, |bits, bit| bits | bit) != bits(row, 2)? {
        return Err(damaged("it has other tasks than it says".into()).into());
    }
    Ok(heads)
}

/// The tasks that are left in a pack, from a row of [`BOTH`].
fn heads(row: &Row<'_>) -> Rows<Vec<LiveHead>> {
    let (first, pack) = Pack::read(row)?;
    let mut heads = all_heads(row)?;
    heads.retain(|head| pack.has(head.number - first));
    Ok(heads)
}

/// Tasks in packs, in the order of submission: at least `most` after one, if there are.
pub fn tasks(connection: &Connection, beyond: u64, most: usize) -> Rows<Vec<LiveHead>> {
    let sql = format!("{BOTH} WHERE pack.first > ?1 ORDER BY pack.first");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([beyond.saturating_sub(MAX_TASKS)])?;
    let mut tasks = Vec::new();
    while tasks.len() < most
        && let Some(row) = rows.next()?
    {
        tasks.extend(heads(row)?.into_iter().filter(|head| head.number > beyond));
    }
    Ok(tasks)
}

/// Looks up tasks in packs, one after the other, within a transaction. It keeps the last pack,
/// so that neighbours cost one look.
pub struct PackReader<'c> {
    connection: &'c Connection,
    last: Vec<LiveHead>,
}

impl<'c> PackReader<'c> {
    pub fn new(connection: &'c Connection) -> Self {
        Self { connection, last: Vec::new() }
    }

    /// The task of this number, if it waits as it was submitted.
    pub fn head(&mut self, task: u64) -> Rows<Option<LiveHead>> {
        let of = |heads: &[LiveHead]| heads.iter().find(|head| head.number == task).cloned();
        if let Some(head) = of(&self.last) {
            return Ok(Some(head));
        }
        let sql = format!(
            "{BOTH} WHERE pack.first <= ?1 AND pack.first > ?2 ORDER BY pack.first DESC LIMIT 1"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query((task, task.saturating_sub(MAX_TASKS)))?;
        self.last = rows.next()?.map_or(Ok(Vec::new()), heads)?;
        Ok(of(&self.last))
    }
}

/// Numbers of tasks in the next packs of those `left`, as far as they are between the two that
/// are asked for; and the last of the packs, if there may be more. One that is damaged may have
/// any.
pub fn numbers(
    connection: &Connection,
    left: (u64, u64),
    (above, below): (u64, u64),
    newest_first: bool,
) -> Rows<(Vec<u64>, Option<u64>)> {
    /// Packs that are looked at together.
    const TOGETHER: usize = 16;
    let order = if newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT pack.sum, pack.first, pack.tasks, unpacked.* FROM pack LEFT JOIN unpacked
         ON unpacked.first = pack.first WHERE pack.first > ?1 AND pack.first < ?2
         ORDER BY pack.first {order} LIMIT {TOGETHER}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(left)?;
    let (mut numbers, mut packs, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let first: u64 = row.get(1)?;
        let read = check_head(row, 0, Table::Pack)
            .and_then(|()| Ok(Pack { tasks: bits(row, 2)?, unpacked: unpacked(row, 3)? }));
        let pack = match read {
            Err(error) if Damage::of_row(&error).is_some() => {
                let covered = (next_pack(connection, first)? - first).min(MAX_TASKS);
                Pack { tasks: u64::MAX >> (MAX_TASKS - covered), unpacked: 0 }
            }
            pack => pack?,
        };
        let has = |bit: &u64| pack.has(*bit) && (above + 1..below).contains(&(first + bit));
        let of_pack = (0..MAX_TASKS).filter(has).map(|bit| first + bit);
        if newest_first {
            numbers.extend(of_pack.rev());
        } else {
            numbers.extend(of_pack);
        }
        packs += 1;
        last = Some(first);
    }
    Ok((numbers, last.filter(|_| packs == TOGETHER)))
}

/// The number of the pack after this one; `u64::MAX` if there is none.
fn next_pack(connection: &Connection, first: u64) -> Rows<u64> {
    let sql = "SELECT min(first) FROM pack WHERE first > ?1";
    let next: Option<u64> = connection.query_row(sql, [first], |row| row.get(0))?;
    Ok(next.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;

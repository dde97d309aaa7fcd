//! The numbers of the tasks that have not ended, in the order of a page.
//!
//! Owns how the two places in which they are become one: rows of their own, and packs.

use std::collections::VecDeque;

use rusqlite::Connection;

use crate::store::sqlite;

type Rows<T> = Result<T, rusqlite::Error>;

/// Rows that are looked at together.
const TOGETHER: usize = 256;

/// Gives out one number after the other, within a transaction of the caller's.
pub struct LiveNumbers<'c> {
    connection: &'c Connection,
    newest_first: bool,
    between: (u64, u64),
    rows: Numbers,
    packs: Numbers,
}

/// Numbers from one of the places.
struct Numbers {
    read: VecDeque<u64>,
    /// Between which keys there may be more; `None` if there are none.
    left: Option<(u64, u64)>,
}

impl<'c> LiveNumbers<'c> {
    /// Those between two numbers.
    pub fn new(connection: &'c Connection, between: (u64, u64), newest_first: bool) -> Self {
        let (above, below) = between;
        let numbers = |left| Numbers { read: VecDeque::new(), left: Some(left) };
        let packs = numbers((above.saturating_sub(sqlite::MAX_PACKED), below));
        Self { connection, newest_first, between, rows: numbers(between), packs }
    }

    /// The next one.
    pub fn next(&mut self) -> Rows<Option<u64>> {
        let Self { connection, newest_first, between, .. } = *self;
        self.rows.fill(newest_first, |left| rows(connection, left, newest_first))?;
        self.packs.fill(newest_first, |left| {
            sqlite::packed_numbers(connection, left, between, newest_first)
        })?;
        let (row, packed) = (self.rows.read.front(), self.packs.read.front());
        let row_is_next = match (row, packed) {
            // It is in both where a pack is damaged.
            (Some(row), Some(packed)) if row == packed => {
                self.packs.read.pop_front();
                true
            }
            (Some(row), Some(packed)) => (row < packed) != newest_first,
            (row, _) => row.is_some(),
        };
        let from = if row_is_next { &mut self.rows } else { &mut self.packs };
        Ok(from.read.pop_front())
    }
}

impl Numbers {
    /// Sees to it that the next number is there, if there is one.
    fn fill(
        &mut self,
        newest_first: bool,
        read: impl Fn((u64, u64)) -> Rows<(Vec<u64>, Option<u64>)>,
    ) -> Rows<()> {
        while self.read.is_empty()
            && let Some((above, below)) = self.left
        {
            let (numbers, last) = read((above, below))?;
            self.left = last.map(|last| if newest_first { (above, last) } else { (last, below) });
            self.read.extend(numbers);
        }
        Ok(())
    }
}

/// Numbers of rows in `live`, and the last of them if there may be more.
fn rows(
    connection: &Connection,
    (above, below): (u64, u64),
    newest_first: bool,
) -> Rows<(Vec<u64>, Option<u64>)> {
    let order = if newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT id FROM live WHERE id > ?1 AND id < ?2 ORDER BY id {order} LIMIT {TOGETHER}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let numbers = statement.query_map((above, below), |row| row.get(0))?;
    let numbers: Vec<u64> = numbers.collect::<Rows<_>>()?;
    let last = numbers.last().copied().filter(|_| numbers.len() == TOGETHER);
    Ok((numbers, last))
}

//! What a transaction has written, to be written again.
//!
//! When a disk refuses a commit for want of room, SQLite gives the whole transaction up,
//! and what the engine has decided is ahead of the disk. So every change of a row is noted
//! as it is made, and can be made once more in a new transaction, until there is room.
//!
//! The notes are one buffer, which is used again: of each change the number of its
//! statement and the values bound to it. Only they are in it, in the order in which they
//! were made, so it must see every statement that writes.

use rusqlite::{
    Connection, Statement,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    schema::Table,
    sum::{Column as _, sum_of},
};

type Rows<T> = Result<T, rusqlite::Error>;

/// Bytes of the buffer that are kept from one transaction to the next.
const KEPT: usize = 4 << 20;

/// The changes of one transaction.
#[derive(Debug, Default)]
pub struct Redo {
    /// The statements that were prepared, by their numbers.
    statements: Vec<String>,
    noted: Vec<u8>,
}

/// A statement that writes.
#[derive(Debug)]
pub struct Write<'c> {
    statement: Statement<'c>,
    number: usize,
}

impl Redo {
    /// Prepares a statement whose changes are to be noted.
    pub fn prepare<'c>(&mut self, connection: &'c Connection, sql: &str) -> Rows<Write<'c>> {
        let statement = connection.prepare(sql)?;
        self.statements.push(sql.to_owned());
        Ok(Write { statement, number: self.statements.len() - 1 })
    }

    /// Makes a change.
    pub fn execute(&mut self, write: &mut Write<'_>, values: &[ValueRef<'_>]) -> Rows<()> {
        self.run(write, None, values)
    }

    /// Writes a row with its checksum, by a statement of [`Table::insert`].
    pub fn write(
        &mut self,
        write: &mut Write<'_>,
        table: Table,
        values: &[ValueRef<'_>],
    ) -> Rows<()> {
        debug_assert_eq!(values.len(), table.columns(), "{table:?}");
        self.run(write, Some(sum_of(table, values).column()), values)
    }

    fn run(
        &mut self,
        write: &mut Write<'_>,
        sum: Option<ValueRef<'_>>,
        values: &[ValueRef<'_>],
    ) -> Rows<()> {
        self.begin_note(write.number, values.len() + usize::from(sum.is_some()));
        for (at, value) in sum.iter().chain(values).enumerate() {
            self.note(*value);
            write.statement.raw_bind_parameter(at + 1, ToSqlOutput::Borrowed(*value))?;
        }
        write.statement.raw_execute().map(drop)
    }

    /// Forgets what was noted: another transaction begins.
    pub fn clear(&mut self) {
        self.noted.clear();
        self.noted.shrink_to(KEPT);
    }

    /// Makes all changes that were noted once more.
    pub fn repeat(&self, connection: &Connection) -> Rows<()> {
        let mut prepared = Vec::new();
        prepared.resize_with(self.statements.len(), || None);
        let mut rest = self.noted.as_slice();
        while let [number, count, more @ ..] = rest {
            rest = more;
            let number = usize::from(*number);
            let statement = match &mut prepared[number] {
                Some(statement) => statement,
                missing => missing.insert(connection.prepare(&self.statements[number])?),
            };
            for at in 1..=usize::from(*count) {
                let value = take(&mut rest);
                statement.raw_bind_parameter(at, ToSqlOutput::Borrowed(value))?;
            }
            statement.raw_execute()?;
        }
        Ok(())
    }

    fn begin_note(&mut self, number: usize, values: usize) {
        let byte = |number| u8::try_from(number).unwrap_or(u8::MAX);
        self.noted.extend([byte(number), byte(values)]);
    }

    fn note(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.noted.push(0),
            ValueRef::Integer(number) => self.note_number(1, number.to_le_bytes()),
            ValueRef::Real(number) => self.note_number(2, number.to_le_bytes()),
            ValueRef::Text(bytes) => self.note_bytes(3, bytes),
            ValueRef::Blob(bytes) => self.note_bytes(4, bytes),
        }
    }

    fn note_number(&mut self, tag: u8, number: [u8; 8]) {
        self.noted.push(tag);
        self.noted.extend(number);
    }

    fn note_bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.note_number(tag, (bytes.len() as u64).to_le_bytes());
        self.noted.extend(bytes);
    }
}

/// Reads a value that [`Redo::note`] wrote.
fn take<'n>(noted: &mut &'n [u8]) -> ValueRef<'n> {
    let tag = take_bytes(noted, 1)[0];
    if tag == 0 {
        return ValueRef::Null;
    }
    let mut number = [0; 8];
    number.copy_from_slice(take_bytes(noted, 8));
    let length = usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX);
    match tag {
        1 => ValueRef::Integer(i64::from_le_bytes(number)),
        2 => ValueRef::Real(f64::from_le_bytes(number)),
        3 => ValueRef::Text(take_bytes(noted, length)),
        _ => ValueRef::Blob(take_bytes(noted, length)),
    }
}

fn take_bytes<'n>(noted: &mut &'n [u8], count: usize) -> &'n [u8] {
    let (taken, rest) = noted.split_at(count);
    *noted = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::{super::sum::values, *};

    fn dump(connection: &Connection) -> Vec<String> {
        let mut select = connection.prepare("SELECT quote(a), quote(b) FROM t ORDER BY a").unwrap();
        let rows = select.query_map([], |row| {
            Ok(format!("{} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn what_was_written_and_given_up_is_written_again_in_its_order() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b)").unwrap();
        let mut redo = Redo::default();
        let mut put =
            redo.prepare(&connection, "INSERT OR REPLACE INTO t VALUES (?1, ?2)").unwrap();
        let mut delete = redo.prepare(&connection, "DELETE FROM t WHERE a = ?1").unwrap();
        let large = vec![7; 100_000];
        connection.execute_batch("BEGIN").unwrap();
        let change = |redo: &mut Redo, put: &mut Write<'_>, delete: &mut Write<'_>| {
            redo.execute(put, &values![1, "one"]).unwrap();
            redo.execute(put, &values![2, large.as_slice()]).unwrap();
            redo.execute(put, &[ValueRef::Integer(-3), ValueRef::Real(-0.5)]).unwrap();
            redo.execute(delete, &values![1]).unwrap();
            redo.execute(put, &values![4, None::<&str>]).unwrap();
            redo.execute(put, &values![2, ""]).unwrap();
        };
        change(&mut redo, &mut put, &mut delete);
        let written = dump(&connection);
        assert_eq!(written, ["-3 -0.5", "2 ''", "4 NULL"]);
        connection.execute_batch("ROLLBACK").unwrap();
        assert!(dump(&connection).is_empty());
        redo.repeat(&connection).unwrap();
        assert_eq!(dump(&connection), written);
        redo.repeat(&connection).unwrap();
        assert_eq!(dump(&connection), written, "as often as need be");

        connection.execute_batch("DELETE FROM t").unwrap();
        redo.clear();
        redo.repeat(&connection).unwrap();
        assert!(dump(&connection).is_empty(), "of the last transaction alone");
    }
}

//! The checksum of a row: computed when a row is written, and compared whenever one
//! is read, so that what a disk has changed is told and never taken for the truth.
//!
//! It covers the table, the key and every column, and so finds a row that lies under
//! another key, too. It is CRC-32C (Castagnoli), which finds every change of up to 32
//! bits in a row, and all but one in four thousand million others. A table whose last
//! column may be large has two of them in its one number: the upper half is that of
//! the other columns, the lower half goes on from there over the large one.

use std::fmt;

use rusqlite::{
    Row, Statement,
    types::{ToSqlOutput, Type, ValueRef},
};

use super::{fault, schema::Table};
use crate::store::journal::{Damage, Fault};

type Rows<T> = Result<T, rusqlite::Error>;

impl Damage {
    /// In the row of this key.
    pub(in crate::store) fn new(
        table: Table,
        row: impl fmt::Display,
        what: impl Into<String>,
    ) -> Self {
        Self { place: format!("row {row} of table {}", table.name()), what: what.into() }
    }

    /// In the record of a task.
    pub(in crate::store) fn of_record(number: u64, what: impl Into<String>) -> Self {
        Self::new(Table::Task, number, what)
    }

    /// The checksum of this row is another.
    fn of_sum(row: &Row<'_>, at: usize, table: Table) -> Self {
        let key = (at + 1..=at + table.key_columns()).map(|column| match row.get_ref(column) {
            Ok(ValueRef::Integer(number)) => number.to_string(),
            Ok(ValueRef::Text(text)) => format!("{:?}", String::from_utf8_lossy(text)),
            _ => "?".to_owned(),
        });
        let key: Vec<String> = key.collect();
        Self::new(table, key.join(", "), "its checksum does not match")
    }

    /// The damage of one row that an error tells of, if it does.
    pub fn of_row(error: &rusqlite::Error) -> Option<Self> {
        match error {
            rusqlite::Error::FromSqlConversionFailure(_, _, cause) => {
                cause.downcast_ref::<Self>().cloned()
            }
            _ => None,
        }
    }

    /// The damage that an error tells of, if it does: of one row, or of the structure
    /// in which the database holds them all, or of a file that cannot be read.
    pub fn in_error(error: &rusqlite::Error) -> Option<Self> {
        Self::of_row(error).or_else(|| {
            is_of_pages(error)
                .then(|| Self { place: "the database".into(), what: error.to_string() })
        })
    }

    /// An error that was met while this row was looked up: damage of that row, if the pages
    /// that lead to it cannot be read, or are torn.
    pub fn met_at(table: Table, row: impl fmt::Display, error: rusqlite::Error) -> rusqlite::Error {
        if is_of_pages(&error) {
            return Self::new(table, row, format!("it cannot be read: {error}")).into();
        }
        error
    }
}

/// Whether the disk refuses to give pages, or they are not as SQLite has written them.
pub fn is_of_pages(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    fault::of(error) == Fault::Read
        || matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// So that it passes through what reads rows.
impl From<Damage> for rusqlite::Error {
    fn from(damage: Damage) -> Self {
        Self::FromSqlConversionFailure(0, Type::Null, Box::new(damage))
    }
}

/// What a column can hold.
pub trait Column<'a> {
    fn column(self) -> ValueRef<'a>;
}

impl Column<'_> for i64 {
    fn column(self) -> ValueRef<'static> {
        ValueRef::Integer(self)
    }
}

/// Numbers of tasks and events: none comes near the sign.
impl Column<'_> for u64 {
    fn column(self) -> ValueRef<'static> {
        ValueRef::Integer(self.cast_signed())
    }
}

macro_rules! small_numbers {
    ($($number:ty),*) => {$(
        impl Column<'_> for $number {
            fn column(self) -> ValueRef<'static> {
                ValueRef::Integer(self.into())
            }
        }
    )*};
}

small_numbers!(bool, i32, u32);

impl<'a> Column<'a> for &'a str {
    fn column(self) -> ValueRef<'a> {
        ValueRef::Text(self.as_bytes())
    }
}

impl<'a> Column<'a> for &'a [u8] {
    fn column(self) -> ValueRef<'a> {
        ValueRef::Blob(self)
    }
}

impl<'a, T: Column<'a>> Column<'a> for Option<T> {
    fn column(self) -> ValueRef<'a> {
        self.map_or(ValueRef::Null, Column::column)
    }
}

/// The values of a row, in the order of its columns, without the checksum.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        [$($crate::store::sqlite::sum::Column::column($value)),*]
    };
}
pub(in crate::store) use values;

/// Writes a row with its checksum, by a statement of [`Table::insert`].
pub fn write(statement: &mut Statement<'_>, table: Table, values: &[ValueRef<'_>]) -> Rows<()> {
    debug_assert_eq!(values.len(), table.columns(), "{table:?}");
    statement.raw_bind_parameter(1, sum_of(table, values))?;
    for (at, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(at + 2, ToSqlOutput::Borrowed(*value))?;
    }
    statement.raw_execute().map(drop)
}

/// Compares the checksum of a row, whose columns begin at `at`.
pub fn check(row: &Row<'_>, at: usize, table: Table) -> Rows<()> {
    let mut head = Crc::new(table);
    let columns = table.columns();
    let of_head = columns - usize::from(table.has_body());
    for column in at + 1..=at + of_head {
        head.add(row.get_ref(column)?);
    }
    let head = head.finish();
    let sum = if table.has_body() {
        both(head, body(head, row.get_ref(at + columns)?))
    } else {
        one(head)
    };
    if row.get_ref(at)? == ValueRef::Integer(sum) {
        Ok(())
    } else {
        Err(Damage::of_sum(row, at, table).into())
    }
}

/// The same, of a row that was read without its last, large column.
pub fn check_head(row: &Row<'_>, at: usize, table: Table) -> Rows<()> {
    debug_assert!(table.has_body(), "{table:?}");
    let mut head = Crc::new(table);
    for column in at + 1..at + table.columns() {
        head.add(row.get_ref(column)?);
    }
    let head = head.finish();
    match row.get_ref(at)? {
        ValueRef::Integer(sum) if sum >> 32 == one(head) => Ok(()),
        _ => Err(Damage::of_sum(row, at, table).into()),
    }
}

pub(super) fn sum_of(table: Table, values: &[ValueRef<'_>]) -> i64 {
    let (of_head, large) = match values.split_last() {
        Some((large, rest)) if table.has_body() => (rest, Some(*large)),
        _ => (values, None),
    };
    let mut head = Crc::new(table);
    for value in of_head {
        head.add(*value);
    }
    let head = head.finish();
    large.map_or_else(|| one(head), |large| both(head, body(head, large)))
}

/// Small as a number, so that it takes four bytes of the row.
fn one(head: u32) -> i64 {
    head.cast_signed().into()
}

fn both(head: u32, body: u32) -> i64 {
    (one(head) << 32) | i64::from(body)
}

fn body(head: u32, value: ValueRef<'_>) -> u32 {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            let length = crc32c::crc32c_append(head, &(bytes.len() as u64).to_le_bytes());
            crc32c::crc32c_append(length, bytes)
        }
        _ => head,
    }
}

/// Gathers what is short, so that a row is one run over a few dozen bytes.
struct Crc {
    so_far: u32,
    gathered: [u8; 256],
    used: usize,
}

impl Crc {
    fn new(table: Table) -> Self {
        let mut gathered = [0; 256];
        gathered[0] = table.mark();
        Self { so_far: 0, gathered, used: 1 }
    }

    /// Adds a column: what it is, and its bytes; before those of which there may be
    /// any number, how many.
    fn add(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.put(&[0]),
            ValueRef::Integer(number) => self.put_number(1, number.cast_unsigned()),
            ValueRef::Real(number) => self.put_number(2, number.to_bits()),
            ValueRef::Text(bytes) => self.put_bytes(3, bytes),
            ValueRef::Blob(bytes) => self.put_bytes(4, bytes),
        }
    }

    fn put_number(&mut self, what: u8, number: u64) {
        let mut bytes = [what; 9];
        bytes[1..].copy_from_slice(&number.to_le_bytes());
        self.put(&bytes);
    }

    fn put_bytes(&mut self, what: u8, bytes: &[u8]) {
        self.put_number(what, bytes.len() as u64);
        self.put(bytes);
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.used + bytes.len() > self.gathered.len() {
            self.so_far = crc32c::crc32c_append(self.so_far, &self.gathered[..self.used]);
            self.used = 0;
            if bytes.len() > self.gathered.len() {
                self.so_far = crc32c::crc32c_append(self.so_far, bytes);
                return;
            }
        }
        self.gathered[self.used..self.used + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    fn finish(self) -> u32 {
        crc32c::crc32c_append(self.so_far, &self.gathered[..self.used])
    }
}

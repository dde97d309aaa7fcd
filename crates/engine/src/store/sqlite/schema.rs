//! The tables, as they are on disk: the schema, and what every table has in common.
//!
//! The first column of every table is `sum`, a checksum of its other columns
//! ([`super::sum`]). A change here is a change of the format: it needs another
//! [`super::FORMAT`], a migration, and a stored file of the format before
//! (`tests/it/old_formats.rs`). `tests` holds the schema, the checksums and the records to
//! what is in the stores of this format.

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    Meta,
    Incarnation,
    Task,
    Live,
    Slot,
    Finish,
    Request,
    Attempt,
    Output,
    Event,
    Ended,
    Tally,
    Queue,
    Pack,
    Unpacked,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Meta,
        Self::Incarnation,
        Self::Task,
        Self::Live,
        Self::Slot,
        Self::Finish,
        Self::Request,
        Self::Attempt,
        Self::Output,
        Self::Event,
        Self::Ended,
        Self::Tally,
        Self::Queue,
        Self::Pack,
        Self::Unpacked,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Incarnation => "incarnation",
            Self::Task => "task",
            Self::Live => "live",
            Self::Slot => "slot",
            Self::Finish => "finish",
            Self::Request => "request",
            Self::Attempt => "attempt",
            Self::Output => "output",
            Self::Event => "event",
            Self::Ended => "ended",
            Self::Tally => "tally",
            Self::Queue => "queue",
            Self::Pack => "pack",
            Self::Unpacked => "unpacked",
        }
    }

    /// Columns, without the checksum.
    pub const fn columns(self) -> usize {
        match self {
            Self::Meta | Self::Unpacked => 2,
            Self::Request | Self::Queue | Self::Output | Self::Pack => 3,
            Self::Incarnation | Self::Slot | Self::Event | Self::Ended | Self::Tally => 4,
            Self::Attempt => 7,
            Self::Task => 8,
            Self::Finish => 15,
            Self::Live => 17,
        }
    }

    /// Columns of the key, the first ones after the checksum.
    pub const fn key_columns(self) -> usize {
        match self {
            Self::Attempt | Self::Output | Self::Tally => 2,
            _ => 1,
        }
    }

    /// Whether the last column may be large: it then has a half of the checksum to
    /// itself, so that the others can be checked without reading it.
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Task | Self::Finish | Self::Output | Self::Event | Self::Pack)
    }

    /// What tells its rows from those of other tables, in their checksums. A number
    /// never changes, and is never given to another table.
    pub(super) const fn mark(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Incarnation => 2,
            Self::Task => 3,
            Self::Live => 4,
            Self::Slot => 5,
            Self::Finish => 6,
            Self::Request => 7,
            Self::Attempt => 8,
            Self::Output => 9,
            Self::Event => 10,
            Self::Ended => 11,
            Self::Tally => 12,
            Self::Queue => 13,
            Self::Pack => 14,
            Self::Unpacked => 15,
        }
    }

    /// A statement that inserts a row, to be written with [`super::sum::write`].
    pub fn insert(self, how: &str) -> String {
        let columns: Vec<String> = (1..=self.columns() + 1).map(|at| format!("?{at}")).collect();
        format!("{how} INTO {} VALUES ({})", self.name(), columns.join(", "))
    }
}

/// The tables of format 3, for a migration to it.
pub(super) const FORMAT_3: &str = include_str!("format-3.sql");

/// Those that a migration from format 3 makes.
pub(super) const ADDED_BY_4: &str = include_str!("format-4.sql");

/// The tables of this format.
pub const SCHEMA: &str = concat!(include_str!("format-3.sql"), include_str!("format-4.sql"));

//! What SQLite's errors mean for the store: one place decides what may pass by itself.

use rusqlite::{Error, ErrorCode, ffi};

/// What kept SQLite from doing something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody else holds a lock: it can be waited out.
    Busy,
    /// The disk is full: it can be waited out.
    Full,
    /// A write, or a change of a file's length, was refused; nothing that was synced has
    /// suffered. It may pass.
    Write,
    /// A sync has failed. The kernel may take what it could not write for written, so no
    /// later sync proves anything: only a start does, which writes everything anew.
    Sync,
    /// The disk does not give what was written. SQLite gives the transaction up for it.
    Read,
    /// Anything else: damage, a misuse.
    Other,
}

impl Fault {
    /// Whether the same may be tried again, until it is done.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Busy | Self::Full | Self::Write)
    }

    /// Of this error.
    pub fn of(error: &Error) -> Self {
        let Some(sqlite) = error.sqlite_error() else { return Self::Other };
        match (sqlite.code, sqlite.extended_code) {
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Self::Busy,
            (ErrorCode::DiskFull, _) => Self::Full,
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => Self::Sync,
            (
                _,
                ffi::SQLITE_IOERR_READ
                | ffi::SQLITE_IOERR_SHORT_READ
                | ffi::SQLITE_IOERR_DATA
                | ffi::SQLITE_IOERR_CORRUPTFS,
            ) => Self::Read,
            (
                _,
                ffi::SQLITE_IOERR_WRITE
                | ffi::SQLITE_IOERR_TRUNCATE
                | ffi::SQLITE_IOERR_SHMSIZE
                | ffi::SQLITE_IOERR_SHMOPEN
                | ffi::SQLITE_IOERR_SHMMAP,
            ) => Self::Write,
            _ => Self::Other,
        }
    }
}

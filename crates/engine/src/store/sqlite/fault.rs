//! What SQLite's errors mean for the store: one place decides what may pass by itself.

use std::sync::Arc;

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::journal::{Damage, Fault, JournalError};

impl From<Error> for JournalError {
    fn from(error: Error) -> Self {
        match Damage::in_error(&error) {
            Some(damage) => Self::Damaged(damage),
            None => Self::Failed { fault: of(&error), cause: Arc::from(error.to_string()) },
        }
    }
}

/// What this error means.
pub fn of(error: &Error) -> Fault {
    let Some(sqlite) = error.sqlite_error() else { return Fault::Other };
    match (sqlite.code, sqlite.extended_code) {
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Fault::Busy,
        (ErrorCode::DiskFull, _) => Fault::Full,
        (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => Fault::Sync,
        (
            _,
            ffi::SQLITE_IOERR_READ
            | ffi::SQLITE_IOERR_SHORT_READ
            | ffi::SQLITE_IOERR_DATA
            | ffi::SQLITE_IOERR_CORRUPTFS,
        ) => Fault::Read,
        (
            _,
            ffi::SQLITE_IOERR_WRITE
            | ffi::SQLITE_IOERR_TRUNCATE
            | ffi::SQLITE_IOERR_SHMSIZE
            | ffi::SQLITE_IOERR_SHMOPEN
            | ffi::SQLITE_IOERR_SHMMAP,
        ) => Fault::Write,
        _ => Fault::Other,
    }
}

//! The write-ahead log, as the writing connection keeps it.
//!
//! Owns how it is measured, moved into the database, and cut back after a commit that was
//! refused. Must not know when that is due.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Row, Statement, ffi};

use super::{
    create::beside,
    opening,
    wal::{FRAME_HEADER_BYTES, HEADER_BYTES},
};
use crate::store::journal::{Fault, JournalError, Moved};

/// Pages of the log (4 KiB each) from which on they are moved into the database.
pub const CHECKPOINT_PAGES: u64 = 4_000;

/// The log of a database; of one in memory, which has none, always empty.
#[derive(Debug)]
pub struct Log<'c> {
    file: Option<PathBuf>,
    page_size: u64,
    stand: Statement<'c>,
    checkpoint: Statement<'c>,
    restart: Statement<'c>,
}

impl<'c> Log<'c> {
    /// Of the database at this path, or of one in memory.
    pub fn new(connection: &'c Connection, path: Option<&Path>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            file: path.map(|path| beside(path, "-wal")),
            page_size: connection.pragma_query_value(None, "page_size", |row| row.get(0))?,
            stand: connection.prepare("PRAGMA wal_checkpoint(NOOP)")?,
            checkpoint: connection.prepare("PRAGMA wal_checkpoint(PASSIVE)")?,
            restart: connection.prepare("PRAGMA wal_checkpoint(RESTART)")?,
        })
    }

    /// How long it is.
    ///
    /// # Errors
    /// Also if somebody's lock keeps it from being known.
    pub fn stand(&mut self) -> Result<Moved, rusqlite::Error> {
        match self.file {
            None => Ok(Moved::default()),
            Some(_) => self.stand.query_row([], moved),
        }
    }

    /// Moves what readers allow of it into the database, and syncs that, without waiting
    /// for anybody.
    pub fn move_into_database(&mut self) -> Result<Moved, rusqlite::Error> {
        match self.file {
            None => Ok(Moved::default()),
            Some(_) => self.checkpoint.query_row([], moved),
        }
    }

    /// The same, and sees to it that the log begins anew with the next commit: readers that
    /// follow each other without a gap would else keep it from that for ever. Waits for them
    /// for as long as for any lock.
    pub fn move_and_begin_anew(&mut self) -> Result<Moved, rusqlite::Error> {
        match self.file {
            None => Ok(Moved::default()),
            Some(_) => self.restart.query_row([], moved),
        }
    }

    /// Bytes of so many pages of the log.
    pub fn bytes(&self, pages: u64) -> u64 {
        HEADER_BYTES + pages * (FRAME_HEADER_BYTES + self.page_size)
    }

    /// Cuts off what is behind the last commit. A commit that was refused has left its
    /// pages there, perhaps all of them: they would be committed by the next start, though
    /// everybody was told that nothing of it had happened.
    pub fn cut_uncommitted(&mut self) -> Result<(), JournalError> {
        let end = self.committed_end()?;
        match &self.file {
            None => Ok(()),
            Some(file) => opening::cut(file, end).map_err(|error| JournalError::Failed {
                fault: Fault::Other,
                cause: error.to_string().into(),
            }),
        }
    }

    /// The same for a commit that is tried again, as well as that is possible: so that a
    /// shorter one leaves nothing of it behind its own end.
    /// Tells whether it was done.
    pub fn forget_uncommitted(&mut self) -> bool {
        let Ok(end) = self.committed_end() else { return false };
        let Some(file) = &self.file else { return true };
        File::options().write(true).open(file).is_ok_and(|file| file.set_len(end).is_ok())
    }

    /// Looks for it at another place; returns the place so far.
    #[cfg(test)]
    pub fn set_file(&mut self, file: PathBuf) -> PathBuf {
        self.file.replace(file).unwrap_or_default()
    }

    fn committed_end(&mut self) -> Result<u64, rusqlite::Error> {
        let pages = self.stand()?.pages;
        Ok(if pages == 0 { 0 } else { self.bytes(pages) })
    }
}

/// Moves the log into the database beside the writing connection.
#[derive(Debug)]
pub struct LogConnection(Connection);

impl LogConnection {
    /// With a connection of its own.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Moves what readers allow of it, without waiting for anybody. The database is synced if
    /// that is all of it; otherwise by whoever moves the rest, before the log begins anew.
    ///
    /// # Errors
    /// Also if it is being moved by somebody else.
    pub fn move_into_database(&self) -> Result<Moved, JournalError> {
        Ok(self.0.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], moved)?)
    }
}

/// Busy, pages of the log, and of those in the database: -1 where there is no log, and where
/// somebody's lock hides it, which must not be taken for an empty one.
fn moved(row: &Row<'_>) -> Result<Moved, rusqlite::Error> {
    if row.get(0)? {
        return Err(busy());
    }
    let pages =
        |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.max(0).cast_unsigned());
    Ok(Moved { pages: pages(1)?, moved: pages(2)? })
}

/// What a checkpoint that somebody's lock or reading keeps from being done should have said.
pub fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)
}

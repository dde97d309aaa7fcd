//! A new database: there whole, or not at all.
//!
//! It is built under another name, synced, and renamed. So a power cut in the first start
//! of all leaves nothing that the next one would have to understand, and a database that
//! is empty or gone beside a log that is not was never made by this code.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{APPLICATION_ID, DatabaseError, FORMAT, put_meta, schema};
use crate::store::identity::Identity;

/// The path with something behind its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the database at `path`, where there is none with anything in it. What an earlier
/// try has left is removed.
///
/// # Errors
/// Those of the disk. There is no database then, as before.
pub fn create(path: &Path) -> Result<(), DatabaseError> {
    let new = beside(path, ".new");
    for file in ["", "-journal", "-wal", "-shm"].map(|suffix| beside(&new, suffix)) {
        remove(&file)?;
    }
    build(&new)?;
    File::open(&new)?.sync_all()?;
    // They would be taken for the new one's.
    for file in ["-journal", "-wal", "-shm"].map(|suffix| beside(path, suffix)) {
        remove(&file)?;
    }
    sync_directory_of(path)?;
    fs::rename(&new, path)?;
    sync_directory_of(path)?;
    Ok(())
}

fn build(path: &Path) -> Result<(), DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // It is synced as a whole when it is there.
    connection.pragma_update(None, "journal_mode", "MEMORY")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    allow_giving_back(&connection)?;
    fill(&connection)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Lets a database without tables give space back; one with tables would have to be
/// written anew for it.
pub fn allow_giving_back(connection: &Connection) -> Result<(), DatabaseError> {
    Ok(connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?)
}

/// Makes the schema in an empty database.
pub fn fill(connection: &Connection) -> Result<(), DatabaseError> {
    let key = Identity::random().key();
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(schema::SCHEMA)?;
    put_meta(connection, "key", &key)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes names in a directory durable: those of new, removed and renamed files.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

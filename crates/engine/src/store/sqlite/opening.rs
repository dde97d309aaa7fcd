//! Before the first command: is what the process before has left whole, and is it
//! really on the disk?
//!
//! Owns the refusal of a damaged log, the way to go on without it, and the proof of what
//! is on disk. Must not know what the rows mean.
//!
//! The proof: after a sync has failed, the kernel may take for written what it could not
//! write. It then reads well, is committed by SQLite's recovery, and no later sync writes
//! it: so a power cut could take what was acknowledged long after. Nothing tells whether
//! that has happened before this start. So what is committed in the log is written over
//! itself, which makes the kernel write it anew, and synced; then moved into the database,
//! which is synced; and the log begins from nothing. Only then is anything acknowledged.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;

use crate::store::journal::{Fault, JournalError};

use super::{
    DatabaseError,
    create::{self, beside, sync_directory_of},
    integrity::{self, Findings},
    log::busy,
    wal::{self, Scan, Trust},
};

/// How long a start waits for a lock that somebody outside holds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Problems of a store that is gone on with, told one by one.
const PROBLEMS_LOGGED: usize = 20;

/// A log that has lost commits that were durable.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "its write-ahead log {} is damaged at byte {}, and {} behind that place would be lost; \
     look at it with `taskyard store verify`, restore a copy, or start once with \
     --accept-loss, which keeps the damaged files",
    .log.display(), .scan.end(), commits(.scan)
)]
pub struct LogDamage {
    /// Which file.
    pub log: PathBuf,
    /// What is in it.
    pub scan: Scan,
}

fn commits(scan: &Scan) -> String {
    match (scan.commits_behind, scan.bad_header || scan.is_zero) {
        (0, true) => "all".into(),
        (1, _) => "1 commit".into(),
        (commits, _) => format!("{commits} commits"),
    }
}

/// What is known of how the files came to be as they are, and what is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// What has become of the machine since.
    pub trust: Trust,
    /// A store was here when the process before ended.
    pub had_store: bool,
    /// To go on without what is lost.
    pub accept_loss: bool,
}

/// Looks at the files, before SQLite does; makes a database where there is none. Answers
/// with what was lost, if it is to be accepted: both files are copied then.
///
/// # Errors
/// A log without its database, a damaged one, and a store that is gone, unless that is
/// accepted. Nothing is changed.
pub fn examine(
    database: &Path,
    circumstances: Circumstances,
) -> Result<Option<Loss>, DatabaseError> {
    let log = log_of(database);
    if length(database)? == 0 {
        if length(&log)? > 0 {
            // SQLite would take it for a leftover and delete it, with all that was
            // committed to it.
            return Err(DatabaseError::Orphaned(log));
        }
        if circumstances.had_store {
            if !circumstances.accept_loss {
                return Err(DatabaseError::Gone);
            }
            tracing::warn!("the store that was here is gone; as was asked for, a new one begins");
        }
        create::create(database)?;
        return Ok(None);
    }
    if length(&log)? == 0 {
        return Ok(None);
    }
    let scan = scan_log(database)?;
    if !scan.is_damaged(circumstances.trust) {
        if scan.commits_behind > 0 {
            tracing::warn!(
                commits = scan.commits_behind,
                "the end of the write-ahead log was not on the disk when the machine stopped: \
                 what was committed last is lost"
            );
        }
        return Ok(None);
    }
    if !circumstances.accept_loss {
        return Err(DatabaseError::LogDamaged(Box::new(LogDamage { log, scan })));
    }
    // Now, as SQLite's locks on a file are lost when this process closes it once more.
    let kept = set_aside(database, &log)?;
    Ok(Some(Loss { log, scan, kept, is_accepted: false }))
}

/// What a damaged log has lost, and is to be gone on without.
#[derive(Debug)]
pub struct Loss {
    log: PathBuf,
    scan: Scan,
    /// Copies of the database and the log.
    kept: [PathBuf; 2],
    is_accepted: bool,
}

impl Drop for Loss {
    fn drop(&mut self) {
        for copy in self.kept.iter().filter(|_| !self.is_accepted) {
            // What it is a copy of is there.
            let _ = fs::remove_file(copy);
        }
    }
}

impl Loss {
    /// Goes on without it, if what is left has a sound structure; tells of every row in it
    /// that is damaged, or does not fit to others. SQLite reads the log to the same place as
    /// if it ended there.
    ///
    /// # Errors
    /// The structure is torn, as what was lost had been moved into the database in part.
    /// Nothing is changed.
    pub fn accept(mut self, connection: &Connection, format: i32) -> Result<(), DatabaseError> {
        let found = look_through(connection, format)?;
        if found.is_torn {
            return Err(DatabaseError::NotWhole(first_of(&found)));
        }
        self.is_accepted = true;
        let [_, kept] = &self.kept;
        tracing::warn!(
            at_byte = self.scan.end(),
            commits_lost = self.scan.commits_behind,
            commits_kept = self.scan.commits,
            damaged_files = %kept.display(),
            "the write-ahead log is damaged; as was asked for, the store goes on without what is behind that place"
        );
        for problem in found.problems.iter().take(PROBLEMS_LOGGED) {
            tracing::warn!("what is left of the store is not whole: {problem}");
        }
        if found.count() > PROBLEMS_LOGGED as u64 {
            let problems = found.count();
            tracing::warn!(problems, "`taskyard store verify` tells the others");
        }
        Ok(cut(&self.log, self.scan.committed_bytes())?)
    }
}

/// What is wrong with a database of this format; the earliest ones have no checksums.
fn look_through(connection: &Connection, format: i32) -> Result<Findings, DatabaseError> {
    let mut found = Findings::default();
    if format >= integrity::FIRST_CHECKED {
        integrity::look_through(connection, format, &mut found)?;
        return Ok(found);
    }
    let wrong: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if wrong != "ok" {
        found.is_torn = true;
        found.add(wrong);
    }
    Ok(found)
}

/// Enough to see what it is about.
fn first_of(found: &Findings) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = found.problems.iter().take(SHOWN).map(String::as_str).collect();
    let shown = shown.join("; ").replace('\n', " ");
    match found.count().saturating_sub(SHOWN as u64) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// Copies both files, durably.
fn set_aside(database: &Path, log: &Path) -> io::Result<[PathBuf; 2]> {
    let suffix = format!(".damaged-{}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let copies = [beside(database, &suffix), beside(log, &suffix)];
    for (file, copy) in [database, log].into_iter().zip(&copies) {
        fs::copy(file, copy)?;
        File::open(copy)?.sync_all()?;
    }
    sync_directory_of(database)?;
    Ok(copies)
}

/// The write-ahead log of the database at this path.
pub fn log_of(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

/// Reads the log of the database at this path, changing nothing. Not while this process
/// has the database open.
///
/// # Errors
/// Those of reading.
pub fn scan_log(database: &Path) -> io::Result<Scan> {
    wal::scan(&log_of(database), page_size(database)?)
}

/// Whether there is a log with anything in it.
pub fn has_log(database: &Path) -> io::Result<bool> {
    Ok(length(&log_of(database))? > 0)
}

/// Bytes of a file; none if it is not there. One that cannot be looked at, or a link to one
/// that is not there (its disk may not be mounted), is not one that is not there.
fn length(path: &Path) -> io::Result<u64> {
    match path.metadata() {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(0),
        Err(error) => Err(error),
    }
}

/// The page size that a database names. Before SQLite has it open: closing any file of a
/// database takes away all locks that this process has on it.
fn page_size(database: &Path) -> io::Result<u32> {
    let mut header = [0; 18];
    match File::open(database)?.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        Err(error) => return Err(error),
    }
    let size = u16::from_be_bytes([header[16], header[17]]);
    Ok(if size == 1 { 65_536 } else { size.into() })
}

/// Shortens the log, durably.
///
/// # Errors
/// Those of the disk.
pub fn cut(log: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options().write(true).open(log)?;
    file.set_len(bytes)?;
    file.sync_all()
}

/// Proves that all that is committed is on the disk, in the database alone, and begins the
/// log from nothing.
///
/// # Errors
/// It cannot be done: nothing may be acknowledged. What is committed stays.
pub fn prove(connection: &Connection, database: &Path) -> Result<(), DatabaseError> {
    let log = log_of(database);
    if length(&log)? > 0 {
        // So that nobody else writes to it meanwhile.
        wait_out(|| connection.execute_batch("BEGIN IMMEDIATE"))?;
        let written = write_anew(&log);
        connection.execute_batch("COMMIT")?;
        written.map_err(DatabaseError::Unproven)?;
    }
    let empty = || {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let is_busy: bool = connection.query_row(sql, [], |row| row.get(0))?;
        if is_busy { Err(busy()) } else { Ok(()) }
    };
    wait_out(empty)?;
    match File::open(&log).and_then(|log| log.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error)?,
        _ => {}
    }
    Ok(sync_directory_of(database)?)
}

/// Tries for [`PATIENCE`] what somebody's lock keeps from being done.
pub fn wait_out<T, E: Into<JournalError>>(
    mut step: impl FnMut() -> Result<T, E>,
) -> Result<T, DatabaseError> {
    let began = std::time::Instant::now();
    let mut told = false;
    loop {
        match step().map_err(Into::into) {
            Err(error) if error.fault() == Fault::Busy => {
                if began.elapsed() >= PATIENCE {
                    return Err(DatabaseError::Locked);
                }
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("another program has locked the database; waiting for it");
                }
            }
            Err(error) => return Err(error.into()),
            Ok(done) => return Ok(done),
        }
    }
}

/// Writes the log's whole commits over themselves, and syncs them; cuts off the rest.
fn write_anew(log: &Path) -> io::Result<()> {
    const BLOCK: usize = 1 << 20;
    let end = wal::scan(log, 0)?.committed_bytes();
    if end == 0 {
        return Ok(());
    }
    let file = File::options().read(true).write(true).open(log)?;
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < end {
        let part = usize::try_from(end - at).map_or(BLOCK, |left| left.min(BLOCK));
        file.read_exact_at(&mut block[..part], at)?;
        file.write_all_at(&block[..part], at)?;
        at += part as u64;
    }
    file.set_len(end)?;
    file.sync_all()
}

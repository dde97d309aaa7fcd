//! The data directory: one process at a time.

mod lock;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use self::lock::{Lock, Note};
use super::{identity::Identity, sqlite::Trust};
use crate::store::Durability;

/// The name of the database.
const DATABASE: &str = "taskyard.db";

/// The name of the lock of a database of that name.
const LOCK: &str = "LOCK";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be made or written to.
    #[error("the data directory {path} cannot be used: {source}")]
    Unusable {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its database is a link to a file that is not there.
    #[error(
        "{link} is a link to {target}, which is not there; mount the disk that has it, restore \
         it, or remove the link"
    )]
    Dangling {
        /// The link.
        link: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by another taskyard{holder}; stop it, or choose another directory with --data-dir"
    )]
    InUse {
        /// Which directory.
        path: PathBuf,
        /// " (process 123)", if it left its number.
        holder: String,
    },
}

/// A data directory that this process has to itself, until it is dropped or
/// the process ends in whatever way: the lock is the operating system's.
#[derive(Debug)]
pub struct Directory {
    /// Absolute, and the file itself, even if the directory has a link to it.
    database: PathBuf,
    /// Beside the database: whoever comes to it, by whatever link, meets this one.
    lock: Lock,
    /// The data directory's own, if the database is elsewhere.
    lock_of_link: Option<Lock>,
}

impl Directory {
    /// Makes the directory if need be, readable for its owner only, and locks it.
    pub fn acquire(path: &Path) -> Result<Self, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
        create(path).map_err(unusable)?;
        let directory = Self::lock(path, |lock| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock)
        })?;
        directory.locks().try_for_each(Lock::announce).map_err(unusable)?;
        Ok(directory)
    }

    /// Keeps servers out of a directory that is there, and changes nothing in it. (One
    /// without a `LOCK` was never a server's.)
    pub fn look_into(path: &Path) -> Result<Self, DirectoryError> {
        Self::lock(path, |lock| match File::open(lock) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(path),
            opened => opened,
        })
    }

    fn lock(path: &Path, open: impl Fn(&Path) -> io::Result<File>) -> Result<Self, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
        let take = |lock: &Path| Lock::take(open(lock).map_err(unusable)?, lock);
        let named = std::path::absolute(path.join(DATABASE)).map_err(unusable)?;
        let Some(database) = behind_link(&named)? else {
            let lock = take(&named.with_file_name(LOCK))?;
            return Ok(Self { database: named, lock, lock_of_link: None });
        };
        let lock = take(&lock_beside(&database))?;
        let lock_of_link = Some(take(&named.with_file_name(LOCK))?);
        Ok(Self { database, lock, lock_of_link })
    }

    fn locks(&self) -> impl Iterator<Item = &Lock> {
        [Some(&self.lock), self.lock_of_link.as_ref()].into_iter().flatten()
    }

    /// Where the database is: an absolute path, of the file itself.
    pub fn database(&self) -> PathBuf {
        self.database.clone()
    }

    /// Whether a store was here when the process before ended.
    pub fn had_store(&self) -> bool {
        self.locks().any(|lock| lock.note().store.is_some())
    }

    /// How much the log that the process before has left tells of what was lost.
    /// `durability` is taken for its own, if it has left no word of it.
    pub fn trust(&self, durability: Durability) -> Trust {
        let here = self.lock.here(durability);
        match &self.lock.note().origin {
            Some(left) if left.is_undisturbed_at(here.as_ref()) => Trust::SameBoot,
            Some(left) if left.synced => Trust::Synced,
            None if durability == Durability::Fsync => Trust::Synced,
            Some(_) | None => Trust::Unsynced,
        }
    }

    /// Nothing is left of the log of the process before; what is written from now on is
    /// written here, and so, by this store.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn begins_anew(&mut self, durability: Durability, store: &Identity) -> io::Result<()> {
        for lock in [Some(&mut self.lock), self.lock_of_link.as_mut()].into_iter().flatten() {
            let origin = lock.here(durability);
            lock.keep(Note { origin, store: Some(store.cursor_mark()) })?;
        }
        Ok(())
    }

    /// A sync has failed: what was written before may be on the disk in any state, as after
    /// a power cut, though the machine runs on. For the next start, as far as it can be told.
    pub fn note_failed_sync(&self) {
        for lock in self.locks() {
            if let Err(error) = lock.keep_failed_sync() {
                let lock = lock.path().display();
                tracing::warn!(%error, %lock, "that a sync has failed cannot be noted");
            }
        }
    }
}

/// The file that a link leads to; `None` if it is no link, or not there.
fn behind_link(named: &Path) -> Result<Option<PathBuf>, DirectoryError> {
    if !named.is_symlink() {
        return Ok(None);
    }
    match fs::canonicalize(named) {
        Ok(database) => Ok(Some(database)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DirectoryError::Dangling {
            link: named.to_owned(),
            target: fs::read_link(named).unwrap_or_default(),
        }),
        Err(source) => Err(DirectoryError::Unusable { path: named.to_owned(), source }),
    }
}

/// The lock of a database that a link leads to: of one in another data directory, that
/// directory's own.
fn lock_beside(database: &Path) -> PathBuf {
    match database.file_name() {
        Some(name) if name != DATABASE => {
            let mut lock = OsString::from(name);
            lock.push(".");
            lock.push(LOCK);
            database.with_file_name(lock)
        }
        _ => database.with_file_name(LOCK),
    }
}

/// Makes what is missing of the path, and makes that durable: a directory is
/// there after a power cut only if its entry in its parent was synced.
fn create(path: &Path) -> io::Result<()> {
    let missing = path
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.is_dir());
    let made: Vec<_> = missing.collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    for directory in made {
        match directory.parent() {
            None => {}
            Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all()?,
            Some(parent) => File::open(parent)?.sync_all()?,
        }
    }
    Ok(())
}

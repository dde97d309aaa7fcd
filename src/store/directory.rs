//! The data directory: one process at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::sqlite::Trust;
use crate::config::Durability;

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
    /// Absolute.
    database: PathBuf,
    lock: File,
    /// How the log was written that the process before has left.
    left: Option<Origin>,
}

impl Directory {
    /// Makes the directory if need be, readable for its owner only, and locks it.
    pub fn acquire(path: &Path) -> Result<Self, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
        create(path).map_err(unusable)?;
        let lock_path = path.join("LOCK");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::InUse { path: path.to_owned(), holder: holder(lock) });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let mut text = String::new();
        // What is no text tells nothing.
        let _ = lock.read_to_string(&mut text);
        let left = Origin::of(&text);
        let database = std::path::absolute(path.join("taskyard.db")).map_err(unusable)?;
        let directory = Self { database, lock, left };
        directory.write(directory.left.as_ref()).map_err(unusable)?;
        Ok(directory)
    }

    /// Where the database is: an absolute path.
    pub fn database(&self) -> PathBuf {
        self.database.clone()
    }

    /// How much the log that the process before has left tells of what was lost.
    /// `durability` is taken for its own, if it has left no word of it.
    pub fn trust(&self, durability: Durability) -> Trust {
        let now = Origin::here(&self.lock, durability);
        match &self.left {
            Some(left) if now.as_ref().is_some_and(|now| now.place == left.place) => {
                Trust::SameBoot
            }
            Some(left) if left.synced => Trust::Synced,
            None if durability == Durability::Fsync => Trust::Synced,
            Some(_) | None => Trust::Unsynced,
        }
    }

    /// Nothing is left of the log of the process before; what is written from now on is
    /// written here, and so.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn begins_anew(&self, durability: Durability) -> io::Result<()> {
        let here = Origin::here(&self.lock, durability);
        self.write(here.as_ref())?;
        self.lock.sync_all()
    }

    /// The lock's text: the process, and how the log was written.
    fn write(&self, origin: Option<&Origin>) -> io::Result<()> {
        let mut text = std::process::id().to_string();
        if let Some(Origin { place, synced }) = origin {
            let synced = if *synced { "synced" } else { "unsynced" };
            text = format!("{text} {place} {synced}\n");
        }
        // In this order: a text that is cut off tells less, and nothing wrong.
        self.lock.write_all_at(text.as_bytes(), 0)?;
        self.lock.set_len(text.len() as u64)
    }
}

/// Where and how a log was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    /// The boot of the machine, and the file that tells of it: a copy of a directory, or a
    /// snapshot of its disk, was not written by this machine since it runs.
    place: String,
    /// Each commit was synced before the next.
    synced: bool,
}

impl Origin {
    fn of(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace().skip(1);
        let (place, synced) = (words.next()?, words.next()?);
        let synced = match synced {
            "synced" => true,
            "unsynced" => false,
            _ => return None,
        };
        Some(Self { place: place.to_owned(), synced })
    }

    /// As it is for this process; `None` where the machine does not tell its boots apart.
    fn here(lock: &File, durability: Durability) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let file = lock.metadata().ok()?;
        let place = format!("{}/{:x}/{:x}", boot.trim(), file.dev(), file.ino());
        Some(Self { place, synced: durability == Durability::Fsync })
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

fn holder(mut lock: File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(_) => {
            let process = text.split_whitespace().next().and_then(|word| word.parse::<u32>().ok());
            process.map(|process| format!(" (process {process})")).unwrap_or_default()
        }
        Err(_) => String::new(),
    }
}

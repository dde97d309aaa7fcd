//! The file `LOCK`: who has a store, and what the process before has left.
//!
//! Owns the lock, which is the operating system's, and the text of the file: one line of
//! words, which a crash may have cut off. What is cut off tells less, and nothing wrong.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::process::{Pid, test_kill_process};

use super::DirectoryError;
use crate::store::Durability;

/// Before the mark of the store.
const STORE: &str = "store:";

/// That a sync has failed.
const SYNC_FAILED: &str = "sync-failed";

/// A lock that this process has, until it is dropped or the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// What the file tells.
    note: Note,
}

impl Lock {
    /// Takes the lock on an open file, of which `path` is told.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be locked.
    pub fn take(mut file: File, path: &Path) -> Result<Self, DirectoryError> {
        let directory = path.parent().unwrap_or(path).to_owned();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::InUse { path: directory, holder: holder(file) });
            }
            Err(TryLockError::Error(source)) => {
                return Err(DirectoryError::Unusable { path: directory, source });
            }
        }
        let mut text = String::new();
        // What is no text tells nothing.
        let _ = file.read_to_string(&mut text);
        Ok(Self { file, path: path.to_owned(), note: Note::of(&text) })
    }

    /// What the file tells.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Where and how a log is written by this process.
    pub fn here(&self, durability: Durability) -> Option<Origin> {
        Origin::here(&self.file, durability)
    }

    /// Which file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes this process's number, before what is known already.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn announce(&self) -> io::Result<()> {
        self.write(&self.note)
    }

    /// Puts this in place of what was known, durably.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keep(&mut self, note: Note) -> io::Result<()> {
        self.note = note;
        self.announce()?;
        self.file.sync_all()
    }

    /// Adds that a sync has failed.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keep_failed_sync(&self) -> io::Result<()> {
        let mut note = self.note.clone();
        if let Some(origin) = &mut note.origin {
            origin.sync_failed = true;
        }
        self.write(&note)?;
        self.file.sync_all()
    }

    fn write(&self, note: &Note) -> io::Result<()> {
        let text = note.text(std::process::id());
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file is not enough: a process that is being started has it, too, until
        // it has become its program. If this fails, that one's end does it.
        let _ = self.file.unlock();
    }
}

/// " (process 123)", if that has left its number and lives.
fn holder(mut lock: File) -> String {
    let mut text = String::new();
    if lock.read_to_string(&mut text).is_err() {
        return String::new();
    }
    let process = text.split_whitespace().next().and_then(|word| word.parse().ok());
    let alive = process
        .and_then(Pid::from_raw)
        .filter(|pid| !matches!(test_kill_process(*pid), Err(rustix::io::Errno::SRCH)));
    alive.map(|pid| format!(" (process {})", pid.as_raw_nonzero())).unwrap_or_default()
}

/// What a process leaves for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// How the log was written.
    pub origin: Option<Origin>,
    /// The mark of the store that is here.
    pub store: Option<u32>,
}

impl Note {
    fn of(text: &str) -> Self {
        // A longer text that was written over may have left its end.
        let mut words = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let origin = words.next().zip(words.next()).and_then(|(place, synced)| {
            let synced = match synced {
                "synced" => true,
                "unsynced" => false,
                _ => return None,
            };
            Some(Origin { place: place.to_owned(), synced, sync_failed: false })
        });
        let mut note = Self { origin, store: None };
        for word in words {
            match word.strip_prefix(STORE) {
                Some(mark) if mark.len() == 8 => note.store = u32::from_str_radix(mark, 16).ok(),
                Some(_) => {}
                None => {
                    if let Some(origin) = &mut note.origin {
                        origin.sync_failed |= word == SYNC_FAILED;
                    }
                }
            }
        }
        note
    }

    fn text(&self, process: u32) -> String {
        let (place, writing) = match &self.origin {
            Some(Origin { place, synced: true, .. }) => (place.as_str(), "synced"),
            Some(Origin { place, synced: false, .. }) => (place.as_str(), "unsynced"),
            None => ("-", "unknown"),
        };
        let mut text = format!("{process} {place} {writing}");
        if let Some(store) = self.store {
            let store = format!(" {STORE}{store:08x}");
            text.push_str(&store);
        }
        if self.origin.as_ref().is_some_and(|origin| origin.sync_failed) {
            text = text + " " + SYNC_FAILED;
        }
        text + "\n"
    }
}

/// Where and how a log was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The boot of the machine, the mount, and the file that tells of it: a copy of a
    /// directory, a snapshot of its disk, or a disk that was taken off and put back, was not
    /// written by this machine since it runs.
    place: String,
    /// Each commit was synced before the next.
    pub synced: bool,
    /// A sync has failed since.
    sync_failed: bool,
}

impl Origin {
    /// As it is for this process; `None` where the machine does not tell its boots apart.
    fn here(file: &File, durability: Durability) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let found = file.metadata().ok()?;
        let (boot, disk, mount) = (boot.trim(), found.dev(), mount_of(file));
        let place = format!("{boot}/{disk:x}/{mount:x}/{:x}", found.ino());
        Some(Self { place, synced: durability == Durability::Fsync, sync_failed: false })
    }

    /// Whether nothing that was written can have been lost: the same machine, running on,
    /// with the same disk, and no sync has failed.
    pub fn is_undisturbed_at(&self, here: Option<&Self>) -> bool {
        !self.sync_failed && here.is_some_and(|here| here.place == self.place)
    }
}

/// What tells a mount from others; the same for all where the system does not tell.
#[cfg(target_os = "linux")]
fn mount_of(file: &File) -> u64 {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    // The number that is never used again, in Linux 6.8 and later; before, one that may be.
    let unique = StatxFlags::from_bits_retain(0x4000);
    statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | unique)
        .map_or(0, |found| found.stx_mnt_id)
}

#[cfg(not(target_os = "linux"))]
fn mount_of(_file: &File) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(sync_failed: bool) -> Note {
        let origin = Origin { place: "boot/8:1/2a/7".into(), synced: true, sync_failed };
        Note { origin: Some(origin), store: Some(0x1b_2c3d) }
    }

    #[test]
    fn a_lock_that_is_dropped_is_free_whoever_else_has_the_file() {
        let file = tempfile::tempfile().expect("a file");
        // As a process that is being started has it.
        let theirs = file.try_clone().expect("a handle");
        drop(Lock::take(file, Path::new("LOCK")).expect("it is free"));
        // Another handle of the same lock would not tell.
        let again =
            File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&theirs)));
        again.expect("a file").try_lock().expect("it is free again");
    }

    #[test]
    fn a_note_comes_back_as_it_was_written() {
        let nowhere = Note { origin: None, ..note(false) };
        for note in [note(false), note(true), nowhere, Note::default()] {
            assert_eq!(Note::of(&note.text(123)), note);
        }
        let text = note(true).text(123);
        assert_eq!(text, "123 boot/8:1/2a/7 synced store:001b2c3d sync-failed\n");
    }

    #[test]
    fn a_note_that_was_cut_off_or_written_over_tells_less_and_nothing_wrong() {
        let whole = note(true);
        let text = whole.text(123);
        for end in 0..text.len() {
            let cut = Note::of(&text[..end]);
            assert!(cut.store.is_none() || cut.store == whole.store, "{cut:?}");
            if let Some(origin) = cut.origin {
                assert!(origin.synced && origin.place == "boot/8:1/2a/7", "{origin:?}");
            }
        }
        let short = Note { store: None, ..note(false) }.text(9);
        let over = format!("{short}{}", &text[short.len()..]);
        assert_eq!(Note::of(&over), Note::of(&short));
    }

    #[test]
    fn only_the_same_disk_on_the_same_boot_without_a_failed_sync_is_undisturbed() {
        let file = tempfile::tempfile().unwrap();
        let here = Origin::here(&file, Durability::Fsync).unwrap();
        assert!(here.is_undisturbed_at(Some(&here)));
        assert!(!here.is_undisturbed_at(None));
        let failed = Origin { sync_failed: true, ..here.clone() };
        assert!(!failed.is_undisturbed_at(Some(&here)));
        let parts: Vec<&str> = here.place.split('/').collect();
        for part in 0..parts.len() {
            let mut other = parts.clone();
            other[part] = "other";
            let other = Origin { place: other.join("/"), ..here.clone() };
            assert!(!other.is_undisturbed_at(Some(&here)), "{other:?}");
        }
        assert_eq!(parts.len(), 4, "boot, device, mount, file");
    }
}

//! The cursor of a watch, kept over its runs.
//!
//! The file holds one line. It is written in place, in one piece much smaller than a
//! sector, so that whoever is killed while writing leaves the cursor before or the one
//! after; and it is locked, as two watches that share one would lose events of each.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Read as _,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::super::{exit::Exit, output::printable, problem::Problem};

/// The longest cursor that a server gives.
const MAX_CURSOR: usize = 64;

/// A file with a cursor, which is ours as long as this is held.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    file: File,
    /// What it holds; empty if nothing.
    cursor: String,
}

impl CursorFile {
    /// Opens it, and makes it if there is none.
    ///
    /// # Errors
    /// [`Exit::Usage`] if it cannot be opened, read or written, is in use by another
    /// watch, or holds something else than a cursor.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let cannot = |wrong| Problem::usage(format!("cannot open {}: {wrong}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(cannot)?;
        // Where there are no locks, as on some network file systems, it is taken unlocked.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let message = format!("{} is in use by another watch", path.display());
            return Err(Problem::usage(message));
        }
        let mut bytes = Vec::new();
        file.by_ref().take(1024).read_to_end(&mut bytes).map_err(cannot)?;
        let cursor = read(&bytes).ok_or_else(|| {
            let begin: String = String::from_utf8_lossy(&bytes).chars().take(40).collect();
            let message = format!("{} holds no cursor: {}", path.display(), printable(&begin));
            Problem::usage(message).hint("empty the file to begin anew")
        })?;
        Ok(Self { path: path.to_owned(), file, cursor })
    }

    /// The cursor, if there is one.
    pub fn cursor(&self) -> Option<&str> {
        Some(&*self.cursor).filter(|cursor| !cursor.is_empty())
    }

    /// Keeps another cursor. A file that was removed in the meantime is made anew: what is
    /// written to it otherwise would be gone with this process.
    ///
    /// # Errors
    /// [`Exit::Internal`] if it cannot be written; as [`Self::open`] if it was removed.
    pub fn keep(&mut self, cursor: &str) -> Result<(), Problem> {
        if cursor == self.cursor || cursor.is_empty() {
            return Ok(());
        }
        if self.file.metadata().is_ok_and(|about| about.nlink() == 0) {
            *self = Self::open(&self.path)?;
        }
        let line = format!("{cursor}\n");
        let is_first = self.cursor.is_empty();
        self.file
            .write_all_at(line.as_bytes(), 0)
            // Only the first line counts: what is left of a longer one does no harm.
            .and_then(|()| self.file.set_len(line.len() as u64))
            // A file that a power cut leaves empty would begin the watch anew; one that is
            // a little behind prints some events again.
            .and_then(|()| if is_first { self.file.sync_all() } else { Ok(()) })
            .map_err(|wrong| {
                let message = format!("cannot write {}: {wrong}", self.path.display());
                Problem::new(Exit::Internal, message)
            })?;
        cursor.clone_into(&mut self.cursor);
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The cursor on the first line, perhaps none; `None` if something else is there.
fn read(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let cursor = std::str::from_utf8(line).ok()?.trim();
    let is_cursor =
        cursor.len() <= MAX_CURSOR && cursor.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_cursor.then(|| cursor.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("cursor");
        (dir, path)
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let (_dir, path) = file();
        let mut kept = CursorFile::open(&path).expect("a new file");
        assert_eq!(kept.cursor(), None);
        for cursor in ["cpvegksbbehn31a", "c1", ""] {
            kept.keep(cursor).expect("it can be written");
        }
        drop(kept);
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "c1\n");
        assert_eq!(CursorFile::open(&path).expect("a cursor").cursor(), Some("c1"));
    }

    #[test]
    fn the_rest_of_a_longer_cursor_does_no_harm() {
        let (_dir, path) = file();
        std::fs::write(&path, "c1\nsbbehn31a\n").expect("it can be written");
        assert_eq!(CursorFile::open(&path).expect("a cursor").cursor(), Some("c1"));
    }

    #[test]
    fn a_file_that_was_removed_is_made_anew() {
        let (_dir, path) = file();
        let mut kept = CursorFile::open(&path).expect("a new file");
        kept.keep("c1").expect("it can be written");
        std::fs::remove_file(&path).expect("it is there");
        kept.keep("c2").expect("it can be written");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "c2\n");
        assert!(CursorFile::open(&path).is_err(), "it is held");
    }

    #[test]
    fn it_is_for_one_watch_at_a_time() {
        let (_dir, path) = file();
        let held = CursorFile::open(&path).expect("a new file");
        let problem = CursorFile::open(&path).expect_err("it is held");
        assert_eq!(problem.exit(), Exit::Usage);
        assert!(problem.message().contains("in use by another watch"), "{problem:?}");
        drop(held);
        assert!(CursorFile::open(&path).is_ok());
    }

    #[test]
    fn another_file_is_left_alone() {
        let (_dir, path) = file();
        for other in ["[section]\nkey = 1\n", "a cursor", &"c".repeat(65)] {
            std::fs::write(&path, other).expect("it can be written");
            let problem = CursorFile::open(&path).expect_err(other);
            assert!(problem.message().contains("holds no cursor"), "{problem:?}");
            assert_eq!(std::fs::read_to_string(&path).expect("it is there"), other);
        }
    }
}

//! Which files the demo works on.
//!
//! Owns the walk through the directory: what is left out, the order, the bound.
//! Must not know what is done with the files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use taskyard_cli::{output::printable, problem::Problem, program};

/// What the walk found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Regular files, relative to the directory, sorted.
    pub files: Vec<String>,
    /// There are more than were asked for.
    pub cut: bool,
    /// What could not be looked at, and why.
    pub skipped: Vec<String>,
}

/// Directories that hold what others made.
const LEFT_OUT: [&str; 2] = ["target", "node_modules"];

/// Walks through `dir` to the first `max` files. Hidden entries, `target` and
/// `node_modules` are left out; symbolic links are not followed.
///
/// # Errors
/// [`Exit::Usage`](crate::Exit::Usage) if `dir` cannot be read, or holds
/// no file.
pub fn find(dir: &Path, max: usize) -> Result<Found, Problem> {
    let entries = sorted_entries(dir).map_err(|wrong| unreadable(dir, &wrong))?;
    let mut found = Found::default();
    // A stack, not recursion: the depth is somebody else's choice.
    let mut ahead: Vec<PathBuf> = entries.into_iter().rev().collect();
    while let Some(path) = ahead.pop() {
        match look(&path) {
            Ok(Entry::Directory(entries)) => ahead.extend(entries.into_iter().rev()),
            Ok(Entry::File) if found.files.len() == max => {
                found.cut = true;
                break;
            }
            Ok(Entry::File) => found.add(dir, &path),
            Ok(Entry::Other) => {}
            Err(wrong) => {
                found.skipped.push(format!("{}: {wrong}", printable(&path.to_string_lossy())));
            }
        }
    }
    if found.files.is_empty() {
        let message = format!("{} has no files to work on", dir.display());
        return Err(Problem::usage(message)
            .hint("hidden entries, target, node_modules and symbolic links are left out")
            .hint(&format!("name another directory: {} demo DIR", program::name())));
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, dir: &Path, path: &Path) {
        match path.strip_prefix(dir).unwrap_or(path).to_str() {
            Some(name) => self.files.push(name.to_owned()),
            None => self.skipped.push(format!("{}: its name is not UTF-8", path.display())),
        }
    }
}

enum Entry {
    Directory(Vec<PathBuf>),
    File,
    /// A link, a socket, a device, or something hidden.
    Other,
}

fn look(path: &Path) -> io::Result<Entry> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') {
        return Ok(Entry::Other);
    }
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_file() {
        Ok(Entry::File)
    } else if kind.is_dir() && !LEFT_OUT.contains(&name.as_ref()) {
        sorted_entries(path).map(Entry::Directory)
    } else {
        Ok(Entry::Other)
    }
}

fn sorted_entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

fn unreadable(dir: &Path, wrong: &io::Error) -> Problem {
    let why = match wrong.kind() {
        io::ErrorKind::NotFound => "there is no such directory".into(),
        io::ErrorKind::NotADirectory => "it is not a directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => wrong.to_string(),
    };
    Problem::usage(format!("cannot read {}: {why}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            fs::write(path, "x").expect("a file");
        }
        dir
    }

    #[test]
    fn files_come_sorted_and_the_unwanted_are_left_out() {
        let dir =
            tree(&["b", "a/z", "a/.hidden", ".git/config", "target/x", "node_modules/y", "c"]);
        std::os::unix::fs::symlink(dir.path().join("b"), dir.path().join("link")).expect("a link");
        let found = find(dir.path(), 200).expect("there are files");
        assert_eq!(found.files, ["a/z", "b", "c"]);
        assert!(!found.cut);
    }

    #[test]
    fn a_cut_is_said() {
        let dir = tree(&["a", "b", "c"]);
        assert!(!find(dir.path(), 3).expect("there are files").cut);
        let found = find(dir.path(), 2).expect("there are files");
        assert_eq!((found.files.len(), found.cut), (2, true));
    }

    #[test]
    fn what_cannot_be_worked_on_is_told() {
        let dir = tree(&["file", "empty/.hidden"]);
        let told = |name: &str| {
            let problem = find(&dir.path().join(name), 9).expect_err(name);
            problem.message().to_owned()
        };
        assert!(told("nowhere").ends_with("there is no such directory"));
        assert!(told("file").ends_with("it is not a directory"));
        assert!(told("empty").contains("has no files to work on"));
    }
}

//! Places at which a test lets the process fail or stand still.
//!
//! Only debug builds have them: in a release build [`hit`] does nothing. A test
//! starts the binary with the environment variable `FAILPOINTS`, a list of
//! `NAME=ACTION` or `NAME=ACTION@N` (from the N-th time on, counted from 1; 1 if left
//! out) with semicolons between. The actions are
//!
//! - `panic`: the thread panics, each time;
//! - `panic:PATH`: the thread panics, each time, while the file at PATH exists;
//! - `pause:PATH`: the thread makes the file at PATH and goes on when somebody has removed
//!   it; only at the N-th time.
//! - `trap:PATH`: whenever there is a file at PATH, the thread makes one at PATH.caught, and
//!   goes on when somebody has removed the one at PATH.

/// Acts as `FAILPOINTS` says of the failpoint `name`; else does nothing.
///
/// # Panics
/// If that is what is asked for, or if `FAILPOINTS` is malformed.
#[cfg(debug_assertions)]
pub fn hit(name: &str) {
    armed::hit(name);
}

/// Does nothing: release builds have no failpoints.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn hit(_name: &str) {}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        collections::HashMap,
        fs,
        path::{Path, PathBuf},
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
        thread,
        time::Duration,
    };

    /// How often a paused thread looks whether it may go on.
    const LOOK: Duration = Duration::from_millis(5);

    static FAILPOINTS: LazyLock<HashMap<String, Failpoint>> = LazyLock::new(|| {
        let text = std::env::var("FAILPOINTS").unwrap_or_default();
        parse(&text).unwrap_or_else(|wrong| panic!("FAILPOINTS: {wrong}"))
    });

    #[derive(Debug)]
    pub struct Failpoint {
        action: Action,
        /// The first time that counts.
        from: u64,
        hits: AtomicU64,
    }

    #[derive(Debug, PartialEq, Eq)]
    pub enum Action {
        Panic,
        PanicWhile(PathBuf),
        Pause(PathBuf),
        Trap(PathBuf),
    }

    pub fn hit(name: &str) {
        let Some(failpoint) = FAILPOINTS.get(name) else { return };
        let hits = failpoint.hits.fetch_add(1, Ordering::Relaxed) + 1;
        match &failpoint.action {
            Action::Panic if hits >= failpoint.from => panic!("failpoint {name}"),
            Action::PanicWhile(path) if hits >= failpoint.from && path.exists() => {
                panic!("failpoint {name}")
            }
            Action::Pause(path) if hits == failpoint.from => pause(path),
            Action::Trap(path) if hits >= failpoint.from && path.exists() => {
                let mut caught = path.clone().into_os_string();
                caught.push(".caught");
                make(caught.as_ref());
                until_gone(path);
            }
            Action::Panic | Action::PanicWhile(_) | Action::Pause(_) | Action::Trap(_) => {}
        }
    }

    fn pause(path: &Path) {
        make(path);
        until_gone(path);
    }

    fn make(path: &Path) {
        fs::write(path, "")
            .unwrap_or_else(|wrong| panic!("FAILPOINTS: {}: {wrong}", path.display()));
    }

    fn until_gone(path: &Path) {
        while path.exists() {
            thread::sleep(LOOK);
        }
    }

    pub fn parse(text: &str) -> Result<HashMap<String, Failpoint>, String> {
        text.split(';').filter(|part| !part.is_empty()).map(failpoint).collect()
    }

    fn failpoint(text: &str) -> Result<(String, Failpoint), String> {
        let wrong = || {
            format!(
                "{text:?} is not NAME=panic[@N], NAME=panic:PATH[@N], NAME=pause:PATH[@N] or \
                 NAME=trap:PATH[@N]"
            )
        };
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (action, from) = match rest.rsplit_once('@') {
            Some((action, from)) => (action, from.parse().map_err(|_| wrong())?),
            None => (rest, 1),
        };
        let action = match action.split_once(':') {
            None if action == "panic" => Action::Panic,
            Some(("panic", path)) if !path.is_empty() => Action::PanicWhile(path.into()),
            Some(("pause", path)) if !path.is_empty() => Action::Pause(path.into()),
            Some(("trap", path)) if !path.is_empty() => Action::Trap(path.into()),
            _ => return Err(wrong()),
        };
        Ok((name.to_owned(), Failpoint { action, from, hits: AtomicU64::new(0) }))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_list_is_read() {
            let list = "engine=panic@3;publish=pause:/tmp/a=b;group=trap:/t;reader=panic:/tmp/go";
            let list = parse(list).expect("well formed");
            let read = |name: &str| list.get(name).map(|found| (&found.action, found.from));
            assert_eq!(read("engine"), Some((&Action::Panic, 3)));
            assert_eq!(read("publish"), Some((&Action::Pause("/tmp/a=b".into()), 1)));
            assert_eq!(read("group"), Some((&Action::Trap("/t".into()), 1)));
            assert_eq!(read("reader"), Some((&Action::PanicWhile("/tmp/go".into()), 1)));
        }

        #[test]
        fn a_malformed_list_is_refused() {
            for wrong in ["engine", "engine=", "engine=panic@x", "engine=pause:", "engine=stop"] {
                assert!(parse(wrong).is_err(), "{wrong:?}");
            }
        }
    }
}

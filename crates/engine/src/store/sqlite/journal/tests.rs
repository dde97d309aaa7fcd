//! What a commit that is refused leaves in the log.

use std::{fs, io::Write as _, path::PathBuf};

use rusqlite::Connection;

use super::*;
use crate::store::Durability;
use crate::store::sqlite::{self, Location};

fn set(bytes: usize) -> WriteSet {
    let mut set = WriteSet::default();
    set.meta.insert("test", vec![7; bytes]);
    set
}

#[test]
fn what_could_not_be_cut_off_behind_a_refused_commit_is_cut_off_before_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let location = Location::File(dir.path().join("taskyard.db"));
    let trust = sqlite::Trust::SameBoot;
    let circumstances = sqlite::Circumstances { trust, had_store: false, accept_loss: false };
    let connection = sqlite::open_writer(&location, Durability::Os, circumstances);
    let connection: Connection = connection.expect("it opens");
    let mut journal = SqliteJournal::new(&connection, location.path()).expect("it is read");
    journal.commit(&set(10), Timestamp(1)).expect("it is taken");

    // There is no room for another page, and the log is not to be had either.
    let allow = |pages: u64| connection.pragma_update(None, "max_page_count", pages).unwrap();
    let (pages, _) = journal.pages().expect("they are counted");
    allow(pages);
    let log = journal.log.set_file(PathBuf::from("/nowhere/taskyard.db-wal"));
    let refused = journal.commit(&set(100_000), Timestamp(2)).expect_err("it has no room");
    assert_eq!(refused.fault(), Fault::Full, "{refused}");
    assert!(journal.is_uncut);
    let mut left_behind = fs::OpenOptions::new().append(true).open(&log).expect("the log");
    left_behind.write_all(&vec![9; 50_000]).expect("written");

    // A commit that is refused for the same cause changes nothing about that.
    journal.commit(&set(100_000), Timestamp(2)).expect_err("it has no room");
    assert!(journal.is_uncut);

    drop(journal.log.set_file(log.clone()));
    allow(1_000);
    journal.commit(&set(10), Timestamp(3)).expect("it is taken");
    assert!(!journal.is_uncut);
    let moved = journal.log().expect("it is measured");
    assert_eq!(fs::metadata(&log).expect("the log").len(), journal.log_bytes(moved.pages));
}

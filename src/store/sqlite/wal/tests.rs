//! Logs as SQLite writes them, damaged in every place.

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;

const COMMITS: u64 = 5;

/// The bytes of a log of so many commits, and where each ends.
fn log() -> (Vec<u8>, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let database = Connection::open(&path).unwrap();
    database.pragma_update(None, "page_size", 512).unwrap();
    database.pragma_update(None, "journal_mode", "WAL").unwrap();
    database.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    database.execute_batch("CREATE TABLE t (x)").unwrap();
    // What is written next is of a second generation, over the first.
    database.execute_batch("INSERT INTO t VALUES (zeroblob(16000))").unwrap();
    database.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    let log = dir.path().join("db-wal");
    let mut ends = Vec::new();
    for size in 1..=COMMITS {
        database.execute("INSERT INTO t VALUES (zeroblob(?1))", [size * 400]).unwrap();
        ends.push(scan(&log, 0).unwrap().committed_bytes());
    }
    (std::fs::read(&log).unwrap(), ends)
}

fn scanned(bytes: &[u8]) -> Scan {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    scan(file.path(), 512).unwrap()
}

#[test]
fn a_whole_log_is_whole_wherever_it_ends() {
    let (bytes, ends) = log();
    let whole = scanned(&bytes);
    assert_eq!((whole.commits, whole.frames_behind, whole.bad_header), (COMMITS, 0, false));
    assert!(whole.bytes > whole.end(), "there is an older generation behind it");
    let last = usize::try_from(*ends.last().unwrap()).unwrap();
    // However a killed process left the last write.
    for length in (0..=last).step_by(11) {
        let cut = scanned(&bytes[..length]);
        assert!(!cut.is_damaged(Trust::SameBoot), "cut to {length}");
        let mut written = bytes.clone();
        written[length..last].fill(0);
        if length >= 32 {
            let scan = scanned(&written);
            assert!(!scan.is_damaged(Trust::SameBoot), "written up to {length}: {scan:?}");
        }
    }
    assert!(!scanned(&[]).is_damaged(Trust::SameBoot));
    assert!(!scanned(&[0; 4_096]).is_damaged(Trust::SameBoot));
    assert_eq!(scan(Path::new("/nowhere"), 512).unwrap(), Scan::default());
}

#[test]
fn every_damaged_byte_before_the_last_commit_is_seen() {
    let (bytes, ends) = log();
    let (known, last) = (ends[3], *ends.last().unwrap());
    let in_page = |at: u64| at > HEADER_BYTES && (at - HEADER_BYTES) % 536 >= FRAME_HEADER_BYTES;
    for at in (0..last).filter(|at| !in_page(*at) || at % 31 == 0) {
        let mut damaged = bytes.clone();
        damaged[usize::try_from(at).unwrap()] ^= 1;
        let scan = scanned(&damaged);
        let page = scan.page_size;
        let frame = u64::from(page) + FRAME_HEADER_BYTES;
        assert_eq!(scan.bad_header, at < HEADER_BYTES, "byte {at}");
        // Of the last commit, only a page that says that it were the end of one is seen.
        let says_end = at > known && (4..8).contains(&((at - HEADER_BYTES) % frame));
        if !says_end {
            assert_eq!(scan.is_damaged(Trust::Synced), at < known, "byte {at}: {scan:?}");
        }
        // Of the last page nobody knows whether it was written whole; of a whole one whose
        // salts are wrong it is known.
        let in_last = at.checked_sub(last - frame);
        let same_boot = in_last.is_none_or(|at| (8..16).contains(&at));
        assert!(scan.is_damaged(Trust::SameBoot) == same_boot, "byte {at}: {scan:?}");
        assert_eq!(scan.is_damaged(Trust::Unsynced), scan.bad_header);
        assert!(scan.end() <= at, "byte {at}: {scan:?}");
    }
}

proptest! {
    /// Whatever a power cut leaves of the last commit.
    #[test]
    fn a_power_cut_in_the_last_commit_is_no_damage(kept in proptest::collection::vec(any::<bool>(), 100)) {
        let (bytes, ends) = log();
        let before = usize::try_from(ends[3]).unwrap();
        let mut cut = bytes.clone();
        for (sector, kept) in kept.into_iter().enumerate() {
            let (begin, end) = (sector * 512, (sector * 512 + 512).min(bytes.len()));
            if !kept && end > before && begin < end {
                cut[begin.max(before)..end].fill(0);
            }
        }
        let scan = scanned(&cut);
        prop_assert!(!scan.is_damaged(Trust::Synced), "{:?}", scan);
        prop_assert!(scan.commits >= 4);
    }
}

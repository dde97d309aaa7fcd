//! Logs as SQLite writes them, damaged in every place.

use std::sync::LazyLock;

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;

const COMMITS: u64 = 5;

/// A log that was written over an older one.
struct Written {
    /// What was there before: many commits of one frame each.
    older: Vec<u8>,
    bytes: Vec<u8>,
    /// Where each commit ends.
    ends: Vec<u64>,
}

/// A log of [`COMMITS`] commits, of which the last is long.
fn log() -> Written {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let database = Connection::open(&path).unwrap();
    database.pragma_update(None, "page_size", 512).unwrap();
    database.pragma_update(None, "journal_mode", "WAL").unwrap();
    database.pragma_update(None, "synchronous", "OFF").unwrap();
    database.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    database.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (0)").unwrap();
    for number in 0..120 {
        database.execute("UPDATE t SET x = ?1", [number]).unwrap();
    }
    database.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    let log = dir.path().join("db-wal");
    let older = std::fs::read(&log).unwrap();
    // What is written next is of a second generation, over the first.
    let mut ends = Vec::new();
    for size in 1..=COMMITS {
        let bytes = if size == COMMITS { 40_000 } else { size * 400 };
        database.execute("INSERT INTO t VALUES (zeroblob(?1))", [bytes]).unwrap();
        ends.push(scan(&log, 0).unwrap().committed_bytes());
    }
    Written { older, bytes: std::fs::read(&log).unwrap(), ends }
}

fn scanned(bytes: &[u8]) -> Scan {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    scan(file.path(), 512).unwrap()
}

#[test]
fn a_whole_log_is_whole_wherever_it_ends() {
    let Written { bytes, ends, .. } = log();
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
    // No process that was killed leaves zeros; a power cut may.
    let zeros = scanned(&[0; 4_096]);
    assert!(zeros.is_damaged(Trust::SameBoot) && !zeros.is_damaged(Trust::Synced), "{zeros:?}");
    assert_eq!((zeros.end(), zeros.committed_bytes()), (0, 0));
    assert_eq!(scan(Path::new("/nowhere"), 512).unwrap(), Scan::default());
}

#[test]
fn every_damaged_byte_before_the_last_commit_is_seen() {
    let Written { bytes, ends, .. } = log();
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

/// The first frames whose header lies in two sectors, and how many of its bytes are in the
/// first of them: which page it is and whether it ends a commit, without its salts; and those
/// with its salts, without its checksum.
const SPLIT_FRAMES: [(u64, u64); 2] = [(41, 8), (62, 16)];

static WRITTEN: LazyLock<Written> = LazyLock::new(log);

#[test]
fn the_last_commit_has_frames_whose_headers_lie_in_two_sectors() {
    let frame = FRAME_HEADER_BYTES + 512;
    for (split, before) in SPLIT_FRAMES {
        let begin = HEADER_BYTES + split * frame;
        assert_eq!(begin % 512 + before, 512);
        assert!(WRITTEN.ends[3] < begin && begin + frame < WRITTEN.ends[4], "{:?}", WRITTEN.ends);
        let at = usize::try_from(begin).unwrap();
        assert_ne!(word(&WRITTEN.older, at + 4), 0, "the older one ended a commit there");
    }
}

/// Of the header of one frame its salts are new, and its checksum is that of the older
/// generation, which the older frames behind it follow.
#[test]
fn older_frames_behind_a_header_that_is_new_in_part_are_no_lost_commits() {
    let Written { older, bytes, ends } = &*WRITTEN;
    let (split, before) = SPLIT_FRAMES[1];
    let begin = usize::try_from(ends[3]).unwrap();
    let at = usize::try_from(HEADER_BYTES + split * (FRAME_HEADER_BYTES + 512)).unwrap();
    let mut cut = older.clone();
    cut[..begin].copy_from_slice(&bytes[..begin]);
    let first = at..at + usize::try_from(before).unwrap();
    cut[first.clone()].copy_from_slice(&bytes[first]);
    let scan = scanned(&cut);
    assert!(!scan.is_damaged(Trust::Synced), "{scan:?}");
    assert_eq!(scan.commits, 4, "{scan:?}");
}

proptest! {
    /// Whatever a power cut leaves of the last commit: each sector of it may be as it was
    /// before, zeros where there was nothing, or new.
    #[test]
    fn a_power_cut_in_the_last_commit_is_no_damage(
        kept in proptest::collection::vec(any::<bool>(), 100),
        grown in any::<bool>(),
    ) {
        let Written { older, bytes, ends } = &*WRITTEN;
        let before = usize::try_from(ends[3]).unwrap();
        let mut cut = bytes.clone();
        for (sector, kept) in kept.into_iter().enumerate() {
            let (begin, end) = (sector * 512, (sector * 512 + 512).min(bytes.len()));
            let lost = if kept { end..end } else { begin.max(before).min(end)..end };
            for (at, byte) in cut[lost.clone()].iter_mut().zip(lost).map(|(byte, at)| (at, byte)) {
                *byte = if grown { 0 } else { older.get(at).copied().unwrap_or(0) };
            }
        }
        let scan = scanned(&cut);
        prop_assert!(!scan.is_damaged(Trust::Synced), "{:?}", scan);
        prop_assert!(scan.commits >= 4);
    }
}

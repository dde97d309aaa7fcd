//! SQLite's write-ahead log as the store reads it: any bytes are judged, and a log as SQLite
//! writes it, with one byte changed, is judged rightly.

#![no_main]

use std::fs;

use taskyard::store::{LogScan as Scan, LogTrust as Trust, scan_log};

const PAGE: usize = 512;
const HEADER: usize = 32;
const FRAME: usize = 24 + PAGE;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((kind @ 0..=1, log)) => any(if *kind == 0 { 0 } else { 512 }, log),
        Some((_, [place @ .., byte, commits])) if place.len() >= 2 => {
            changed(u16::from_be_bytes([place[0], place[1]]), *byte, *commits, &place[2..]);
        }
        _ => {}
    }
});

/// With a database of pages of this size; 0 for an empty one.
fn scan(page: u16, log: &[u8]) -> Scan {
    let database = taskyard_fuzz::path().with_extension("db");
    let mut header = [0; 18];
    header[16..].copy_from_slice(&page.to_be_bytes());
    fs::write(&database, if page == 0 { &[][..] } else { &header }).expect("it can be written");
    fs::write(database.with_extension("db-wal"), log).expect("it can be written");
    // A page, and what is read ahead.
    let scanned = taskyard_fuzz::within(256 << 10, || scan_log(&database));
    scanned.expect("it can be read")
}

/// Whatever is in a log, what is said of it is in it.
fn any(page: u16, log: &[u8]) {
    let scan = scan(page, log);
    let length = log.len() as u64;
    assert_eq!(scan.bytes, length);
    assert!(scan.end() <= length && scan.committed_bytes() <= length, "{scan:?}");
    assert!(scan.commits <= scan.committed && scan.committed <= scan.frames, "{scan:?}");
    let frame = 24 + u64::from(scan.page_size);
    assert!((scan.frames + scan.frames_behind) * frame <= length, "{scan:?}");
    assert!(scan.commits_behind <= scan.frames_behind + 1, "{scan:?}");
    assert!(!scan.followed || scan.commits_behind > 0, "{scan:?}");
    // Who trusts the disk less finds no more lost.
    let lost = |trust| scan.is_damaged(trust);
    assert!(!lost(Trust::Synced) || lost(Trust::SameBoot), "{scan:?}");
    assert!(!lost(Trust::Unsynced) || lost(Trust::Synced), "{scan:?}");
}

/// A log of commits of one to four pages each.
fn changed(place: u16, byte: u8, commits: u8, content: &[u8]) {
    let sizes: Vec<usize> = (0..8).map(|at| 1 + usize::from(commits >> (at % 4) & 3)).collect();
    let mut log = written(&sizes, content);
    let whole = scan(512, &log);
    let frames: usize = sizes.iter().sum();
    assert_eq!((whole.frames, whole.committed), (frames as u64, frames as u64), "{whole:?}");
    assert_eq!((whole.commits, whole.frames_behind), (sizes.len() as u64, 0), "{whole:?}");
    assert!(!whole.is_damaged(Trust::SameBoot), "{whole:?}");

    let place = HEADER + usize::from(place) % (log.len() - HEADER);
    if byte == 0 {
        return;
    }
    log[place] ^= byte;
    let found = scan(512, &log);
    let frame = (place - HEADER) / FRAME;
    let ends = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    let ends: Vec<usize> = ends.collect();
    let hit = ends.iter().position(|end| frame < *end).expect("one of the commits");
    assert_eq!(found.frames, frame as u64, "byte {place}: {found:?}");
    assert_eq!(found.commits, hit as u64, "byte {place}: {found:?}");
    // It was durable when another commit had been begun: that is certain if two follow.
    if hit + 2 < sizes.len() {
        assert!(found.is_damaged(Trust::Synced), "byte {place}: {found:?}");
        assert!(found.is_damaged(Trust::SameBoot), "byte {place}: {found:?}");
    }
    // The last commit may be what a power cut has left of it.
    if hit + 1 == sizes.len() {
        assert!(!found.is_damaged(Trust::Synced), "byte {place}: {found:?}");
    }
}

/// By <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>, little-endian.
fn written(sizes: &[usize], content: &[u8]) -> Vec<u8> {
    let mut log = Vec::new();
    for word in [0x377f_0682_u32, 3_007_000, 512, 0, 0x1234_5678, 0x9abc_def0] {
        log.extend_from_slice(&word.to_be_bytes());
    }
    let mut sum = summed(&log, (0, 0));
    put(&mut log, sum);
    let mut page = 0_u32;
    for size in sizes {
        for at in 1..=*size {
            page += 1;
            let ends_commit = if at == *size { page } else { 0 };
            let start = log.len();
            log.extend_from_slice(&page.to_be_bytes());
            log.extend_from_slice(&ends_commit.to_be_bytes());
            sum = summed(&log[start..], sum);
            log.extend_from_slice(&0x1234_5678_u32.to_be_bytes());
            log.extend_from_slice(&0x9abc_def0_u32.to_be_bytes());
            let mut bytes = [page as u8; PAGE];
            for (to, from) in bytes.iter_mut().zip(content) {
                *to = *from;
            }
            sum = summed(&bytes, sum);
            put(&mut log, sum);
            log.extend_from_slice(&bytes);
        }
    }
    log
}

fn put(log: &mut Vec<u8>, (first, second): (u32, u32)) {
    log.extend_from_slice(&first.to_be_bytes());
    log.extend_from_slice(&second.to_be_bytes());
}

fn summed(bytes: &[u8], (mut first, mut second): (u32, u32)) -> (u32, u32) {
    for words in bytes.chunks_exact(8) {
        let word = |at: usize| u32::from_le_bytes(words[at..at + 4].try_into().expect("4 bytes"));
        first = first.wrapping_add(word(0)).wrapping_add(second);
        second = second.wrapping_add(word(4)).wrapping_add(first);
    }
    (first, second)
}

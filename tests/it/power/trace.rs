//! What the preloaded library saw: the records of `interpose.c`, and the test's own marks
//! between them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// One thing that happened to the files, in the order in which it took effect.
#[derive(Clone, Debug)]
pub enum Record {
    /// A file or a directory was opened that was there.
    Opened {
        file: u64,
        path: PathBuf,
    },
    /// A file came into being.
    Created {
        file: u64,
        path: PathBuf,
    },
    Written {
        file: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    /// It has this length now: shorter, or longer with zeros.
    Truncated {
        file: u64,
        length: usize,
    },
    /// The sync with this number covers what happened to the file before.
    SyncBegun {
        sync: u64,
    },
    SyncEnded {
        file: u64,
        sync: u64,
        failed: bool,
    },
    Removed {
        path: PathBuf,
    },
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
    /// The test has heard something: the number of a note of its own.
    Mark(usize),
}

const MARK: u32 = 100;
const HEAD: usize = 32;

/// All records of a trace. One that is not whole is the last: the program was killed.
pub fn read(path: &Path) -> Vec<Record> {
    let bytes = std::fs::read(path).expect("the trace is there");
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while let Some((record, after)) = next(rest) {
        records.push(record);
        rest = after;
    }
    records
}

fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let head = bytes.get(..HEAD)?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let (kind, failed, file) = (word(0), word(4) != 0, number(8));
    let (offset, length) = (size(number(16)), size(number(24)));
    let body = bytes.get(HEAD..HEAD + length)?;
    let record = match kind {
        1 => Record::Opened { file, path: path(body) },
        2 => Record::Created { file, path: path(body) },
        3 => Record::Written { file, offset, bytes: body.to_vec() },
        4 => Record::Truncated { file, length: offset },
        5 => Record::SyncBegun { sync: number(16) },
        6 => Record::SyncEnded { file, sync: number(16), failed },
        7 => Record::Removed { path: path(body) },
        8 => {
            let end = body.iter().position(|byte| *byte == 0).expect("two paths");
            Record::Renamed { from: path(&body[..end]), to: path(&body[end + 1..]) }
        }
        MARK => Record::Mark(offset),
        unknown => panic!("a record of the unknown kind {unknown} in the trace"),
    };
    Some((record, &bytes[HEAD + length..]))
}

fn size(number: u64) -> usize {
    usize::try_from(number).expect("this machine has 64 bits")
}

fn path(bytes: &[u8]) -> PathBuf {
    std::str::from_utf8(bytes).expect("the paths of the tests are text").into()
}

/// Writes the test's marks into the trace.
#[derive(Debug)]
pub struct Marker(File);

impl Marker {
    pub fn open(trace: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().append(true).create(true).open(trace)?))
    }

    /// Everything before this in the trace had happened when the test made the note.
    pub fn mark(&self, note: usize) {
        let mut record = [0; HEAD];
        record[..4].copy_from_slice(&MARK.to_le_bytes());
        record[16..24].copy_from_slice(&u64::try_from(note).expect("a number").to_le_bytes());
        (&self.0).write_all(&record).expect("the trace takes a mark");
    }
}

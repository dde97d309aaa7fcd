//! SQLite's write-ahead log, read by our own eyes before SQLite reads it.
//!
//! Owns the judgement whether what is behind the place where a log ends is of no
//! account or was lost. Reads alone; must not know SQL or who opens the store.
//!
//! SQLite takes a log for ended at the first frame that does not fit, whatever is
//! behind it: one damaged byte, and the commits behind it are gone without a word. That
//! must be so for the last commit, which a crash may have cut off. But the commits before
//! it had been synced when it was begun, so a *commit that others follow* behind the end
//! was durable once: the log is damaged. How much more can be told depends on what has
//! become of the machine, which is [`Trust`].
//!
//! The format is that of <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>: a
//! header of 32 bytes, then frames, each a page behind 24 bytes that say which page it is,
//! how large the database is if it ends a commit, two salts that all frames of one
//! generation share with the header, and a checksum of everything up to here. Frames of
//! earlier generations lie behind the newest as they were.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths of headers, and of pages, which have at most 64 KiB"
)]

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::Path,
};

/// Bytes of the header.
pub const HEADER_BYTES: u64 = 32;

/// Bytes before the page in a frame.
pub const FRAME_HEADER_BYTES: u64 = 24;

const MAGIC: u32 = 0x377f_0682;

/// How much what is behind the end of a log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The machine has run since the log was written, so only a process can have been
    /// killed: writes are there in their order. A whole commit behind the end was lost.
    SameBoot,
    /// The power may have failed; every commit was synced before the next one began. All
    /// commits behind the end but the last were lost.
    Synced,
    /// The power may have failed, and commits were not synced one by one: whatever is
    /// behind the end may be what the power cut has left.
    Unsynced,
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes of the file.
    pub bytes: u64,
    /// The header is neither as SQLite writes it nor empty.
    pub bad_header: bool,
    /// It is long enough for a frame, and has nothing but zeros.
    pub is_zero: bool,
    /// Bytes of a page.
    pub page_size: u32,
    /// Frames that fit, one after the other from the first on.
    pub frames: u64,
    /// Of those, the ones that belong to whole commits.
    pub committed: u64,
    /// Those commits.
    pub commits: u64,
    /// Frames of the same generation behind the first one that does not fit.
    pub frames_behind: u64,
    /// Whole commits among them.
    pub commits_behind: u64,
    /// One of these commits has frames behind it.
    pub followed: bool,
}

impl Scan {
    /// Where the first frame is that does not fit; the file's end, if all do.
    #[must_use]
    pub fn end(&self) -> u64 {
        if self.bad_header || self.is_zero { 0 } else { self.offset(self.frames).min(self.bytes) }
    }

    /// Where the last whole commit ends; 0 if there is none.
    #[must_use]
    pub fn committed_bytes(&self) -> u64 {
        if self.committed == 0 { 0 } else { self.offset(self.committed) }
    }

    fn offset(&self, frames: u64) -> u64 {
        HEADER_BYTES + frames * (FRAME_HEADER_BYTES + u64::from(self.page_size))
    }

    /// Whether commits were lost that had been durable.
    #[must_use]
    pub fn is_damaged(&self, trust: Trust) -> bool {
        self.bad_header
            || match trust {
                // Nothing but a disk that has lost what was written leaves zeros.
                Trust::SameBoot => self.is_zero || self.commits_behind > 0,
                Trust::Synced => self.followed,
                Trust::Unsynced => false,
            }
    }
}

/// Reads a log. `page_size` is the database's, for a log whose header does not tell; a
/// log that is not there is an empty one. Takes memory for one page.
///
/// # Errors
/// Those of reading.
pub fn scan(path: &Path, page_size: u32) -> io::Result<Scan> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Scan::default()),
        Err(error) => return Err(error),
    };
    let bytes = file.metadata()?.len();
    let mut scan = Scan { bytes, page_size, ..Scan::default() };
    let mut header = [0; HEADER_BYTES as usize];
    let mut reader = BufReader::with_capacity(1 << 16, file);
    if bytes < HEADER_BYTES {
        return Ok(scan);
    }
    reader.read_exact(&mut header)?;
    match Header::read(&header) {
        Some(header) => {
            scan.page_size = header.page_size;
            frames(&mut reader, header.start, header.order, &mut scan)?;
        }
        // Nothing was ever written behind a header that is not there yet.
        None if bytes < HEADER_BYTES + FRAME_HEADER_BYTES => {}
        None if is_zero(header, &mut reader)? => scan.is_zero = true,
        None => {
            scan.bad_header = true;
            reader.seek(SeekFrom::Start(HEADER_BYTES))?;
            frames(&mut reader, Chain::lost(), Order::native(), &mut scan)?;
        }
    }
    Ok(scan)
}

fn is_zero(header: [u8; HEADER_BYTES as usize], rest: &mut impl Read) -> io::Result<bool> {
    if header.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    let mut buffer = vec![0; 1 << 16];
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(true),
            read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

/// How the checksum reads its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn native() -> Self {
        if cfg!(target_endian = "big") { Self::Big } else { Self::Little }
    }

    fn word(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }
}

type Sum = (u32, u32);

/// SQLite's checksum of `bytes`, a multiple of 8, going on from `sum`.
fn checksum(order: Order, bytes: &[u8], (mut first, mut second): Sum) -> Sum {
    for pair in bytes.chunks_exact(8) {
        let word = |at: usize| order.word([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
        first = first.wrapping_add(word(0)).wrapping_add(second);
        second = second.wrapping_add(word(4)).wrapping_add(first);
    }
    (first, second)
}

/// The checksum that a frame ought to have, going on from that of the one before.
fn frame_checksum(order: Order, frame: &[u8], before: Sum) -> Sum {
    let page = &frame[FRAME_HEADER_BYTES as usize..];
    checksum(order, page, checksum(order, &frame[..8], before))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    Order::Big.word([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

struct Header {
    page_size: u32,
    order: Order,
    start: Chain,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES as usize]) -> Option<Self> {
        let (magic, page_size) = (word(bytes, 0), word(bytes, 8));
        let order = if magic & 1 == 1 { Order::Big } else { Order::Little };
        let sum = (word(bytes, 24), word(bytes, 28));
        let good = magic & !1 == MAGIC
            && page_size.is_power_of_two()
            && (512..=65_536).contains(&page_size)
            && checksum(order, &bytes[..24], (0, 0)) == sum;
        let salts = (word(bytes, 16), word(bytes, 20));
        good.then_some(Self { page_size, order, start: Chain { salts: Some(salts), sum } })
    }
}

/// What the next frame must fit to.
#[derive(Clone, Copy)]
struct Chain {
    /// `None` if they are not known.
    salts: Option<(u32, u32)>,
    sum: Sum,
}

impl Chain {
    /// Of a log whose header is damaged.
    fn lost() -> Self {
        Self { salts: None, sum: (0, 0) }
    }
}

/// Follows the frames to the end of the file.
fn frames(reader: &mut impl Read, start: Chain, order: Order, scan: &mut Scan) -> io::Result<()> {
    let mut buffer = vec![0; scan.page_size as usize + FRAME_HEADER_BYTES as usize];
    let mut salts = start.salts;
    // The checksum of the frame before as it says, and as it is: either may be damaged.
    let mut before = [start.sum; 2];
    // Nothing but frames that fit so far.
    let mut whole = salts.is_some();
    // The frame before is of this generation, and as it was written.
    let mut after_whole = true;
    // The frame before would end a commit, if the next one confirms its checksum.
    let mut unconfirmed = false;
    while read_frame(reader, &mut buffer)? {
        let frame = Frame::read(&buffer);
        let sum = frame_checksum(order, &buffer, before[0]);
        let fits = frame.is_page
            && (sum == frame.sum
                || before[0] != before[1]
                    && frame_checksum(order, &buffer, before[1]) == frame.sum);
        before = [frame.sum, if fits { frame.sum } else { sum }];
        if fits && salts.is_none() {
            // The first two frames that fit to each other are of the newest generation.
            salts = Some(frame.salts);
        }
        let has_salts = salts == Some(frame.salts);
        if whole && fits && has_salts {
            scan.frames += 1;
            if frame.is_commit {
                scan.committed = scan.frames;
                scan.commits += 1;
            }
            continue;
        }
        whole = false;
        // Frames of earlier generations fit to each other, too; and to one of this generation
        // of which a power cut has left the first sector of the header new, with the salts,
        // and the next one old, with the checksum. So one that only its place tells to be of
        // this generation, as its salts are damaged, is taken for that behind a whole one.
        let linked = fits && (has_salts || after_whole);
        if linked {
            scan.commits_behind += u64::from(unconfirmed);
            scan.followed |= scan.commits_behind > 0;
            scan.commits_behind += u64::from(frame.is_commit);
        }
        scan.frames_behind += u64::from(has_salts || linked);
        // Where a log is written over, a power cut can leave the beginning of a frame's header
        // as it was, with the page and the commit of long ago, and the rest of it new: then the
        // end of the frame before is in the same sector, and does not fit either.
        unconfirmed = has_salts && !linked && frame.is_commit && after_whole;
        after_whole = linked;
    }
    Ok(())
}

/// What a frame says of itself.
struct Frame {
    is_page: bool,
    is_commit: bool,
    salts: (u32, u32),
    sum: Sum,
}

impl Frame {
    fn read(bytes: &[u8]) -> Self {
        Self {
            is_page: word(bytes, 0) != 0,
            is_commit: word(bytes, 4) != 0,
            salts: (word(bytes, 8), word(bytes, 12)),
            sum: (word(bytes, 16), word(bytes, 20)),
        }
    }
}

/// Fills the buffer; `false` if the file ends before.
fn read_frame(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;

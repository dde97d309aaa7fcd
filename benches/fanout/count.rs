//! Counts the events of one stream, without decoding or keeping any of them.
//!
//! Bytes come in pieces that end anywhere. Only what leads to the next event is
//! looked at: five bytes before each message, a key and a length before each field,
//! and the number that each event begins with, which must be the one after the last.

use std::fmt;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// The key of `WatchEventsResponse.events`: field 2, with a length.
const EVENTS: u8 = (2 << 3) | 2;
/// The key of `Event.seq`: field 1, a varint.
const SEQ: u8 = 1 << 3;
/// Bytes that lead to an event, or past another field, at most: a key, a length of
/// up to five bytes, another key, and a number of up to ten.
const MAX_HEAD: usize = 1 + 5 + 1 + 10;

/// What a stream has brought, and where in a message it stands.
#[derive(Clone, Copy, Default)]
pub struct Counter {
    /// Events.
    pub events: u64,
    /// Messages that have begun.
    pub messages: u64,
    /// Bytes of the messages that have begun.
    pub bytes: u64,
    /// The number of the first event.
    pub first: u64,
    /// The number of the newest event.
    last: u64,
    /// Bytes of the message that have not come.
    message: usize,
    /// Bytes of the field that are to be passed over.
    skip: usize,
    /// The beginning of what leads on, when the rest has not come.
    held: [u8; MAX_HEAD],
    held_len: u8,
}

/// The bytes are not what a watcher should get.
#[derive(Debug)]
pub enum Wrong {
    /// Not the encoding of a response.
    Damaged,
    /// The event after `after` is not the next one.
    Gap { after: u64, next: u64 },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("a watcher received what is no response"),
            Self::Gap { after, next } => {
                write!(f, "a watcher received event {next} after event {after}")
            }
        }
    }
}

impl std::error::Error for Wrong {}

/// What the bytes at hand lead to.
enum Head {
    /// More of them are needed.
    Incomplete,
    /// A message of so many bytes.
    Message(usize),
    /// A field that ends so many bytes after its head; an event, if it has a number.
    Field { head: usize, rest: usize, seq: Option<u64> },
}

impl Counter {
    /// Takes the next bytes of the stream.
    pub fn pass(&mut self, mut data: &[u8]) -> Result<(), Wrong> {
        while !data.is_empty() {
            if self.skip > 0 {
                let count = self.skip.min(data.len());
                self.skip -= count;
                self.message -= count;
                data = &data[count..];
            } else if self.held_len == 0 {
                match head(data, self.message)? {
                    Head::Incomplete => {
                        self.hold(data)?;
                        return Ok(());
                    }
                    found => data = &data[self.take(&found)?..],
                }
            } else {
                // The head was cut: a byte at a time, until it is whole.
                self.hold(&data[..1])?;
                data = &data[1..];
                let (held, held_len) = (self.held, usize::from(self.held_len));
                match head(&held[..held_len], self.message)? {
                    Head::Incomplete => {}
                    found => {
                        self.take(&found)?;
                        self.held_len = 0;
                    }
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, data: &[u8]) -> Result<(), Wrong> {
        let from = usize::from(self.held_len);
        let place = self.held.get_mut(from..from + data.len()).ok_or(Wrong::Damaged)?;
        place.copy_from_slice(data);
        self.held_len = u8::try_from(from + data.len()).map_err(|_| Wrong::Damaged)?;
        Ok(())
    }

    /// Counts what was found; returns the bytes of its head.
    fn take(&mut self, found: &Head) -> Result<usize, Wrong> {
        match *found {
            Head::Incomplete => Ok(0),
            Head::Message(length) => {
                self.message = length;
                self.messages += 1;
                self.bytes += length as u64;
                Ok(PREFIX)
            }
            Head::Field { head, rest, seq } => {
                let left = self.message.checked_sub(head).ok_or(Wrong::Damaged)?;
                if rest > left {
                    return Err(Wrong::Damaged);
                }
                (self.message, self.skip) = (left, rest);
                if let Some(seq) = seq {
                    if self.events == 0 {
                        self.first = seq;
                    } else if seq != self.last + 1 {
                        return Err(Wrong::Gap { after: self.last, next: seq });
                    }
                    self.last = seq;
                    self.events += 1;
                }
                Ok(head)
            }
        }
    }
}

/// What `data` begins with, where `message` bytes of a message are still to come.
#[inline]
fn head(data: &[u8], message: usize) -> Result<Head, Wrong> {
    if message == 0 {
        let Some(&[compressed, a, b, c, d]) = data.first_chunk::<PREFIX>() else {
            return Ok(Head::Incomplete);
        };
        if compressed != 0 {
            return Err(Wrong::Damaged);
        }
        return Ok(Head::Message(u32::from_be_bytes([a, b, c, d]) as usize));
    }
    let Some((length, start)) = varint(data, 1)? else { return Ok(Head::Incomplete) };
    let length = usize::try_from(length).map_err(|_| Wrong::Damaged)?;
    // All fields of a response have a length.
    if data[0] & 7 != 2 {
        return Err(Wrong::Damaged);
    }
    if data[0] != EVENTS {
        return Ok(Head::Field { head: start, rest: length, seq: None });
    }
    match data.get(start) {
        None => return Ok(Head::Incomplete),
        Some(&SEQ) => {}
        Some(_) => return Err(Wrong::Damaged),
    }
    let Some((seq, end)) = varint(data, start + 1)? else { return Ok(Head::Incomplete) };
    let rest = length.checked_sub(end - start).ok_or(Wrong::Damaged)?;
    Ok(Head::Field { head: end, rest, seq: Some(seq) })
}

/// The number at `at`, and where it ends; `None` if it is not there whole.
#[inline]
fn varint(data: &[u8], at: usize) -> Result<Option<(u64, usize)>, Wrong> {
    let mut value = 0;
    for (count, byte) in data.get(at..).unwrap_or_default().iter().enumerate() {
        if count == 10 {
            return Err(Wrong::Damaged);
        }
        value |= u64::from(byte & 0x7f) << (7 * count);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + count + 1)));
        }
    }
    Ok(None)
}

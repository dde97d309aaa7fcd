//! How a task is named, and the digits that names are written in.

use std::{fmt, str::FromStr};

use crate::base32;

/// Names one task of one store.
///
/// `number` counts submissions from 1 and orders them; `tag` is 40 bits that the
/// store derives from the number with a key of its own, so that an identifier of
/// another store, or a guessed one, is recognised. Written as `t`, the number in
/// Crockford's base 32, then the tag in exactly eight characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    number: u64,
    tag: u64,
}

impl TaskId {
    /// Bits of a tag.
    pub const TAG_BITS: u32 = 40;

    /// Puts an identifier together; bits of `tag` beyond [`Self::TAG_BITS`] are dropped.
    #[must_use]
    pub fn new(number: u64, tag: u64) -> Self {
        Self { number, tag: tag & ((1 << Self::TAG_BITS) - 1) }
    }

    /// The task's place in the order of submission, from 1.
    #[must_use]
    pub fn number(self) -> u64 {
        self.number
    }
}

const TAG_CHARS: usize = 8;

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 1 + base32::MAX_U64_CHARS + TAG_CHARS];
        text[0] = b't';
        let digits = base32::significant_chars(self.number);
        base32::write(self.number, &mut text[1..=digits]);
        base32::write(self.tag, &mut text[1 + digits..1 + digits + TAG_CHARS]);
        f.write_str(std::str::from_utf8(&text[..1 + digits + TAG_CHARS]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a task identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a task id: one looks like t1zq8x5kd7, with digits and small letters but no i, l, o or u; take it as it was given"
)]
pub struct NotATaskId;

impl FromStr for TaskId {
    type Err = NotATaskId;

    fn from_str(text: &str) -> Result<Self, NotATaskId> {
        let digits = text.strip_prefix('t').ok_or(NotATaskId)?.as_bytes();
        let split = digits.len().checked_sub(TAG_CHARS).ok_or(NotATaskId)?;
        let number = base32::read(&digits[..split]).ok_or(NotATaskId)?;
        let tag = base32::read(&digits[split..]).ok_or(NotATaskId)?;
        // One spelling only: no leading zeros, and no number beyond what SQL integers hold.
        if split != base32::significant_chars(number) || number == 0 || number > i64::MAX as u64 {
            return Err(NotATaskId);
        }
        Ok(Self { number, tag })
    }
}

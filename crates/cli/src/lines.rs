//! Reads lines of bounded length from a stream.
//!
//! Owns the bound: a line that is too long costs no memory and spoils only
//! itself. Must not know what the lines mean.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Bytes of the longest line that is read. Longer than any server accepts by
/// default: a message may have 4 MiB there.
pub const MAX_LINE: usize = 16 << 20;

/// What some editors begin a text with. It is not a part of the text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes; `None` if it was longer than the bound.
    pub bytes: Option<Vec<u8>>,
}

/// A reader of lines. Blank ones are counted and left out.
pub struct Lines<R> {
    reader: R,
    longest: usize,
    number: u64,
    partial: Vec<u8>,
    too_long: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads lines of up to `longest` bytes.
    pub fn new(reader: R, longest: usize) -> Self {
        Self { reader, longest, number: 0, partial: Vec::new(), too_long: false }
    }

    /// The next line; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As the reader.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            let (piece, used, ended) = match chunk.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&chunk[..end], end + 1, true),
                None => (chunk, chunk.len(), chunk.is_empty()),
            };
            if self.partial.len() + piece.len() > self.longest {
                self.too_long = true;
                self.partial.clear();
            } else if !self.too_long {
                self.partial.extend_from_slice(piece);
            }
            self.reader.consume(used);
            if ended {
                let at_the_end = used == 0;
                match self.finish() {
                    Some(line) => return Ok(Some(line)),
                    None if at_the_end => return Ok(None),
                    None => {}
                }
            }
        }
    }

    /// The line that has just ended, unless it is blank.
    fn finish(&mut self) -> Option<Line> {
        self.number += 1;
        let mut bytes = std::mem::take(&mut self.partial);
        if self.number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        if std::mem::take(&mut self.too_long) {
            return Some(Line { number: self.number, bytes: None });
        }
        let blank = bytes.iter().all(u8::is_ascii_whitespace);
        (!blank).then_some(Line { number: self.number, bytes: Some(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    async fn read(text: &str) -> Vec<(u64, Option<String>)> {
        // A buffer of 3 bytes, so that lines come in pieces.
        let mut lines = Lines::new(BufReader::with_capacity(3, text.as_bytes()), 8);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.expect("memory does not fail") {
            let text = line.bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            all.push((line.number, text));
        }
        all
    }

    #[tokio::test]
    async fn lines_are_numbered_and_blank_ones_left_out() {
        let lines = read("one\n\n  \r\ntwo\nlast").await;
        let expected = [(1, "one"), (4, "two"), (5, "last")];
        assert_eq!(lines, expected.map(|(number, text)| (number, Some(text.to_owned()))));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_spoils_only_itself() {
        let lines = read("12345678\n123456789012345\nok\n123456789").await;
        let expected =
            [(1, Some("12345678".to_owned())), (2, None), (3, Some("ok".to_owned())), (4, None)];
        assert_eq!(lines, expected);
    }

    #[tokio::test]
    async fn a_byte_order_mark_begins_a_text_and_is_none_of_it() {
        let one = |text: &str| (1, Some(text.to_owned()));
        assert_eq!(read("\u{feff}one").await, [one("one")]);
        assert_eq!(read("\u{feff}\ntwo").await, [(2, Some("two".to_owned()))]);
        assert_eq!(read("a\n\u{feff}b").await[1], (2, Some("\u{feff}b".to_owned())));
        assert!(read("\u{feff}").await.is_empty());
    }

    #[tokio::test]
    async fn an_empty_input_has_no_lines() {
        assert!(read("").await.is_empty());
        assert!(read("\n\n").await.is_empty());
    }
}

//! What a process prints, within bounds.
//!
//! Owns what is kept, what is dropped, and how it is told in the result. Must
//! not know processes.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes kept of the end, for messages; within what a failure's message holds.
const TAIL: usize = 768;

/// Lines of the end that a message holds.
const MAX_LINES: usize = 5;

/// The beginning of a stream, and its last bytes.
#[derive(Debug, Default)]
pub struct Capture {
    limit: usize,
    kept: Vec<u8>,
    /// At least the last bytes, if there were so many: [`TAIL`], and as many as the limit;
    /// at most twice as many.
    tail: Vec<u8>,
    dropped: u64,
}

impl Capture {
    /// Keeps the first `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Reads a stream to its end. What is beyond the limit is read too, so that
    /// the writer is not held up. A failing stream counts as ended.
    pub async fn read(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut chunk = vec![0; 16 << 10];
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            self.take(&chunk[..length]);
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        let room = (self.limit - self.kept.len()).min(chunk.len());
        self.kept.extend_from_slice(&chunk[..room]);
        self.dropped += (chunk.len() - room) as u64;
        let tail = self.limit.max(TAIL);
        self.tail.extend_from_slice(&chunk[chunk.len().saturating_sub(tail)..]);
        if self.tail.len() > 2 * tail {
            self.tail.drain(..self.tail.len() - tail);
        }
    }

    /// The last bytes, as many as the limit, and how many came before them.
    pub fn end(&self) -> (Bytes, u64) {
        let end = &self.tail[self.tail.len().saturating_sub(self.limit)..];
        let all = self.kept.len() as u64 + self.dropped;
        (Bytes::copy_from_slice(end), all - end.len() as u64)
    }

    /// Adds what was printed to a result, under the stream's `name`.
    pub fn describe(&self, name: &str, result: &mut Map<String, Value>) {
        let cut = if self.dropped > 0 { incomplete_end(&self.kept) } else { 0 };
        let text = String::from_utf8_lossy(&self.kept[..self.kept.len() - cut]);
        let dropped = self.dropped + cut as u64;
        if matches!(text, std::borrow::Cow::Owned(_)) {
            result.insert(format!("{name}_not_utf8"), json!(true));
        }
        result.insert(name.to_owned(), json!(text));
        result.insert(format!("{name}_truncated"), json!(dropped > 0));
        if dropped > 0 {
            result.insert(format!("{name}_dropped_bytes"), json!(dropped));
        }
    }

    /// The last lines that are not empty, within the bounds of a message; empty
    /// if there is none.
    pub fn last_lines(&self) -> String {
        let tail = &self.tail[self.tail.len().saturating_sub(TAIL)..];
        let text = String::from_utf8_lossy(tail);
        let mut lines = text.lines().map(str::trim_end).filter(|line| !line.trim().is_empty());
        // A tail that is not everything begins within a line; that one is told
        // only if there is no other.
        let is_everything = self.kept.len() as u64 + self.dropped <= TAIL as u64;
        let partial = if is_everything { None } else { lines.next() };
        let lines = lines.collect::<Vec<_>>();
        match lines.len() {
            0 => partial.unwrap_or_default().into(),
            count => lines[count.saturating_sub(MAX_LINES)..].join("\n"),
        }
    }
}

/// Bytes at the end that begin a character and do not complete it.
fn incomplete_end(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last() {
        Some(chunk) if is_incomplete(chunk.invalid()) => chunk.invalid().len(),
        _ => 0,
    }
}

fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(limit: usize, chunks: &[&[u8]]) -> Capture {
        let mut capture = Capture::new(limit);
        for chunk in chunks {
            capture.take(chunk);
        }
        capture
    }

    fn described(capture: &Capture) -> Value {
        let mut result = Map::new();
        capture.describe("out", &mut result);
        Value::Object(result)
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let result = described(&captured(4, &[b"ab", b"cd"]));
        assert_eq!(result, json!({"out": "abcd", "out_truncated": false}));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let result = described(&captured(3, &[b"ab", b"cd", b"ef"]));
        assert_eq!(result, json!({"out": "abc", "out_truncated": true, "out_dropped_bytes": 3}));
    }

    #[test]
    fn the_end_is_as_long_as_the_limit() {
        assert_eq!(captured(9, &[b"ab", b"cd"]).end(), (Bytes::from_static(b"abcd"), 0));
        assert_eq!(captured(3, &[b"ab", b"cd", b"ef"]).end(), (Bytes::from_static(b"def"), 3));
        let many = [b'x'; 5000];
        assert_eq!(captured(2, &[&many, b"yz"]).end(), (Bytes::from_static(b"yz"), 5000));
        assert_eq!(captured(0, &[b"ab"]).end(), (Bytes::new(), 2));
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let result = described(&captured(4, &["aé€".as_bytes()]));
        assert_eq!(result, json!({"out": "aé", "out_truncated": true, "out_dropped_bytes": 3}));
    }

    #[test]
    fn invalid_bytes_are_replaced_and_that_is_said() {
        let result = described(&captured(9, &[b"a\xff\xe2\x82"]));
        assert_eq!(result["out"], "a\u{fffd}\u{fffd}");
        assert_eq!(result["out_not_utf8"], true);
        assert_eq!(result["out_truncated"], false);
    }

    #[test]
    fn the_last_lines_are_told_even_if_the_limit_was_reached_before() {
        let noise = [b'x'; 5000];
        let capture = captured(0, &[&noise, b"\n\none\n\ntwo  \n\n"]);
        assert_eq!(capture.last_lines(), "one\ntwo");
        assert_eq!(captured(0, &[b"1\n2\n3\n4\n5\n6\n"]).last_lines(), "2\n3\n4\n5\n6");
        assert_eq!(captured(0, &[b"\n \n"]).last_lines(), "");
        assert_eq!(captured(0, &[&noise]).last_lines().len(), TAIL);
    }
}

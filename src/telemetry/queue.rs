//! The lines that wait to be written to the log, and the one thread that writes them.
//!
//! Owns the bound of what waits and the count of what was dropped. Whoever logs only
//! appends to a buffer, under a lock that is never held while something is written: a
//! log that is full, broken or not read holds nobody up and ends nobody. Must not know
//! what a line says, or use `tracing`, which would come back here.

use std::{
    io::{self, ErrorKind, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Bytes of lines that wait to be written; as many are being written at most. Further
/// lines are dropped and counted.
pub const MAX_WAITING: usize = 1 << 20;

/// How often it is tried to tell of dropped lines while no others come.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often a log that takes nothing at the moment, and does not make its writers wait,
/// is asked again.
const LOOK: Duration = Duration::from_millis(20);

/// How the line looks that tells of dropped ones.
pub type Notice = fn(dropped: u64) -> String;

/// The queue's end for those who log. Clones are the same queue.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something waits for the writer.
    work: Condvar,
    /// The writer has written what it had.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, one after the other.
    waiting: Vec<u8>,
    /// Lines that were lost and not told yet.
    dropped: u64,
    is_writing: bool,
}

/// What the writer is to write.
struct Batch {
    lines: Vec<u8>,
    dropped: u64,
}

impl Queue {
    /// Begins to write what is pushed to `sink`, on a thread that is never joined: it may
    /// hang for as long as the sink does.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(sink: impl Write + Send + 'static, notice: Notice) -> io::Result<Self> {
        let queue = Self::default();
        let mut writer = Writer { queue: queue.clone(), sink, notice, is_torn: false, at_stake: 0 };
        thread::Builder::new().name("log".into()).spawn(move || {
            crate::process::hear_no_signals();
            loop {
                // A server without its log would be blind: whatever happens here, it goes on.
                let written = catch_unwind(AssertUnwindSafe(|| writer.write_next()));
                if written.is_err() {
                    writer.is_torn = true;
                    writer.queue.wrote(writer.at_stake);
                }
            }
        })?;
        Ok(queue)
    }

    /// Adds a line, which ends with a line feed; drops and counts it if there is no room.
    /// Never waits for the log.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.waiting.len() + line.len() > MAX_WAITING {
            state.dropped += 1;
        } else {
            state.waiting.extend_from_slice(line);
        }
        drop(state);
        self.0.work.notify_one();
    }

    /// Waits until what was pushed has been written or lost, at most for `limit`. Tells
    /// whether it was so.
    pub fn flush(&self, limit: Duration) -> bool {
        let state = self.state();
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let waited = self.0.written.wait_timeout_while(state, limit, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write.
    fn take(&self) -> Batch {
        let since = Instant::now();
        let mut state = self.state();
        while state.waiting.is_empty() && (state.dropped == 0 || since.elapsed() < TRY_AGAIN) {
            let waited = self.0.work.wait_timeout(state, TRY_AGAIN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_writing = true;
        Batch {
            lines: std::mem::take(&mut state.waiting),
            dropped: std::mem::take(&mut state.dropped),
        }
    }

    fn wrote(&self, lost: u64) {
        let mut state = self.state();
        state.dropped += lost;
        state.is_writing = false;
        drop(state);
        self.0.written.notify_all();
    }
}

/// Takes a line at each call of `write`, as `tracing_subscriber` calls it.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<W> {
    queue: Queue,
    sink: W,
    notice: Notice,
    /// The last line that was written is not whole.
    is_torn: bool,
    /// Lines that are lost if writing ends without a word.
    at_stake: u64,
}

impl<W: Write> Writer<W> {
    fn write_next(&mut self) {
        let Batch { lines, dropped } = self.queue.take();
        self.at_stake = dropped + count(&lines);
        crate::failpoint::hit("log");
        let mut lost = dropped;
        let told = dropped == 0 || {
            let notice = (self.notice)(dropped);
            self.write(notice.as_bytes()) == notice.len()
        };
        if told {
            let written = self.write(&lines);
            lost = count(&lines[written..]);
        } else {
            lost += count(&lines);
        }
        self.queue.wrote(lost);
    }

    /// Writes all of it, or up to the first failure; returns how much.
    fn write(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() || (self.is_torn && !self.end_line()) {
            return 0;
        }
        let mut written = 0;
        while written < bytes.len() {
            match self.sink.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                // A full disk, a reader that has gone: the next lines are tried again.
                Err(_) => break,
            }
        }
        self.is_torn = written > 0 && bytes[written - 1] != b'\n';
        written
    }

    fn end_line(&mut self) -> bool {
        self.is_torn = !matches!(self.sink.write(b"\n"), Ok(1));
        !self.is_torn
    }
}

/// Lines in it, one that has lost its beginning included.
fn count(lines: &[u8]) -> u64 {
    lines.split(|byte| *byte == b'\n').count() as u64 - 1
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// What the sink says to each write, in turn; then it takes everything.
    enum Says {
        Takes(usize),
        Fails(ErrorKind),
        Panics,
        /// Until the test says something.
        Waits(mpsc::Receiver<()>),
    }

    struct Sink {
        script: std::vec::IntoIter<Says>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = match self.script.next() {
                Some(Says::Fails(kind)) => return Err(kind.into()),
                Some(Says::Panics) => panic!("as the test says"),
                Some(Says::Takes(length)) => length.min(bytes.len()),
                Some(Says::Waits(until)) => {
                    until.recv().expect("the test goes on");
                    bytes.len()
                }
                None => bytes.len(),
            };
            self.written.lock().unwrap().extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started(script: Vec<Says>) -> (Queue, Arc<Mutex<Vec<u8>>>) {
        let written = Arc::default();
        let sink = Sink { script: script.into_iter(), written: Arc::clone(&written) };
        let queue = Queue::start(sink, |dropped| format!("{dropped} lost\n")).unwrap();
        (queue, written)
    }

    /// All that was written, once it ends with `end`.
    fn until(written: &Mutex<Vec<u8>>, end: &str) -> String {
        let began = Instant::now();
        loop {
            let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
            if text.ends_with(end) {
                return text;
            }
            assert!(began.elapsed() < PATIENCE, "it has only {text:?}");
            thread::yield_now();
        }
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let interrupted = Says::Fails(ErrorKind::Interrupted);
        let busy = Says::Fails(ErrorKind::WouldBlock);
        let (queue, written) = started(vec![Says::Takes(1), interrupted, busy, Says::Takes(2)]);
        queue.push(b"one\n");
        queue.push(b"two\n");
        assert!(queue.flush(PATIENCE));
        assert_eq!(until(&written, "two\n"), "one\ntwo\n");
    }

    #[test]
    fn a_line_that_failed_is_told_before_the_next_and_by_itself() {
        let (queue, written) = started(vec![Says::Fails(ErrorKind::BrokenPipe)]);
        queue.push(b"one\n");
        assert_eq!(until(&written, "lost\n"), "1 lost\n");
        queue.push(b"two\n");
        assert_eq!(until(&written, "two\n"), "1 lost\ntwo\n");
    }

    #[test]
    fn a_panic_costs_what_was_being_written_and_is_told() {
        let (queue, written) = started(vec![Says::Panics]);
        queue.push(b"one\n");
        assert_eq!(until(&written, "lost\n"), "\n1 lost\n", "it may have been written in part");
        queue.push(b"two\n");
        assert_eq!(until(&written, "two\n"), "\n1 lost\ntwo\n");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let full = || Says::Fails(ErrorKind::StorageFull);
        let (queue, written) = started(vec![Says::Takes(2), full(), full()]);
        queue.push(b"one\n");
        assert_eq!(until(&written, "lost\n"), "on\n1 lost\n");
    }

    #[test]
    fn a_sink_that_hangs_holds_up_nobody_and_lines_beyond_the_bound_are_counted() {
        let (go_on, until_then) = mpsc::channel();
        let (queue, written) = started(vec![Says::Waits(until_then)]);
        queue.push(b"first\n");
        assert!(!queue.flush(Duration::from_millis(1)));
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let pushed = MAX_WAITING / line.len() + 10;
        for _ in 0..pushed {
            queue.push(&line);
        }
        assert!(queue.state().waiting.len() <= MAX_WAITING);
        go_on.send(()).unwrap();
        assert!(queue.flush(PATIENCE));
        let text = until(&written, "\n");
        let told: u64 = text
            .lines()
            .filter_map(|line| line.strip_suffix(" lost"))
            .map(|number| number.parse::<u64>().unwrap())
            .sum();
        let whole = text.lines().filter(|line| line.len() == 999).count();
        assert_eq!(whole as u64 + told, pushed as u64, "{told} told");
        assert!(told >= 9);
    }
}

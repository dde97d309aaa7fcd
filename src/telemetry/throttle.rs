//! At most one line a second of those that somebody else can cause at will.
//!
//! Owns the counting of what is left out, and that it is told. Must not know what the
//! lines say.

use std::{
    collections::VecDeque,
    panic::catch_unwind,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::warn;

/// Time between two lines of a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// The lines of one kind. Is a static beside the place that writes them:
///
/// ```ignore
/// static REFUSED: Throttle = Throttle::new("connections were refused");
/// REFUSED.line(|left_out| warn!(%peer, left_out, "a connection is refused"));
/// ```
#[derive(Debug)]
pub struct Throttle {
    /// What a line that tells only of those left out says has happened.
    what: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    left_out: u64,
    /// Somebody will tell of those that are left out though no further one comes.
    is_watched: bool,
}

impl Throttle {
    /// For lines about what `what` says: "connections were refused".
    pub const fn new(what: &'static str) -> Self {
        Self { what, state: Mutex::new(State { last: None, left_out: 0, is_watched: false }) }
    }

    /// Writes a line with `write`, which is given how many were left out before it, or
    /// leaves this one out too. Never waits.
    pub fn line(&'static self, write: impl FnOnce(u64)) {
        let now = Instant::now();
        let mut state = self.state();
        if state.last.is_none_or(|last| now - last >= INTERVAL) {
            state.last = Some(now);
            let left_out = std::mem::take(&mut state.left_out);
            drop(state);
            return write(left_out);
        }
        state.left_out += 1;
        if !std::mem::replace(&mut state.is_watched, true) {
            drop(state);
            watched().push_back(self);
        }
    }

    /// Tells of those that were left out, if it is time to or `at_once`; whether none is
    /// left then.
    fn tell(&self, now: Instant, at_once: bool) -> bool {
        let mut state = self.state();
        if !at_once && state.last.is_some_and(|last| now - last < INTERVAL) {
            return false;
        }
        state.is_watched = false;
        let left_out = std::mem::take(&mut state.left_out);
        if left_out > 0 {
            state.last = Some(now);
            drop(state);
            warn!(left_out, "{}", self.what);
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that have left something out: at most each static once.
static WATCHED: Mutex<VecDeque<&Throttle>> = Mutex::new(VecDeque::new());

fn watched() -> MutexGuard<'static, VecDeque<&'static Throttle>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of what was left out and is due; of all of it if `at_once`.
pub fn tell(at_once: bool) {
    let now = Instant::now();
    let count = watched().len();
    // One after the other, so that a panic costs no more than the one that it met.
    for _ in 0..count {
        let next = watched().pop_front();
        let Some(throttle) = next else { break };
        if !throttle.tell(now, at_once) {
            watched().push_back(throttle);
        }
    }
}

/// Starts the thread that tells of what was left out when no further line comes.
///
/// # Errors
/// The system has no thread for it.
pub fn start() -> std::io::Result<()> {
    let tell = || {
        loop {
            thread::sleep(INTERVAL);
            // Its panic is a line of the log; what is left out later is told all the same.
            drop(catch_unwind(|| {
                crate::failpoint::hit("log-throttle");
                tell(false);
            }));
        }
    };
    thread::Builder::new().name("log-throttle".into()).spawn(tell).map(drop)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn one_line_is_written_and_the_others_are_counted() {
        static THROTTLE: Throttle = Throttle::new("things happened");
        let lines = RefCell::new(Vec::new());
        let happens = || THROTTLE.line(|left_out| lines.borrow_mut().push(left_out));
        for _ in 0..1_000 {
            happens();
        }
        let first = lines.borrow().len() as u64;
        let (told, left) = (lines.borrow().iter().sum::<u64>(), THROTTLE.state().left_out);
        assert_eq!(first + told + left, 1_000);
        // One, and one more for each second that this took.
        assert!(first <= 1 + THROTTLE.state().last.map_or(0, |last| last.elapsed().as_secs()) + 30);
        THROTTLE.state().last = Instant::now().checked_sub(INTERVAL);
        happens();
        assert_eq!(lines.borrow().last(), Some(&left), "the next line tells of them");
    }

    #[test]
    fn what_was_left_out_is_told_though_no_further_line_comes() {
        static THROTTLE: Throttle = Throttle::new("other things happened");
        THROTTLE.line(drop);
        THROTTLE.line(drop);
        let now = Instant::now();
        assert!(!THROTTLE.tell(now, false), "not before its time");
        assert!(THROTTLE.tell(now + INTERVAL, false));
        assert_eq!(THROTTLE.state().left_out, 0);
    }

    /// A log that cannot be written to, in its own way.
    struct Broken;

    impl tracing::Subscriber for Broken {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            panic!("it is broken");
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn one_that_panics_makes_no_other_forgotten() {
        static ONES: [Throttle; 3] = [
            Throttle::new("the first happened"),
            Throttle::new("the second happened"),
            Throttle::new("the third happened"),
        ];
        for throttle in &ONES {
            throttle.line(drop);
            throttle.line(drop);
        }
        let left = || ONES.iter().filter(|throttle| throttle.state().left_out > 0).count();
        assert_eq!(left(), 3);
        tracing::subscriber::with_default(Broken, || {
            // Those of other tests may be among them.
            while catch_unwind(|| tell(true)).is_ok() {
                assert!(left() > 0, "no panic is met");
            }
        });
        assert_eq!(left(), 2, "the others are told of later");
        tell(true);
        assert_eq!(left(), 0);
    }
}

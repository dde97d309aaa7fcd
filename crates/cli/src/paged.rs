//! Changing many tasks on the server, a step at a time.
//!
//! Owns the going on from step to step, the waiting while a queue is full, and the
//! progress line. Must not know what a step does to a task.

use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;
use taskyard_client::{Pushback, backoff, pushback};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    exit::Exit,
    interrupt::CtrlC,
    output::{Format, note, print, printable},
    problem::Problem,
    units::{count, counted, span},
};

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Tasks that it changed.
    pub changed: u64,
    /// Where to go on; empty when every task was looked at.
    pub next: String,
    /// The queue whose want of room ended it; empty if none did.
    pub full: String,
}

/// Says how many tasks a step had to leave as they are.
pub fn say_damaged(tasks: u32) {
    if tasks > 0 {
        let tasks = counted(tasks.into(), "damaged task");
        note(format!(
            "{tasks} passed over: what the disk has of them cannot be read; list names them"
        ));
    }
}

/// How all of it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Every task was looked at.
    Done,
    /// A queue was full, and there was no more waiting; its name, if the server
    /// told it.
    Full(String),
    /// The server, or the way to it, failed.
    Failed(Problem),
}

/// Goes from step to step, and counts. A full queue is waited for until `room_timeout`
/// has passed without a task finding room.
///
/// `step` is given the token to go on with, and has to be safe to repeat.
pub async fn all<Answer>(
    mut step: impl FnMut(String) -> Answer,
    room_timeout: Duration,
    changed: &mut u64,
    mut progress: impl FnMut(u64, &str),
) -> End
where
    Answer: Future<Output = Result<Step, Status>>,
{
    let mut token = String::new();
    let mut waits = 0;
    let mut waiting_since = Instant::now();
    loop {
        let (full, rest) = match step(token.clone()).await {
            Ok(step) => {
                if step.changed > 0 {
                    (waits, waiting_since) = (0, Instant::now());
                }
                *changed += step.changed;
                token = step.next;
                if token.is_empty() {
                    return End::Done;
                }
                if step.full.is_empty() {
                    progress(*changed, "");
                    continue;
                }
                (step.full, None)
            }
            Err(status) if is_full(&status) => (full_queue(&status), asked_backoff(&status)),
            Err(status) => return End::Failed(status.into()),
        };
        if waiting_since.elapsed() >= room_timeout {
            return End::Full(full);
        }
        waits += 1;
        progress(*changed, &full);
        let left = room_timeout.saturating_sub(waiting_since.elapsed());
        tokio::time::sleep(rest.unwrap_or_else(|| backoff(waits)).min(left)).await;
    }
}

/// Does all of it until the end or Ctrl-C, shows how far it is, and prints how many
/// tasks it were: `verb` is what was done to them, such as `redriven`.
///
/// # Errors
/// What the server answers, once the count is printed.
pub async fn run<Answer>(
    step: impl FnMut(String) -> Answer,
    room_timeout: Duration,
    verb: &'static str,
    format: Format,
) -> Result<Exit, Problem>
where
    Answer: Future<Output = Result<Step, Status>>,
{
    let mut ctrl_c = CtrlC::listen()?;
    let progress = Progress::new(verb);
    let mut changed = 0;
    let end = tokio::select! {
        biased;
        () = ctrl_c.pressed() => None,
        end = all(step, room_timeout, &mut changed, |n, full| progress.show(n, full)) => Some(end),
    };
    progress.clear();
    let complete = end == Some(End::Done);
    print(match format {
        Format::Text => format!("{} {verb}", counted(changed, "task")),
        Format::Json => json!({ verb: changed, "complete": complete }).to_string(),
    })?;
    match end {
        None => Ok(Exit::Interrupted),
        Some(End::Done) => Ok(Exit::Ok),
        Some(End::Failed(problem)) => Err(problem),
        Some(End::Full(queue)) => Err(no_room(&queue, room_timeout)),
    }
}

/// What is told when there was no more waiting for room.
pub fn no_room(queue: &str, room_timeout: Duration) -> Problem {
    let queue = queue_words(queue);
    if room_timeout.is_zero() {
        return Problem::new(Exit::Full, format!("{queue} is full"))
            .hint("run it again later for the rest, or without --no-wait");
    }
    let waited = span(room_timeout);
    Problem::new(Exit::TimedOut, format!("{queue} had no room for {waited}"))
        .hint("run it again later")
}

/// Whether the server says that a queue has no room.
pub fn is_full(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason);
    status.code() == Code::ResourceExhausted && reason.as_deref() == Some("QUEUE_FULL")
}

/// How long the server asks to rest before another try.
pub fn asked_backoff(status: &Status) -> Option<Duration> {
    match pushback(status) {
        Pushback::After(rest) => Some(rest.max(Duration::from_millis(10))),
        Pushback::Unsaid | Pushback::Never => None,
    }
}

/// The queue that the status is about, if it says so.
pub fn full_queue(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.and_then(|info| info.metadata.get("queue").cloned()).unwrap_or_default()
}

/// A queue's name in a sentence: `the queue "mail"`, or `a queue` if it is unknown.
pub fn queue_words(queue: &str) -> String {
    if queue.is_empty() { "a queue".into() } else { format!("the queue {:?}", printable(queue)) }
}

/// The line on stderr that tells how far it is; only where that is a terminal.
pub struct Progress {
    bar: ProgressBar,
    /// What is done to the tasks: `redriven`.
    verb: &'static str,
}

impl Progress {
    /// Begins at zero.
    pub fn new(verb: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        let progress = Self { bar, verb };
        progress.show(0, "");
        progress
    }

    /// Shows how many are done, and which queue is being waited for.
    pub fn show(&self, changed: u64, full: &str) {
        self.bar.set_message(progress_words(self.verb, changed, full));
    }

    /// Leaves the terminal as it was.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn progress_words(verb: &str, changed: u64, full: &str) -> String {
    let done = format!("{} {verb}", count(changed));
    if full.is_empty() {
        done
    } else {
        format!("{done}, waiting for room in {}", queue_words(full))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tonic_types::ErrorDetails;

    use super::*;

    fn step(changed: u64, next: &str, full: &str) -> Step {
        Step { changed, next: next.into(), full: full.into() }
    }

    fn queue_full(queue: &str) -> Status {
        let metadata = [("queue".to_owned(), queue.to_owned())];
        let details = ErrorDetails::with_error_info("QUEUE_FULL", "taskyard", metadata);
        Status::with_error_details(Code::ResourceExhausted, "full", details)
    }

    /// Plays the answers, and returns the end, the count, and the tokens sent.
    async fn play(
        answers: impl IntoIterator<Item = Result<Step, Status>>,
        room_timeout: Duration,
    ) -> (End, u64, Vec<String>) {
        let mut answers: VecDeque<_> = answers.into_iter().collect();
        let (mut tokens, mut changed) = (Vec::new(), 0);
        let call = |token| {
            tokens.push(token);
            let last = || Err(queue_full("mail"));
            std::future::ready(answers.pop_front().unwrap_or_else(last))
        };
        let end = all(call, room_timeout, &mut changed, |_, _| {}).await;
        (end, changed, tokens)
    }

    #[tokio::test]
    async fn it_goes_on_to_the_last_page() {
        let answers = [Ok(step(1_000, "a", "")), Ok(step(0, "b", "")), Ok(step(7, "", ""))];
        let (end, changed, tokens) = play(answers, Duration::ZERO).await;
        assert_eq!((end, changed), (End::Done, 1_007));
        assert_eq!(tokens, ["", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_is_waited_for_and_nothing_is_skipped() {
        let answers = [
            Ok(step(3, "a", "mail")),
            Err(queue_full("mail")),
            Ok(step(0, "a", "mail")),
            Ok(step(2, "", "")),
        ];
        let (end, changed, tokens) = play(answers, Duration::from_mins(1)).await;
        assert_eq!((end, changed), (End::Done, 5));
        assert_eq!(tokens, ["", "a", "a", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_waiting_has_an_end_counted_from_the_last_progress() {
        let start = Instant::now();
        let (end, changed, _) = play([Ok(step(3, "a", "mail"))], Duration::from_mins(1)).await;
        assert_eq!((end, changed), (End::Full("mail".into()), 3));
        assert_eq!(start.elapsed(), Duration::from_mins(1));
    }

    #[tokio::test]
    async fn without_a_room_timeout_a_full_queue_is_the_end() {
        let (end, changed, tokens) = play([Ok(step(3, "a", "mail"))], Duration::ZERO).await;
        assert_eq!((end, changed, tokens.len()), (End::Full("mail".into()), 3, 1));
        let (end, ..) = play([Err(queue_full("mail"))], Duration::ZERO).await;
        assert_eq!(end, End::Full("mail".into()));
    }

    #[tokio::test]
    async fn another_error_ends_it_with_what_was_done() {
        let answers = [Ok(step(3, "a", "")), Err(Status::invalid_argument("no"))];
        let (end, changed, _) = play(answers, Duration::from_mins(1)).await;
        assert_eq!((end, changed), (End::Failed(Status::invalid_argument("no").into()), 3));
        // Another bound than a queue's is not waited for.
        let (end, ..) = play([Err(Status::resource_exhausted("no"))], Duration::from_mins(1)).await;
        assert!(matches!(end, End::Failed(_)), "{end:?}");
    }

    #[test]
    fn no_room_is_5_at_once_and_6_after_waiting() {
        let at_once = no_room("mail", Duration::ZERO);
        assert_eq!(at_once.exit(), Exit::Full);
        assert!(at_once.message().starts_with("the queue \"mail\" is full\n"), "{at_once:?}");
        let later = no_room("", Duration::from_mins(1));
        assert_eq!(later.exit(), Exit::TimedOut);
        assert!(later.message().starts_with("a queue had no room for 1 min 00 s"), "{later:?}");
    }

    #[test]
    fn the_progress_tells_what_is_waited_for() {
        assert_eq!(progress_words("redriven", 1_234, ""), "1,234 redriven");
        assert_eq!(
            progress_words("redriven", 3, "mail"),
            "3 redriven, waiting for room in the queue \"mail\""
        );
    }
}

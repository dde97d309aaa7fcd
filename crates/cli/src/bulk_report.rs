//! What `submit --from` tells while it works and at its end.
//!
//! Owns the lines on stdout and stderr, the progress bar, and the exit code.
//! Must not know how tasks are submitted or followed.

use std::{fmt::Write as _, path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use taskyard_proto::v1::{SubmitResponse, TaskState};
use tokio::time::Instant;

use super::{
    exit::Exit,
    output::{self, Format, Out, printable, stdout_is_terminal},
    problem::Problem,
    program,
    render::end_text,
    submit::accepted_json,
    tally::{Counts, Ending, Tally},
    units::{count, counted, span},
};

/// The teller.
pub struct Report {
    out: Out,
    format: Format,
    bar: ProgressBar,
    start: Instant,
    lines: Lines,
}

/// What became of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    accepted: u64,
    existing: u64,
    refused: u64,
}

impl Report {
    /// Begins; the bar shows only where stderr is a terminal.
    pub fn new(format: Format, start: Instant) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style("{spinner:.cyan} {msg}  {elapsed:.dim}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { out: Out::stdout(), format, bar, start, lines: Lines::default() }
    }

    /// A line became a task.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn accepted(&mut self, line: u64, accepted: &SubmitResponse) -> Result<(), Problem> {
        self.lines.accepted += 1;
        self.lines.existing += u64::from(accepted.existing);
        match self.format {
            Format::Text => self.print(&accepted.task_id),
            Format::Json => {
                let mut value = accepted_json(accepted);
                value["line"] = line.into();
                self.print(&value.to_string())
            }
        }
    }

    /// A line did not become a task.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn refused(&mut self, line: u64, why: &str) -> Result<(), Problem> {
        self.lines.refused += 1;
        self.bar.suspend(|| output::error(&format!("line {line}: {why}")));
        match self.format {
            Format::Text => Ok(()),
            Format::Json => self.print(&json!({ "line": line, "error": why }).to_string()),
        }
    }

    /// A task ended. Only those that did not succeed are worth a line.
    pub fn ended(&mut self, ending: &Ending) {
        if ending.state == TaskState::Succeeded {
            return;
        }
        let Ending { line, task_id, .. } = ending;
        let end = end_text(ending.state, ending.error.as_ref());
        let told = format!("line {line}: task {} {end}", printable(task_id));
        self.bar.suspend(|| output::error(&told));
    }

    /// Something else to know.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    fn print(&mut self, text: &str) -> Result<(), Problem> {
        let Self { out, bar, .. } = self;
        let mut print = || {
            out.line(text)?;
            out.flush()
        };
        if stdout_is_terminal() { bar.suspend(print) } else { print() }
    }

    /// Moves the bar. Once all lines are read and their tasks are followed, it
    /// has an end.
    pub fn progress(&self, tally: &Tally, to_an_end: bool) {
        if self.bar.is_hidden() {
            return;
        }
        let counts = tally.counts();
        if to_an_end && self.bar.length().is_none() {
            self.bar.set_style(style("{bar:32.cyan/dim} {msg}  {elapsed:.dim}"));
            self.bar.set_length(counts.ended() + tally.open());
        }
        if to_an_end {
            self.bar.set_length(counts.ended() + tally.open());
            self.bar.set_position(counts.ended());
        }
        self.bar.set_message(progress_words(self.lines, counts));
    }

    /// Lines that did not become tasks.
    pub fn refused_lines(&self) -> u64 {
        self.lines.refused
    }

    /// The last word, on stderr.
    pub fn summary(&mut self, tally: &Tally, waited: bool) {
        self.bar.finish_and_clear();
        let open = waited.then(|| tally.open());
        output::note(summary_words(self.lines, tally.counts(), open, self.start.elapsed()));
    }

    /// How the process ends, when nothing else went wrong.
    pub fn exit(&self, counts: Counts) -> Exit {
        let well = self.lines.refused == 0 && counts.failed == 0 && counts.cancelled == 0;
        if well { Exit::Ok } else { Exit::TaskFailed }
    }
}

/// Where it stopped.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// It did not stop early: some lines were refused.
    pub is_complete: bool,
    /// The last line whose answer is known, as are those of all before it.
    pub answered: u64,
    /// Lines behind it that may have become tasks.
    pub unknown: u64,
    /// There are no further lines.
    pub is_read: bool,
    /// The tasks were followed.
    pub wait: bool,
}

impl Stand {
    /// What to tell of it: where it stopped, and the command that goes on.
    pub fn words(self, file: &Path, prefix: &str) -> Vec<String> {
        let Self { is_complete, answered, unknown, is_read, wait } = self;
        let place = match answered {
            0 => "before the first answer".to_owned(),
            line if is_read && unknown == 0 => format!("after the last line, {}", count(line)),
            line => format!("after line {}", count(line)),
        };
        let unsure = match unknown {
            0 => String::new(),
            1 => "; the line after it may have become a task, too".to_owned(),
            more => format!("; of the {} lines after it each may have become a task", count(more)),
        };
        let wait = if wait { " --wait" } else { "" };
        let program = program::name();
        let (from, same) = if file.as_os_str() == "-" {
            ("-".to_owned(), ", given the same input")
        } else {
            (quoted_for_a_shell(&file.to_string_lossy()), "")
        };
        let prefix = quoted_for_a_shell(prefix);
        let command = format!("{program} submit --from {from} --request-id-prefix {prefix}{wait}");
        if is_complete {
            return vec![format!(
                "to submit what was refused, once it is mended in its place, and nothing \
                 twice{same}: {command}"
            )];
        }
        vec![
            format!("it stopped {place}{unsure}; what was submitted goes on"),
            format!("to go on, and submit nothing twice{same}: {command}"),
        ]
    }
}

/// A word as a shell takes it.
fn quoted_for_a_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return printable(word);
    }
    format!("'{}'", printable(word).replace('\'', r"'\''"))
}

/// A template of our own that is wrong shows as the plain bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

fn progress_words(lines: Lines, counts: Counts) -> String {
    let mut words = format!("{} submitted", count(lines.accepted));
    if lines.refused > 0 {
        let _ = write!(words, ", {} refused", count(lines.refused));
    }
    if counts.ended() > 0 {
        let _ = write!(words, ", {} finished", count(counts.ended()));
    }
    let bad = counts.failed + counts.cancelled;
    if bad > 0 {
        let _ = write!(words, ", {} failed", count(bad));
    }
    words
}

fn summary_words(lines: Lines, counts: Counts, open: Option<u64>, took: Duration) -> String {
    let mut words = format!("{} submitted", counted(lines.accepted, "task"));
    if lines.existing > 0 {
        let _ = write!(words, " ({} known before)", count(lines.existing));
    }
    if lines.refused > 0 {
        let _ = write!(words, ", {} refused", counted(lines.refused, "line"));
    }
    if let Some(open) = open {
        let _ = write!(words, "; {} succeeded", count(counts.succeeded));
        let others =
            [(counts.failed, "failed"), (counts.cancelled, "cancelled"), (open, "not ended")];
        for (number, what) in others.into_iter().filter(|(number, _)| *number > 0) {
            let _ = write!(words, ", {} {what}", count(number));
        }
    }
    let _ = write!(words, "; took {}", span(took));
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    let rate = lines.accepted as f64 / took.as_secs_f64().max(1e-6);
    if lines.accepted > 1 {
        let _ = write!(words, " ({rate:.0}/s)");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: Lines = Lines { accepted: 1_998, existing: 3, refused: 2 };

    #[test]
    fn the_summary_tells_what_became_of_every_line() {
        let counts = Counts { succeeded: 1_990, failed: 7, cancelled: 1 };
        assert_eq!(
            summary_words(LINES, counts, Some(0), Duration::from_secs(2)),
            "1,998 tasks submitted (3 known before), 2 lines refused; \
             1,990 succeeded, 7 failed, 1 cancelled; took 2.0 s (999/s)"
        );
        assert_eq!(
            summary_words(
                Lines { accepted: 1, ..Lines::default() },
                Counts::default(),
                None,
                Duration::from_millis(1)
            ),
            "1 task submitted; took 1.0 ms"
        );
    }

    #[test]
    fn where_it_stopped_and_how_to_go_on_is_told() {
        let stand =
            Stand { is_complete: false, answered: 1_234, unknown: 57, is_read: false, wait: true };
        assert_eq!(
            stand.words(Path::new("my tasks"), "orders-7"),
            [
                "it stopped after line 1,234; of the 57 lines after it each may have become a \
                 task; what was submitted goes on",
                "to go on, and submit nothing twice: \
                 taskyard submit --from 'my tasks' --request-id-prefix orders-7 --wait",
            ]
        );
        let stand = Stand { answered: 0, unknown: 1, is_read: true, wait: false, ..stand };
        let words = stand.words(Path::new("-"), "it's");
        assert!(words[0].starts_with("it stopped before the first answer; the line"), "{words:?}");
        let command = "the same input: taskyard submit --from - --request-id-prefix 'it'\\''s'";
        assert!(words[1].ends_with(command), "{words:?}");
        let words = Stand { is_complete: true, ..stand }.words(Path::new("a"), "p");
        assert_eq!(
            words,
            ["to submit what was refused, once it is mended in its place, and nothing twice: \
              taskyard submit --from a --request-id-prefix p"]
        );
    }

    #[test]
    fn the_bar_says_only_what_there_is() {
        let some = Lines { accepted: 5, ..Lines::default() };
        assert_eq!(progress_words(some, Counts::default()), "5 submitted");
        let counts = Counts { succeeded: 3, failed: 1, cancelled: 0 };
        assert_eq!(
            progress_words(LINES, counts),
            "1,998 submitted, 2 refused, 4 finished, 1 failed"
        );
    }

    #[tokio::test]
    async fn anything_that_went_wrong_shows_in_the_exit_code() {
        let mut report = Report::new(Format::Text, Instant::now());
        assert_eq!(report.exit(Counts { succeeded: 9, ..Counts::default() }), Exit::Ok);
        assert_eq!(report.exit(Counts { failed: 1, ..Counts::default() }), Exit::TaskFailed);
        report.lines.refused = 1;
        assert_eq!(report.exit(Counts::default()), Exit::TaskFailed);
    }
}

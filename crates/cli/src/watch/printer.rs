//! What is seen, as lines, and the cursor after the last of them.

use console::Style;
use taskyard_client::Batch;
use taskyard_domain::cursor::Cursor;
use taskyard_domain::event::Seq;
use taskyard_proto::v1::{Task, WatchGap, Worker};

use super::super::{
    json,
    output::{Format, Out, WideArgs, note},
    problem::Problem,
    render::{self, events::Room},
    units::{counted, now},
};

/// Prints up to a count of events, and knows the cursor to go on from.
pub struct Printer {
    out: Out,
    format: Format,
    left: u64,
    cursor: Option<String>,
    wide: Option<WideArgs>,
}

impl Printer {
    /// A printer of so many events.
    pub fn new(out: Out, format: Format, count: Option<u64>) -> Self {
        Self { out, format, left: count.unwrap_or(u64::MAX), cursor: None, wide: None }
    }

    /// Fits lines to the terminal, as wide as it then is.
    #[must_use]
    pub fn fitted(mut self, wide: WideArgs) -> Self {
        self.wide = Some(wide);
        self
    }

    fn room(&self) -> Room {
        let width = self.wide.and_then(WideArgs::room);
        Room { width, today: width.map(|_| now()) }
    }

    /// The cursor after what was printed, once there is one.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Everything up to this cursor is printed, or not wanted.
    pub fn is_at(&mut self, cursor: &str) {
        if !cursor.is_empty() {
            self.cursor = Some(cursor.to_owned());
        }
    }

    /// Prints a batch; whether the count is reached.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn events(&mut self, batch: &Batch) -> Result<bool, Problem> {
        let room = self.room();
        let mut last = batch.before.clone();
        for (place, event) in batch.events.iter().enumerate() {
            last = cursor_at(batch, place);
            self.out.line(match self.format {
                Format::Text => render::events::event_line(event, room),
                Format::Json => json::event(event, &last).to_string(),
            })?;
            self.left -= 1;
            if self.left == 0 {
                break;
            }
        }
        // What is not with its reader must not count as printed.
        self.out.flush()?;
        self.is_at(&last);
        Ok(self.left == 0)
    }

    /// Prints a part of a snapshot.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn snapshot(&mut self, tasks: Vec<Task>, workers: &[Worker]) -> Result<(), Problem> {
        let room = self.room();
        for worker in workers {
            self.out.line(match self.format {
                Format::Text => render::events::worker_line(worker, room),
                Format::Json => {
                    serde_json::json!({ "worker": json::admin::worker(worker) }).to_string()
                }
            })?;
        }
        for task in tasks {
            self.out.line(match self.format {
                Format::Text => render::events::task_line(&task, room),
                Format::Json => serde_json::json!({ "task": json::task(task) }).to_string(),
            })?;
        }
        self.out.flush()
    }

    /// A snapshot that was begun is void.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn snapshot_begun(&mut self) -> Result<(), Problem> {
        self.mark("snapshot_begun", "", "as it stands:")
    }

    /// The snapshot is complete.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn snapshot_ended(&mut self, cursor: &str) -> Result<(), Problem> {
        self.mark("snapshot_ended", cursor, "and what happens from here on:")?;
        self.is_at(cursor);
        Ok(())
    }

    fn mark(&mut self, name: &str, cursor: &str, words: &str) -> Result<(), Problem> {
        self.out.line(match self.format {
            Format::Text => Style::new().dim().apply_to(words).to_string(),
            Format::Json if cursor.is_empty() => serde_json::json!({ name: true }).to_string(),
            Format::Json => serde_json::json!({ name: true, "cursor": cursor }).to_string(),
        })?;
        self.out.flush()
    }

    /// Events are missing.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn gap(&mut self, gap: &WatchGap) -> Result<(), Problem> {
        match self.format {
            Format::Text => note(format!(
                "{} are no longer kept; going on after them",
                counted(gap.missing_events, "event")
            )),
            Format::Json => {
                let line = serde_json::json!({
                    "gap": {
                        "missing_events": gap.missing_events,
                        "from_cursor": gap.from_cursor,
                    },
                    "cursor": gap.to_cursor,
                });
                self.out.line(line.to_string())?;
                self.out.flush()?;
            }
        }
        self.is_at(&gap.to_cursor);
        Ok(())
    }
}

/// The cursor after this event of the batch. The server tells that of the last
/// one; the others are of the same commit, and their cursors differ by the number.
/// One that cannot be read is passed on as it came, and repeats rather than skips.
fn cursor_at(batch: &Batch, place: usize) -> String {
    match (batch.events.get(place + 1), batch.after.parse::<Cursor>()) {
        (None, _) => batch.after.clone(),
        (Some(next), Ok(after)) => after.after_event(Seq(next.seq).previous()).to_string(),
        (Some(_), Err(_)) => batch.before.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskyard_proto::v1::Event;

    fn batch(events: usize) -> Batch {
        Batch { events: vec![Event::default(); events], before: "c1".into(), after: "c4".into() }
    }

    #[test]
    fn a_cursor_never_skips_what_was_not_printed() {
        let batch = batch(3);
        let cursors: Vec<_> = (0..3).map(|place| cursor_at(&batch, place)).collect();
        assert_eq!(cursors, ["c1", "c1", "c4"]);
    }

    #[test]
    fn every_event_has_a_cursor_of_its_own() {
        let numbered = |seq| Event { seq, ..Event::default() };
        let events = [40, 41, 42].map(numbered).into();
        let after = "cpvegksbbehn31a".to_owned();
        let batch = Batch { events, before: "cpvegksbbehn317".into(), after };
        let cursors: Vec<_> = (0..3).map(|place| cursor_at(&batch, place)).collect();
        assert_eq!(cursors, ["cpvegksbbehn318", "cpvegksbbehn319", "cpvegksbbehn31a"]);
    }

    #[test]
    fn a_count_ends_within_a_batch() {
        let mut printer = Printer::new(Out::to(std::io::sink()), Format::Json, Some(4));
        assert_eq!(printer.events(&batch(3)), Ok(false));
        assert_eq!(printer.cursor(), Some("c4"));
        assert_eq!(printer.events(&batch(3)), Ok(true));
        assert_eq!(printer.cursor(), Some("c1"));
    }
}

//! `watch`: every event, a line each.

use std::time::Duration;

use super::{
    client::ServerArgs,
    exit::Exit,
    follow::{Batch, Follower, From, Seen},
    interrupt::CtrlC,
    json,
    output::{Format, Out, OutputArgs, note},
    present,
    problem::{Problem, told},
};
use crate::{event::Seq, events::Cursor};

/// How long to look for a server that has gone.
const PATIENCE: Duration = Duration::from_mins(1);

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Begin after this cursor, as an earlier watch or submit told it
    #[arg(long, value_name = "CURSOR", conflicts_with = "from_start")]
    after: Option<String>,
    /// Begin with the oldest event that is kept
    #[arg(long)]
    from_start: bool,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End with exit code 4 when the server goes, rather than look for it for
    /// up to 60 s and go on where the events ended
    #[arg(long)]
    no_reconnect: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints events until Ctrl-C, the count, or the end of patience.
pub async fn run(server: &ServerArgs, args: WatchArgs) -> Result<Exit, Problem> {
    let client = server.connect().await?;
    let from = match args.after {
        Some(cursor) => From::Cursor(cursor),
        None if args.from_start => From::Oldest,
        None => From::Live,
    };
    let patience = if args.no_reconnect { Duration::ZERO } else { PATIENCE };
    let mut follower = Follower::new(client, from, patience);
    let mut printer = Printer::new(Out::stdout(), args.output.output, args.count);
    let mut ctrl_c = CtrlC::listen()?;
    let ended = watch(&mut follower, &mut printer, &mut ctrl_c).await;
    // Where it was refused there is nothing to go on from.
    let refused = matches!(&ended, Err(problem) if problem.exit() == Exit::Refused);
    if let Some(cursor) = printer.cursor.as_deref().filter(|_| !is_closed(&ended) && !refused) {
        note(format!("to go on from here: taskyard watch --after {cursor}"));
    }
    ended
}

fn is_closed(ended: &Result<Exit, Problem>) -> bool {
    matches!(ended, Err(Problem::OutputClosed))
}

async fn watch(
    follower: &mut Follower,
    printer: &mut Printer,
    ctrl_c: &mut CtrlC,
) -> Result<Exit, Problem> {
    let mut lost = false;
    loop {
        let seen = tokio::select! {
            biased;
            () = ctrl_c.pressed() => return Ok(Exit::Ok),
            seen = follower.next() => seen?,
        };
        match seen {
            Seen::Draining => note("the server is shutting down"),
            Seen::Lost(status) => {
                lost = true;
                note(format!("{}; looking for it", told(&status)));
            }
            Seen::Events(batch) => {
                if std::mem::take(&mut lost) {
                    note("the server is back; nothing was missed");
                }
                if printer.print(&batch)? {
                    return Ok(Exit::Ok);
                }
            }
        }
    }
}

/// Prints events up to a count, and knows the cursor to go on from.
struct Printer {
    out: Out,
    format: Format,
    left: u64,
    cursor: Option<String>,
}

impl Printer {
    fn new(out: Out, format: Format, count: Option<u64>) -> Self {
        Self { out, format, left: count.unwrap_or(u64::MAX), cursor: None }
    }

    /// Prints a batch; whether the count is reached.
    fn print(&mut self, batch: &Batch) -> Result<bool, Problem> {
        for (place, event) in batch.events.iter().enumerate() {
            let cursor = cursor_at(batch, place);
            self.out.line(match self.format {
                Format::Text => present::event_line(event),
                Format::Json => json::event(event, &cursor).to_string(),
            })?;
            self.remember(&cursor);
            self.left -= 1;
            if self.left == 0 {
                self.out.flush()?;
                return Ok(true);
            }
        }
        if batch.events.is_empty() {
            self.remember(&batch.after);
        }
        self.out.flush()?;
        Ok(false)
    }

    fn remember(&mut self, cursor: &str) {
        if !cursor.is_empty() {
            self.cursor = Some(cursor.to_owned());
        }
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
    use crate::proto::v1::Event;

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
        assert_eq!(printer.print(&batch(3)), Ok(false));
        assert_eq!(printer.cursor.as_deref(), Some("c4"));
        assert_eq!(printer.print(&batch(3)), Ok(true));
        assert_eq!(printer.cursor.as_deref(), Some("c1"));
    }
}

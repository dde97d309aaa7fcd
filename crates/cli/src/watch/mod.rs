//! `watch`: every event, a line each.
//!
//! Owns what is told beside the events, and when to end. Must not know how a broken
//! stream is mended: that is [`taskyard_client::Watcher`]'s.

mod cursor_file;
mod flags;
mod followed;
mod printer;

use taskyard_client::{Seen, Watcher, reason};
use tonic::Status;

use super::{
    client::ServerArgs,
    exit::Exit,
    interrupt::CtrlC,
    names::say_unknown,
    output::{Out, note},
    problem::{Problem, told},
    program,
};
use cursor_file::CursorFile;
use followed::Followed;
use printer::Printer;

pub use flags::WatchArgs;

/// Prints events until Ctrl-C, the count, or an outage that is too long.
///
/// # Errors
/// What the server answers, or the lack of one; a cursor file that cannot be used.
pub async fn run(server: &ServerArgs, args: WatchArgs) -> Result<Exit, Problem> {
    let file = args.cursor_file.as_deref().map(CursorFile::open).transpose()?;
    let kept = file.as_ref().and_then(|file| file.cursor().map(str::to_owned));
    let watch = args.watch(kept)?;
    let is_filtered = watch.filter.is_some();
    let client = server.connect().await?;
    say_unknown(&client, &args.queues, &args.kinds).await;
    let mut session = Session {
        followed: Followed::look_up(&client.tasks(), &args.follow).await?,
        watcher: client.watch(watch),
        printer: Printer::new(Out::stdout(), args.output.output, args.count).fitted(args.wide),
        file,
        is_filtered,
        is_lost: false,
    };
    let mut ctrl_c = CtrlC::or_term()?;
    let ended = session.work(&mut ctrl_c).await;
    session.farewell(&ended);
    ended
}

struct Session {
    watcher: Watcher,
    printer: Printer,
    followed: Followed,
    file: Option<CursorFile>,
    is_filtered: bool,
    /// The server has gone, and that was told.
    is_lost: bool,
}

impl Session {
    async fn work(&mut self, ctrl_c: &mut CtrlC) -> Result<Exit, Problem> {
        loop {
            let seen = tokio::select! {
                biased;
                () = ctrl_c.pressed() => return Ok(Exit::Ok),
                seen = self.watcher.next() => seen.map_err(|status| self.explained(status))?,
            };
            let Some(seen) = seen else { return Ok(Exit::Ok) };
            let is_complete = self.take(seen)?;
            if let (Some(file), Some(cursor)) = (&mut self.file, self.printer.cursor()) {
                file.keep(cursor)?;
            }
            if is_complete {
                return Ok(Exit::Ok);
            }
            if self.followed.have_ended() {
                return Ok(self.followed.tell());
            }
        }
    }

    /// Prints what is seen; whether the count is reached.
    fn take(&mut self, seen: Seen) -> Result<bool, Problem> {
        match seen {
            Seen::Events(batch) => {
                batch.events.iter().for_each(|event| self.followed.event(event));
                return self.printer.events(&batch);
            }
            Seen::SnapshotBegun => {
                self.begins_anew();
                self.printer.snapshot_begun()?;
            }
            Seen::Started => self.begins_anew(),
            Seen::Snapshot { tasks, workers } => self.printer.snapshot(tasks, &workers)?,
            Seen::SnapshotEnded => {
                let cursor = self.watcher.cursor().unwrap_or_default();
                self.printer.snapshot_ended(cursor)?;
            }
            Seen::Gap(gap) => self.printer.gap(&gap)?,
            Seen::CaughtUp => self.followed.caught_up(),
            Seen::Draining => note("the server is shutting down"),
            Seen::Lost(status) => {
                self.is_lost = true;
                note(format!("{}; looking for it", told(&status)));
            }
            Seen::Restored => {
                self.is_lost = false;
                note("the server is back; going on where it had stopped");
            }
            // A later client may see more; nothing of it is to be printed.
            _ => {}
        }
        // Beside events: of those that the filter leaves out, and at the very start.
        if let Some(cursor) = self.watcher.cursor() {
            self.printer.is_at(cursor);
        }
        Ok(false)
    }

    /// After an outage before there was a cursor.
    fn begins_anew(&mut self) {
        if std::mem::take(&mut self.is_lost) {
            note("the server is back; the watch begins anew");
        }
    }

    /// Says how to go on, where that makes sense.
    fn farewell(&self, ended: &Result<Exit, Problem>) {
        let is_of_use = match ended {
            // The tasks that were followed have ended.
            Ok(_) => !self.followed.have_ended(),
            // Where it was refused there is nothing to go on from.
            Err(Problem::OutputClosed) => false,
            Err(problem) => problem.exit() != Exit::Refused,
        };
        let Some(cursor) = self.printer.cursor().filter(|_| is_of_use) else { return };
        note(match &self.file {
            None => {
                let same = if self.is_filtered { " with the same filters" } else { "" };
                format!("to go on from here: {} watch --after {cursor}{same}", program::name())
            }
            Some(file) => {
                let path = file.path().display();
                format!("to go on from here, keep {path} (the cursor is {cursor})")
            }
        });
    }

    /// Says what to do about a cursor that is of no use.
    fn explained(&self, status: Status) -> Problem {
        let reason = reason(&status).unwrap_or_default();
        let problem = Problem::from(status);
        if reason == "CURSOR_EXPIRED" {
            return problem.hint("go on with the oldest event that is kept by: --skip-gaps");
        }
        let file = self.file.as_ref().filter(|file| file.cursor().is_some());
        match file.filter(|_| reason.starts_with("CURSOR_")) {
            Some(file) => problem
                .hint(&format!("the cursor is that of {}", file.path().display()))
                .hint("empty the file to begin anew, with --from-start for all that is kept"),
            None => problem,
        }
    }
}

//! What to watch, as flags.

use std::{path::PathBuf, time::Duration};

use clap::builder::NonEmptyStringValueParser;
use taskyard_client::{Start, Watch};
use taskyard_proto::v1::{EventFilter, EventType};

use super::super::{
    filter::{one_of_words, one_value_each, parse_label},
    json::type_name,
    output::{OutputArgs, WideArgs},
    problem::Problem,
    units::{parse_span, whole},
};

/// Arguments of `watch`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag, and says so to people")]
#[derive(Debug, Default, clap::Args)]
pub struct WatchArgs {
    /// Begin after this cursor, as an earlier watch or submit told it
    #[arg(
        long,
        value_name = "CURSOR",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = BEGIN
    )]
    pub after: Option<String>,
    /// Begin with the oldest event that is kept
    #[arg(long, help_heading = BEGIN, conflicts_with_all = ["after", "snapshot"])]
    pub from_start: bool,
    /// Begin with the tasks that have not ended and the workers, as they stand; of the
    /// filters, queues, kinds, labels and tasks count for them
    #[arg(long, help_heading = BEGIN, conflicts_with = "after")]
    pub snapshot: bool,
    /// Go on after the cursor in this file, and keep it there
    ///
    /// While it does not exist or is empty, the watch begins as the other flags say. It
    /// is written after the events were: a watch that is killed (SIGKILL) in between prints
    /// those once more, and leaves none out. What stands in a pipe counts as printed.
    #[arg(long, value_name = "FILE", help_heading = BEGIN, conflicts_with = "after")]
    pub cursor_file: Option<PathBuf>,
    /// Show the whole life of this task, and end with it; exit code 1 unless it
    /// SUCCEEDED. May be repeated, and then ends with the last of them
    #[arg(
        short = 'f',
        long = "follow-task",
        value_name = "ID",
        help_heading = BEGIN,
        conflicts_with_all = [
            "after", "from_start", "snapshot", "cursor_file",
            "queues", "kinds", "labels", "tasks", "types", "workers",
        ]
    )]
    pub follow: Vec<String>,

    /// Only events of this queue; may be repeated
    #[arg(short = 'q', long = "queue", value_name = "QUEUE", help_heading = ONLY)]
    pub queues: Vec<String>,
    /// Only events of tasks of this kind; may be repeated
    #[arg(short = 'k', long = "kind", value_name = "KIND", help_heading = ONLY)]
    pub kinds: Vec<String>,
    /// Only events of tasks with this label; may be repeated, and all must match
    #[arg(
        short = 'l',
        long = "label",
        value_name = "KEY=VALUE",
        value_parser = parse_label,
        help_heading = ONLY
    )]
    pub labels: Vec<(String, String)>,
    /// Only events of this task; may be repeated
    #[arg(long = "task", value_name = "ID", help_heading = ONLY)]
    pub tasks: Vec<String>,
    /// Only events of this type, such as started or failed; may be repeated
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        value_parser = parse_type,
        help_heading = ONLY
    )]
    pub types: Vec<EventType>,
    /// Only events of this worker, such as worker-3; may be repeated
    #[arg(long = "worker", value_name = "WORKER", help_heading = ONLY)]
    pub workers: Vec<String>,

    /// End after this many events
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_parser = whole(1..=u64::MAX),
        help_heading = END
    )]
    pub count: Option<u64>,
    /// End once everything was printed that had happened when the watch began
    #[arg(long, help_heading = END, conflicts_with = "follow")]
    pub until_caught_up: bool,
    /// Go on after events that are no longer kept, and say how many there were,
    /// rather than end with exit code 3
    #[arg(long, help_heading = END)]
    pub skip_gaps: bool,
    /// Look for a server that has gone for this long; then end with exit code 4
    #[arg(
        long,
        value_name = "SPAN",
        value_parser = parse_span,
        default_value = "1m",
        help_heading = END
    )]
    pub reconnect_for: Duration,
    /// The same as --reconnect-for 0s
    #[arg(long, help_heading = END, conflicts_with = "reconnect_for")]
    pub no_reconnect: bool,
    #[command(flatten)]
    pub wide: WideArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

const BEGIN: &str = "Where to begin";
const ONLY: &str = "Which events";
const END: &str = "When to end";

impl WatchArgs {
    /// What to ask for, to go on after `kept`, if there is such a cursor.
    ///
    /// # Errors
    /// [`super::Exit::Usage`] if a label is asked to have two values.
    pub fn watch(&self, kept: Option<String>) -> Result<Watch, Problem> {
        let start = match kept.or_else(|| self.after.clone()) {
            Some(cursor) => Start::After(cursor),
            None if self.snapshot => Start::Snapshot,
            None if self.from_start || !self.follow.is_empty() => Start::Oldest,
            None => Start::Live,
        };
        Ok(Watch {
            filter: self.filter()?,
            until_caught_up: self.until_caught_up,
            over_gaps: self.skip_gaps,
            max_outage: if self.no_reconnect { Duration::ZERO } else { self.reconnect_for },
            ..Watch::begin(start)
        })
    }

    fn filter(&self) -> Result<Option<EventFilter>, Problem> {
        let filter = EventFilter {
            queues: self.queues.clone(),
            kinds: self.kinds.clone(),
            task_ids: [&self.tasks[..], &self.follow[..]].concat(),
            types: self.types.iter().map(|kind| (*kind).into()).collect(),
            workers: self.workers.clone(),
            labels: one_value_each(self.labels.clone())?,
        };
        Ok((filter != EventFilter::default()).then_some(filter))
    }
}

/// Reads an event's type, in any case, with `-` or `_`.
fn parse_type(text: &str) -> Result<EventType, String> {
    let known: Vec<_> = (1..).map_while(|number| EventType::try_from(number).ok()).collect();
    let name = |kind: EventType| type_name(kind.into()).to_ascii_lowercase();
    let wanted = text.to_ascii_lowercase().replace('-', "_");
    known.iter().copied().find(|kind| name(*kind) == wanted).ok_or_else(|| {
        let names: Vec<_> = known.into_iter().map(name).collect();
        one_of_words(text, &names)
    })
}

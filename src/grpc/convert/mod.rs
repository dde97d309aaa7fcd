//! Messages to the domain, with everything that is wrong named at once; and the
//! domain to messages.

mod lists;
mod output;
mod submission;
mod watches;

use std::time::Duration;

use super::{json, status::MAX_VIOLATIONS};
use crate::{
    handler::Violation,
    proto::v1,
    task::{State, TaskId},
};

pub use lists::{filter_hash, query};
pub use output::{page, state_to, task};
pub use submission::{Rules, submission};
pub use watches::{Watch, WatchStart, watch};

const DAY: Duration = Duration::from_hours(24);
const MAX_QUEUE: usize = 63;

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
struct Checks {
    violations: Vec<Violation>,
}

impl Checks {
    fn wrong(&mut self, field: &str, description: impl Into<String>) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation::new(field, description));
        }
    }

    /// A duration within bounds; `None`, and said why, if it is not one.
    fn duration(
        &mut self,
        field: &str,
        given: Option<prost_types::Duration>,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let given = given?;
        let bounds = format!("it takes {} to {}", humane(least), humane(most));
        let Some(span) = span_of(given) else {
            let what =
                if given.seconds < 0 || given.nanos < 0 { "is negative" } else { "is no duration" };
            self.wrong(field, format!("{what}; {bounds}"));
            return None;
        };
        if span < least || span > most {
            self.wrong(field, format!("{} is out of bounds; {bounds}", humane(span)));
            return None;
        }
        Some(span)
    }
}

fn span_of(given: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(given.seconds).ok()?;
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// A duration as people write it: whole days and hours where it is one.
fn humane(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{span:?}"),
        s if span.subsec_nanos() != 0 => format!("{:?}", Duration::new(s, span.subsec_nanos())),
        s if s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s => format!("{s} s"),
    }
}

fn check_name(field: &str, given: &str, most: usize, checks: &mut Checks) {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let begins = given.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if given.len() > most || !begins || !given.bytes().all(known) {
        checks.wrong(
            field,
            format!("takes 1 to {most} of a-z 0-9 . _ - and begins with a letter or digit"),
        );
    }
}

/// Checks a task's identifier.
///
/// # Errors
/// What is wrong with it.
pub fn task_id(given: &str) -> Result<TaskId, Vec<Violation>> {
    if given.is_empty() {
        return Err(vec![Violation::new("task_id", "is required")]);
    }
    given.parse().map_err(|wrong| vec![Violation::new("task_id", format!("{wrong}"))])
}

/// Checks the timeout of a wait.
///
/// # Errors
/// What is wrong with it.
pub fn wait_timeout(
    given: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Vec<Violation>> {
    let mut checks = Checks::default();
    let timeout = checks.duration("timeout", given, (Duration::ZERO, DAY));
    if checks.violations.is_empty() { Ok(timeout) } else { Err(checks.violations) }
}

fn state_of(state: v1::TaskState) -> State {
    match state {
        v1::TaskState::Scheduled => State::Scheduled,
        v1::TaskState::Unspecified | v1::TaskState::Queued => State::Queued,
        v1::TaskState::Running => State::Running,
        v1::TaskState::Succeeded => State::Succeeded,
        v1::TaskState::Failed => State::Failed,
        v1::TaskState::Cancelled => State::Cancelled,
    }
}

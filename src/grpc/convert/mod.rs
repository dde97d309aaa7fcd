//! Messages to the domain, with everything that is wrong named at once; and the
//! domain to messages.

mod batches;
mod body;
mod filters;
mod labels;
mod lists;
mod output;
mod pool;
mod queues;
mod retry;
mod stats;
mod submission;
mod tokens;
mod watches;

use std::{
    fmt::Display,
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use super::status::MAX_VIOLATIONS;
use crate::{
    handler::Violation,
    proto::v1,
    queue as queue_domain,
    task::{State, TaskId, Timestamp},
};

use labels::{check_labels, check_request_id};

pub use batches::{batch, of_request};
pub use lists::{Listing, cancellation, listing, redrive};
pub use output::{duration, page, state_to, task, timestamp};
pub use pool::{drained, pool, pool_size};
pub use queues::{
    Update, empty_queue, queue, queue_listing, queue_name, queue_page, update, wrong_backoffs,
};
pub use stats::{stats, target_wait};
pub use submission::{Rules, SubmissionValidator, unknown_queue};
pub use tokens::Pages;
pub use watches::{Watch, WatchStart, watch};

const DAY: Duration = Duration::from_hours(24);
const MAX_KIND: usize = 63;

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

    /// `checked`, if nothing was wrong.
    fn finish<T>(self, checked: T) -> Result<T, Vec<Violation>> {
        if self.violations.is_empty() { Ok(checked) } else { Err(self.violations) }
    }

    /// A number within bounds; `None`, and said why, if it is not one.
    fn within<T: PartialOrd + Copy + Display>(
        &mut self,
        field: &str,
        given: Option<T>,
        bounds: &RangeInclusive<T>,
    ) -> Option<T> {
        let given = given?;
        if bounds.contains(&given) {
            return Some(given);
        }
        let (least, most) = (bounds.start(), bounds.end());
        self.wrong(field, format!("{given} is not within {least} to {most}"));
        None
    }

    /// Whether no more would be kept.
    fn are_full(&self) -> bool {
        self.violations.len() >= MAX_VIOLATIONS
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

fn check_queue(field: &str, given: &str, checks: &mut Checks) {
    if !queue_domain::is_name(given) {
        let most = queue_domain::MAX_NAME;
        checks.wrong(
            field,
            format!("takes 1 to {most} of a-z 0-9 . _ - and begins with a letter or digit"),
        );
    }
}

const NO_TIME: &str = "is no time between the years 1 and 9999";

fn time_of(given: prost_types::Timestamp) -> Option<Timestamp> {
    /// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, as the well-known type has it.
    const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let nanos = i64::from(given.nanos);
    if !SECONDS.contains(&given.seconds) || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    Some(Timestamp(given.seconds * 1_000_000 + nanos / 1_000))
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::default().after(since_epoch.unwrap_or_default())
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
    checks.finish(timeout)
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

//! A `TaskFilter` to a filter of the store, and an `EventFilter` to what a watcher wants.

use std::collections::BTreeSet;

use super::{Checks, MAX_KIND, NO_TIME, check_labels, check_queue, state_of, time_of};
use crate::{
    events::EventFilterSpec,
    proto::v1,
    store::{Filter, TimeRange},
    task::{State, TaskId, Timestamp},
};

/// States in a filter: each of them once, with room for a few repeated.
pub(super) const MAX_STATES: usize = 16;
/// Queues in a filter, kinds, and workers.
const MAX_NAMES: usize = 16;
/// Tasks in a filter of events.
const MAX_TASK_IDS: usize = 1_000;
/// Types in a filter of events.
const MAX_TYPES: usize = 32;
/// Bytes of a worker's name.
const MAX_WORKER: usize = 63;

/// Checks a filter, which stands in the field `filter`.
pub(super) fn filter(given: v1::TaskFilter, checks: &mut Checks) -> Filter {
    let states = states(&given.states, checks);
    names("filter.queues", &given.queues, check_queue, checks);
    names("filter.kinds", &given.kinds, check_kind, checks);
    check_labels("filter.labels", &given.labels, checks);
    let created = (given.created_from, given.created_before);
    let finished = (given.finished_from, given.finished_before);
    Filter {
        states,
        queues: given.queues,
        kinds: given.kinds,
        labels: given.labels,
        created: range("created", created, checks),
        finished: range("finished", finished, checks),
    }
}

/// Checks a filter of events, which stands in the field `filter`.
pub(super) fn event_filter(given: v1::EventFilter, checks: &mut Checks) -> EventFilterSpec {
    let check_worker = |field: &str, name: &str, checks: &mut Checks| {
        if name.is_empty() || name.len() > MAX_WORKER {
            checks.wrong(field, format!("a worker's name has 1 to {MAX_WORKER} bytes"));
        }
    };
    names("filter.queues", &given.queues, check_queue, checks);
    names("filter.kinds", &given.kinds, check_kind, checks);
    let tasks = task_ids(&given.task_ids, checks);
    check_types(&given.types, checks);
    names("filter.workers", &given.workers, check_worker, checks);
    check_labels("filter.labels", &given.labels, checks);
    EventFilterSpec {
        queues: given.queues,
        kinds: given.kinds,
        tasks,
        types: given.types,
        workers: given.workers,
        labels: given.labels,
    }
}

fn check_kind(field: &str, kind: &str, checks: &mut Checks) {
    if kind.is_empty() || kind.len() > MAX_KIND {
        checks.wrong(field, format!("a kind has 1 to {MAX_KIND} bytes"));
    }
}

fn task_ids(given: &[String], checks: &mut Checks) -> Vec<TaskId> {
    let field = "filter.task_ids";
    if given.len() > MAX_TASK_IDS {
        checks.wrong(field, format!("there are {}; at most {MAX_TASK_IDS}", given.len()));
    }
    let mut tasks = Vec::new();
    for (at, id) in given.iter().take(MAX_TASK_IDS).enumerate() {
        match id.parse() {
            Ok(task) => tasks.push(task),
            Err(wrong) => checks.wrong(&format!("{field}[{at}]"), format!("{wrong}")),
        }
    }
    tasks
}

fn check_types(given: &[i32], checks: &mut Checks) {
    let field = "filter.types";
    if given.len() > MAX_TYPES {
        checks.wrong(field, format!("there are {}; at most {MAX_TYPES}", given.len()));
    }
    for (at, number) in given.iter().take(MAX_TYPES).enumerate() {
        if !v1::EventType::try_from(*number).is_ok_and(|of| of != v1::EventType::Unspecified) {
            checks.wrong(&format!("{field}[{at}]"), format!("{number} is no type of event"));
        }
    }
}

/// The states that are named, each once; none if any will do.
fn states(given: &[i32], checks: &mut Checks) -> Vec<State> {
    if given.len() > MAX_STATES {
        checks.wrong("filter.states", format!("there are {}; at most {MAX_STATES}", given.len()));
    }
    let (mut named, mut any) = (BTreeSet::new(), false);
    for (at, number) in given.iter().take(MAX_STATES).enumerate() {
        match v1::TaskState::try_from(*number) {
            Ok(v1::TaskState::Unspecified) => any = true,
            Ok(_) => drop(named.insert(*number)),
            Err(_) => {
                checks.wrong(&format!("filter.states[{at}]"), format!("{number} is no state"));
            }
        }
    }
    if any {
        return Vec::new();
    }
    named
        .into_iter()
        .filter_map(|number| v1::TaskState::try_from(number).ok())
        .map(state_of)
        .collect()
}

fn names(
    field: &str,
    given: &[String],
    check: impl Fn(&str, &str, &mut Checks),
    checks: &mut Checks,
) {
    if given.len() > MAX_NAMES {
        checks.wrong(field, format!("there are {}; at most {MAX_NAMES}", given.len()));
    }
    for (at, name) in given.iter().take(MAX_NAMES).enumerate() {
        check(&format!("{field}[{at}]"), name, checks);
    }
}

type Given = Option<prost_types::Timestamp>;

fn range(what: &str, (from, before): (Given, Given), checks: &mut Checks) -> TimeRange {
    let (from_field, before_field) =
        (format!("filter.{what}_from"), format!("filter.{what}_before"));
    let from = moment(&from_field, from, checks);
    let before = moment(&before_field, before, checks);
    if let (Some(from), Some(before)) = (from, before)
        && from >= before
    {
        checks.wrong(&before_field, format!("is not after {what}_from, so that nothing matches"));
    }
    TimeRange { from, before }
}

fn moment(field: &str, given: Given, checks: &mut Checks) -> Option<Timestamp> {
    let given = given?;
    let time = time_of(given);
    if time.is_none() {
        checks.wrong(field, NO_TIME);
    }
    time
}

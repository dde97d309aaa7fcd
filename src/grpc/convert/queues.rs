//! Queues and their settings, both ways.

use std::sync::Arc;

use super::{Checks, check_queue, duration, lists::page_size, timestamp, tokens};
use crate::{
    handler::Violation,
    proto::{queue_settings::Value as WireValue, v1},
    queue::{
        self, Block, Counts, Field, Kind, Overrides, QueueConfig, Settings, Value, WrongBackoffs,
    },
    store::QueueStatus,
};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;

/// A page of queues that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueListing {
    /// Only this one.
    pub queue: Option<Arc<str>>,
    /// Only those whose names come after this.
    pub after: Option<String>,
    /// Queues on the page.
    pub limit: usize,
}

/// Checks a listing of queues.
///
/// # Errors
/// Everything that is wrong with it.
pub fn queue_listing(request: &v1::ListQueuesRequest) -> Result<QueueListing, Vec<Violation>> {
    let mut checks = Checks::default();
    let limit = page_size(request.page_size, DEFAULT_PAGE, MAX_PAGE, &mut checks);
    let after = tokens::queue_start(&request.page_token, &mut checks);
    let queue = (!request.queue.is_empty()).then(|| {
        check_queue("queue", &request.queue, &mut checks);
        if after.is_some() {
            checks.wrong("page_token", "belongs to a list of all queues");
        }
        Arc::from(request.queue.as_str())
    });
    checks.finish(QueueListing { queue, after, limit })
}

/// The page of `queues`, which are in the order of their names.
pub fn queue_page(
    queues: Vec<QueueStatus>,
    listing: &QueueListing,
    queue_config: &QueueConfig,
) -> v1::ListQueuesResponse {
    let beyond =
        |queue: &QueueStatus| listing.after.as_deref().is_none_or(|after| *queue.name > *after);
    let mut page: Vec<_> = queues.into_iter().filter(beyond).take(listing.limit + 1).collect();
    let more = page.len() > listing.limit;
    page.truncate(listing.limit);
    let last = page.last().filter(|_| more);
    let next_page_token = last.map(|last| tokens::queue_token(&last.name)).unwrap_or_default();
    let queues = page.iter().map(|status| queue(status, queue_config)).collect();
    v1::ListQueuesResponse { queues, next_page_token }
}

/// Checks the name of a queue that is to be changed.
///
/// # Errors
/// What is wrong with it.
pub fn queue_name(given: &str) -> Result<Arc<str>, Vec<Violation>> {
    let mut checks = Checks::default();
    required_queue(given, &mut checks);
    checks.finish(Arc::from(given))
}

fn required_queue(given: &str, checks: &mut Checks) {
    if given.is_empty() {
        checks.wrong("queue", "is required");
    } else {
        check_queue("queue", given, checks);
    }
}

/// A change of a queue's settings that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Which queue.
    pub queue: Arc<str>,
    /// The settings that change.
    pub fields: Vec<Field>,
    /// What they become; those that are not set here go back to the configuration.
    pub values: Overrides,
}

/// Checks an update. Whether its backoffs fit together is for the store to say, which
/// knows what was changed before.
///
/// # Errors
/// Everything that is wrong with it.
pub fn update(request: v1::UpdateQueueRequest) -> Result<Update, Vec<Violation>> {
    let mut checks = Checks::default();
    required_queue(&request.queue, &mut checks);
    let settings = request.settings.unwrap_or_default();
    let mask = request.update_mask.unwrap_or_default().paths;
    let fields =
        if mask.is_empty() { set_fields(&settings) } else { named_fields(&mask, &mut checks) };
    if fields.is_empty() && checks.violations.is_empty() {
        checks.wrong("settings", "sets nothing, and update_mask names nothing to reset");
    }
    let mut values = Overrides::default();
    let given = overrides(&settings, &fields, &mut checks);
    for field in &fields {
        values.take(*field, &given);
    }
    checks.finish(Update { queue: Arc::from(request.queue.as_str()), fields, values })
}

/// What is wrong with a change that leaves a queue with such backoffs.
pub fn wrong_backoffs(wrong: WrongBackoffs) -> Violation {
    let (max, initial) = (super::humane(wrong.max), super::humane(wrong.initial));
    let wrong = format!("would be {max}, below the initial backoff of {initial}");
    Violation::new("settings.max_backoff", wrong)
}

/// The settings that are set.
fn set_fields(settings: &v1::QueueSettings) -> Vec<Field> {
    let is_set = |field: &Field| settings.get(field.name()).is_some();
    Field::ALL.into_iter().filter(is_set).collect()
}

/// The settings that a mask names, each once.
fn named_fields(mask: &[String], checks: &mut Checks) -> Vec<Field> {
    let mut fields = Vec::new();
    // The request decides how many paths there are; there is no use for more.
    if mask.len() > 4 * Field::ALL.len() {
        checks.wrong("update_mask", format!("names {} paths, most of them twice", mask.len()));
        return fields;
    }
    for (at, path) in mask.iter().enumerate() {
        match Field::of_name(path) {
            Some(field) if fields.contains(&field) => {}
            Some(field) => fields.push(field),
            None => {
                let known = Field::ALL.map(Field::name).join(", ");
                let wrong = format!("is not one of the settings: {known}");
                checks.wrong(&format!("update_mask.paths[{at}]"), wrong);
            }
        }
    }
    fields.sort_unstable();
    fields
}

/// The values of these settings, as far as they are set. Others are not looked at.
fn overrides(settings: &v1::QueueSettings, fields: &[Field], checks: &mut Checks) -> Overrides {
    let mut values = Overrides::default();
    for field in fields {
        let given = settings.get(field.name());
        values.set(*field, given.and_then(|given| checked(*field, given, checks)));
    }
    values
}

/// A value within its bounds; `None`, and said why, if it is not.
fn checked(field: Field, given: WireValue, checks: &mut Checks) -> Option<Value> {
    let name = format!("settings.{}", field.name());
    match (field.kind(), given) {
        (Kind::Limit { .. }, WireValue::Count(0)) => Some(Value::Count(0)),
        (
            Kind::Count(bounds) | Kind::Size(bounds) | Kind::Limit { bounds, .. },
            WireValue::Count(count),
        ) => checks.within(&name, Some(count), &bounds).map(Value::Count),
        (Kind::Duration(bounds), WireValue::Duration(span)) => {
            checks.duration(&name, Some(span), bounds.into_inner()).map(Value::Duration)
        }
        (Kind::Rate, WireValue::Rate(limit)) => Some(Value::Rate(rate(&name, limit, checks))),
        // The wire has another type for it than the domain, which the tests would not pass.
        _ => None,
    }
}

/// A rate; `None` for no limit.
fn rate(name: &str, given: v1::RateLimit, checks: &mut Checks) -> Option<queue::Rate> {
    let v1::RateLimit { starts_per_second, burst } = given;
    let burst_field = format!("{name}.burst");
    if starts_per_second == 0.0 {
        // Whoever gives a burst means a limit, and must not lift it by a slip.
        if burst > 0 {
            let wrong = format!("{burst} goes not together with a rate of 0, which is no limit");
            checks.wrong(&burst_field, wrong);
        }
        return None;
    }
    let bounds = &queue::STARTS_PER_SECOND;
    let field = format!("{name}.starts_per_second");
    let per_second = checks.within(&field, Some(starts_per_second), bounds);
    let burst = checks.within(&burst_field, Some(burst.max(1)), &queue::BURST);
    Some(queue::Rate { per_second: per_second?, burst: burst? })
}

/// A queue as the wire has it.
pub fn queue(status: &QueueStatus, queue_config: &QueueConfig) -> v1::Queue {
    v1::Queue {
        queue: status.name.to_string(),
        settings: Some(settings(&status.settings)),
        overridden: status.overrides.names().map(str::to_owned).collect(),
        paused: status.paused,
        block: block(status.block).into(),
        counts: Some(counts(&status.counts)),
        waiting_bytes: status.waiting_bytes,
        waiting_callers: status.waiting_callers,
        oldest_due_time: status.oldest_due.map(timestamp),
        configured: configured(&status.name, queue_config),
    }
}

/// A queue of which there is nothing to tell but its settings.
pub fn empty_queue(name: &str, queue_config: &QueueConfig) -> v1::Queue {
    v1::Queue {
        queue: name.to_owned(),
        settings: Some(settings(&queue_config.settings(name))),
        configured: configured(name, queue_config),
        counts: Some(v1::TaskCounts::default()),
        ..Default::default()
    }
}

fn configured(name: &str, queue_config: &QueueConfig) -> Vec<String> {
    queue_config.configured(name).into_iter().map(|field| field.name().to_owned()).collect()
}

fn settings(settings: &Settings) -> v1::QueueSettings {
    let mut shown = v1::QueueSettings::default();
    for field in Field::ALL {
        let value = match settings.get(field) {
            Value::Count(count) => WireValue::Count(count),
            Value::Duration(span) => WireValue::Duration(duration(span)),
            Value::Rate(None) => WireValue::Rate(v1::RateLimit::default()),
            Value::Rate(Some(queue::Rate { per_second: starts_per_second, burst })) => {
                WireValue::Rate(v1::RateLimit { starts_per_second, burst })
            }
        };
        let is_there = shown.set(field.name(), value);
        debug_assert!(is_there, "{} is none of the API", field.name());
    }
    shown
}

/// Counts as the wire has them.
pub(super) fn counts(counts: &Counts) -> v1::TaskCounts {
    v1::TaskCounts {
        scheduled: counts.scheduled,
        queued: counts.queued,
        running: counts.running,
        succeeded: counts.succeeded,
        failed: counts.failed,
        cancelled: counts.cancelled,
    }
}

pub(super) fn block(block: Option<Block>) -> v1::QueueBlock {
    match block {
        None => v1::QueueBlock::Unspecified,
        Some(Block::Paused) => v1::QueueBlock::Paused,
        Some(Block::MaxRunning) => v1::QueueBlock::MaxRunning,
        Some(Block::RateLimit) => v1::QueueBlock::RateLimit,
        Some(Block::Draining) => v1::QueueBlock::Draining,
    }
}

#[cfg(test)]
mod tests;

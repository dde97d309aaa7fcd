//! Queues as text for people.
//!
//! Owns the table of all, and everything about one. Must not know where they come
//! from.

use console::Style;
use prost_types::Timestamp;
use taskyard_domain::queue::{Field, Kind};
use taskyard_proto::{
    queue_settings::Value,
    v1::{Queue, QueueBlock, QueueSettings, RateLimit, TaskCounts, TaskState},
};
use taskyard_text::{
    rate,
    units::{show_duration, show_size},
};

use super::{
    super::{
        columns::{Paged, Stack, fitted},
        json::admin::block_name,
        output::{middle_cut, printable},
        table::{Column, aligned, heading},
        units::{self, bytes, count, counted},
    },
    named, state_style,
};

/// What holds the tasks of a queue back, in a word.
pub fn block_word(block: i32) -> Option<String> {
    let word = match QueueBlock::try_from(block) {
        Ok(QueueBlock::Unspecified) => return None,
        Ok(QueueBlock::Paused) => "paused",
        Ok(QueueBlock::MaxRunning) => "max running",
        Ok(QueueBlock::RateLimit) => "rate limited",
        Ok(QueueBlock::Draining) => "draining",
        Err(_) => return block_name(block),
    };
    Some(word.into())
}

/// The colour of that word.
pub fn block_style(block: i32) -> Style {
    match QueueBlock::try_from(block) {
        Ok(QueueBlock::Paused) => Style::new().yellow().bold(),
        Ok(QueueBlock::Draining) => Style::new().magenta().bold(),
        _ => Style::new().yellow(),
    }
}

/// The state of a queue: what holds it back, or `open`. One that is paused says so
/// whatever else holds it back.
fn state(queue: &Queue) -> String {
    let block = if queue.paused { QueueBlock::Paused.into() } else { queue.block };
    match block_word(block) {
        Some(word) => block_style(block).apply_to(word).to_string(),
        None => Style::new().green().apply_to("open").to_string(),
    }
}

/// The queues, a line each, aligned. `now` is what the oldest wait is measured by. Where the
/// screen has `room` for so many columns, names are cut in the middle and the least important
/// columns left out; without such a bound there is everything.
pub fn table(queues: &[Queue], pages: &mut Paged, room: Option<usize>, now: Timestamp) -> String {
    // It is all about the queues: their names are the last thing to be cut short.
    pages.table(fitted(room, 3, |longest| columns(queues, longest, now)), room)
}

fn columns(queues: &[Queue], longest: usize, now: Timestamp) -> Vec<Stack> {
    let cells = |cell: &dyn Fn(&Queue) -> String| queues.iter().map(cell).collect::<Vec<_>>();
    let counted = |number: &dyn Fn(TaskCounts) -> u64| {
        cells(&|queue| count(number(queue.counts.unwrap_or_default())))
    };
    let failed = |queue: &Queue| match queue.counts.unwrap_or_default().failed {
        0 => "0".into(),
        failed => state_style(TaskState::Failed).apply_to(count(failed)).to_string(),
    };
    let settings = |queue: &Queue| queue.settings.unwrap_or_default();
    let counts = |queue: &Queue| queue.counts.unwrap_or_default();
    let running = |queue: &Queue| running(counts(queue).running, settings(queue).max_running);
    let limit = |queue: &Queue| of(waiting(counts(queue)), settings(queue).max_tasks);
    let weight = |queue: &Queue| settings(queue).weight.unwrap_or_default().to_string();
    let rate =
        |queue: &Queue| settings(queue).rate_limit.map_or_else(|| rate::NONE.into(), short_rate);
    let oldest = |queue: &Queue| {
        let wait = |due| units::span(units::between(due, now));
        queue.oldest_due_time.map(wait).unwrap_or_default()
    };
    vec![
        Stack::text("QUEUE", cells(&|queue| middle_cut(&printable(&queue.queue), longest)))
            .at_least(8),
        Stack::text("STATE", cells(&state)).at_least(6),
        Stack::figures("SCHEDULED", counted(&|counts| counts.scheduled)).optional(4),
        Stack::figures("QUEUED", counted(&|counts| counts.queued)),
        Stack::figures("RUNNING", cells(&running)).optional(1),
        Stack::figures("SUCCEEDED", counted(&|counts| counts.succeeded)).optional(6),
        Stack::figures("FAILED", cells(&failed)).optional(2),
        Stack::figures("CANCELLED", counted(&|counts| counts.cancelled)).optional(7),
        Stack::figures("LIMIT", cells(&limit)).optional(5),
        Stack::figures("WEIGHT", cells(&weight)).optional(9),
        Stack::figures("RATE", cells(&rate)).optional(8),
        Stack::figures("OLDEST", cells(&oldest)).optional(3),
    ]
}

fn waiting(counts: TaskCounts) -> u64 {
    counts.scheduled + counts.queued
}

fn of(number: u64, most: Option<u64>) -> String {
    format!("{}/{}", count(number), count(most.unwrap_or_default()))
}

fn running(number: u64, most: Option<u32>) -> String {
    match most {
        None | Some(0) => count(number),
        Some(most) => of(number, Some(most.into())),
    }
}

fn short_rate(limit: RateLimit) -> String {
    if limit.starts_per_second > 0.0 {
        rate::show(limit.starts_per_second)
    } else {
        rate::NONE.into()
    }
}

/// Everything about one queue: how it stands, then each of its settings and who
/// set it.
pub fn block(queue: &Queue, now: Timestamp) -> String {
    let counts = queue.counts.unwrap_or_default();
    let settings = queue.settings.unwrap_or_default();
    let mut rows = vec![
        ("queue", printable(&queue.queue)),
        ("state", state(queue)),
        ("tasks", counts_words(counts)),
        (
            "waiting",
            format!(
                "{} of {}, {} of {}",
                count(waiting(counts)),
                counted(settings.max_tasks.unwrap_or_default(), "task"),
                bytes(queue.waiting_bytes),
                show_size(settings.max_bytes.unwrap_or_default()),
            ),
        ),
    ];
    if queue.waiting_callers > 0 {
        let callers = counted(queue.waiting_callers, "caller");
        rows.push(("callers", format!("{callers} waiting for room")));
    }
    if let Some(due) = queue.oldest_due_time {
        let waited = units::span(units::between(due, now));
        rows.push(("oldest", format!("due for {waited}")));
    }
    format!("{}\n\n{}", named(rows), settings_table(&settings, queue))
}

/// How many tasks stand where; what there is none of is left out.
fn counts_words(counts: TaskCounts) -> String {
    let parts = counts_parts(counts);
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

/// `counts_words` in pieces: `12 queued`, `3 running`.
pub fn counts_parts(counts: TaskCounts) -> Vec<String> {
    let parts = [
        (counts.scheduled, "scheduled", TaskState::Scheduled),
        (counts.queued, "queued", TaskState::Queued),
        (counts.running, "running", TaskState::Running),
        (counts.succeeded, "succeeded", TaskState::Succeeded),
        (counts.failed, "failed", TaskState::Failed),
        (counts.cancelled, "cancelled", TaskState::Cancelled),
    ];
    let part = |(number, word, state)| {
        state_style(state).apply_to(format!("{} {word}", count(number))).to_string()
    };
    parts.into_iter().filter(|(number, ..)| *number > 0).map(part).collect()
}

fn settings_table(settings: &QueueSettings, queue: &Queue) -> String {
    let names = |names: &[String], field: Field| names.iter().any(|name| name == field.name());
    let rows = Field::ALL.into_iter().map(|field| {
        let by = if names(&queue.overridden, field) {
            Style::new().yellow().apply_to("operator").to_string()
        } else if names(&queue.configured, field) {
            "configuration".to_owned()
        } else {
            Style::new().dim().apply_to("default").to_string()
        };
        [field.name().to_owned(), setting(settings, field), by]
    });
    let header = heading(["SETTING", "VALUE", "SET BY"]);
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    aligned([Column::text(0); 3], &rows)
}

/// A setting's value, as the configuration would spell it.
fn setting(settings: &QueueSettings, field: Field) -> String {
    match (field.kind(), settings.get(field.name())) {
        (_, None) => String::new(),
        (Kind::Limit { lifted, .. }, Some(Value::Count(0))) => format!("0 ({lifted})"),
        (Kind::Size(_), Some(Value::Count(size))) => show_size(size),
        (_, Some(Value::Count(count))) => count.to_string(),
        (_, Some(Value::Duration(span))) => show_duration(units::from_wire(span)),
        (_, Some(Value::Rate(rate))) => full_rate(rate),
    }
}

fn full_rate(limit: RateLimit) -> String {
    let rate = short_rate(limit);
    if limit.starts_per_second > 0.0 {
        format!("{rate}, burst {}", limit.burst.max(1))
    } else {
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp { seconds: 100, nanos: 0 };

    fn span(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    fn mail() -> Queue {
        Queue {
            queue: "mail".into(),
            settings: Some(QueueSettings {
                max_tasks: Some(100_000),
                max_bytes: Some(1 << 30),
                max_running: Some(4),
                rate_limit: Some(RateLimit { starts_per_second: 0.5, burst: 3 }),
                weight: Some(2),
                max_attempts: Some(5),
                initial_backoff: Some(span(1)),
                max_backoff: Some(span(60)),
                attempt_timeout: Some(span(3_600)),
            }),
            overridden: vec!["max_running".into(), "rate_limit".into()],
            configured: vec!["max_running".into(), "weight".into(), "max_attempts".into()],
            paused: false,
            block: QueueBlock::MaxRunning.into(),
            counts: Some(TaskCounts {
                scheduled: 2,
                queued: 10,
                running: 4,
                failed: 1,
                ..TaskCounts::default()
            }),
            waiting_bytes: 3 << 10,
            waiting_callers: 1,
            oldest_due_time: Some(Timestamp { seconds: 97, nanos: 0 }),
        }
    }

    fn plain(text: &str) -> String {
        console::strip_ansi_codes(text).into_owned()
    }

    #[test]
    fn the_table_has_a_line_for_each_queue() {
        let idle = Queue {
            queue: "default".into(),
            paused: true,
            settings: Some(QueueSettings {
                max_tasks: Some(7),
                weight: Some(1),
                max_running: Some(0),
                ..QueueSettings::default()
            }),
            ..Queue::default()
        };
        assert_eq!(
            plain(&table(&[idle, mail()], &mut Paged::default(), None, NOW)),
            "\
QUEUE     STATE        SCHEDULED  QUEUED  RUNNING  SUCCEEDED  FAILED  CANCELLED       LIMIT  WEIGHT  RATE  OLDEST
default   paused               0       0        0          0       0          0         0/7       1  none
mail      max running          2      10      4/4          0       1          0  12/100,000       2  30/m   3.0 s"
        );
    }

    #[test]
    fn the_table_fits_every_terminal() {
        let long = Queue { queue: "x".repeat(63), ..mail() };
        for width in 40..220 {
            let text =
                plain(&table(&[mail(), long.clone()], &mut Paged::default(), Some(width), NOW));
            let fits = |line: &str| console::measure_text_width(line) <= width;
            assert!(text.lines().all(fits), "{width}:\n{text}");
        }
        let text = plain(&table(&[mail(), long], &mut Paged::default(), Some(80), NOW));
        assert!(text.contains("OLDEST") && !text.contains("WEIGHT"), "{text}");
        assert!(text.contains("xx…xx"), "{text}");
    }

    #[test]
    fn a_block_tells_who_set_what() {
        assert_eq!(
            plain(&block(&mail(), NOW)),
            "\
queue       mail
state       max running
tasks       2 scheduled, 10 queued, 4 running, 1 failed
waiting     12 of 100,000 tasks, 3.0 KiB of 1GiB
callers     1 caller waiting for room
oldest      due for 3.0 s

SETTING          VALUE          SET BY
max_tasks        100000         default
max_bytes        1GiB           default
max_running      4              operator
rate_limit       30/m, burst 3  operator
weight           2              configuration
max_attempts     5              configuration
initial_backoff  1s             default
max_backoff      1m             default
attempt_timeout  1h             default"
        );
    }

    #[test]
    fn a_newer_servers_block_is_not_hidden() {
        assert_eq!(block_word(0), None);
        assert_eq!(block_word(99), Some("BLOCK_99".into()));
    }
}

//! Everything about one row, in place of the panels.

use taskyard_proto::v1::{Event, QueueStats, Worker};

use super::{
    super::{
        super::{
            json,
            output::printable,
            render::{
                error_text,
                queues::block_word,
                stats::{NAMES, paragraph, tasks_words},
            },
            units::{calendar, count, frequency, from_wire, percent, span},
        },
        model::Row,
    },
    panels,
};

/// The lines, for a screen so wide.
pub fn lines(row: &Row, width: usize) -> Vec<String> {
    let (title, mut rows) = match row {
        Row::Queue(queue) => ("queue", of_queue(queue)),
        Row::Worker(worker) => ("worker", of_worker(worker)),
        Row::Event(event) => ("event", of_event(event)),
    };
    rows.retain(|(_, text)| !text.is_empty());
    let told = rows.iter().flat_map(|(name, text)| {
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        paragraph(name, &words, width.max(NAMES + 1))
    });
    let title = panels::rule(title, "Enter or Esc closes this", true, width);
    [title].into_iter().chain(told).collect()
}

type Rows = Vec<(&'static str, String)>;

fn of_queue(queue: &QueueStats) -> Rows {
    let mean = |value: Option<prost_types::Duration>| {
        value.map(|value| span(from_wire(value))).unwrap_or_default()
    };
    vec![
        ("queue", printable(&queue.queue)),
        ("state", block_word(queue.block).unwrap_or_else(|| "open".into())),
        ("tasks", tasks_words(queue.counts.unwrap_or_default()).join(" ")),
        ("arrive", format!("{}/s", frequency(queue.arrival_rate))),
        ("complete", format!("{}/s", frequency(queue.completion_rate))),
        ("runs", mean(queue.mean_service)),
        ("waited", mean(queue.mean_wait)),
        ("wait now", mean(queue.wait_now)),
        ("busy", percent(queue.busy_share)),
    ]
}

fn of_worker(worker: &Worker) -> Rows {
    let mut rows = vec![("worker", printable(&worker.worker))];
    match &worker.execution {
        None => rows.push(("task", "idle".into())),
        Some(execution) => rows.extend([
            ("task", printable(&execution.task_id)),
            ("kind", printable(&execution.kind)),
            ("queue", printable(&execution.queue)),
            ("attempt", execution.attempt.to_string()),
            ("started", execution.start_time.map(calendar).unwrap_or_default()),
            ("for", execution.running_for.map(|s| span(from_wire(s))).unwrap_or_default()),
        ]),
    }
    rows.push(("finished", count(worker.finished)));
    rows.push(("busy", percent(worker.busy_share)));
    rows.push(("leaving", if worker.leaving { "when its task has ended" } else { "" }.into()));
    rows
}

fn of_event(event: &Event) -> Rows {
    let labels: Vec<_> = event.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let spent = |value: Option<prost_types::Duration>| {
        value.map(|s| span(from_wire(s))).unwrap_or_default()
    };
    vec![
        ("event", count(event.seq)),
        ("time", event.time.map(calendar).unwrap_or_default()),
        ("type", json::type_name(event.r#type)),
        ("task", printable(&event.task_id)),
        ("kind", printable(&event.kind)),
        ("queue", printable(&event.queue)),
        ("worker", printable(&event.worker)),
        ("attempt", if event.attempt == 0 { String::new() } else { event.attempt.to_string() }),
        ("waited", spent(event.waited)),
        ("ran", spent(event.ran)),
        ("due", event.next_due_time.map(calendar).unwrap_or_default()),
        ("error", event.error.as_ref().map(error_text).unwrap_or_default()),
        ("labels", printable(&labels.join(", "))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskyard_proto::v1::{EventType, TaskError};

    #[test]
    fn an_event_is_told_in_full_within_the_width() {
        let message = "it ran longer than 5ms and then some more words followed".to_owned();
        let event = Event {
            seq: 1_234,
            r#type: EventType::Failed.into(),
            task_id: "t1".into(),
            attempt: 3,
            error: Some(TaskError { reason: "TIMEOUT".into(), message }),
            ..Event::default()
        };
        let lines = lines(&Row::Event(Box::new(event)), 40);
        let plain: Vec<_> =
            lines.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect();
        assert!(plain.iter().all(|line| line.chars().count() <= 40), "{plain:#?}");
        let text = plain.join("\n");
        for told in ["1,234", "FAILED", "attempt  3", "more words", "followed"] {
            assert!(text.contains(told), "{told}: {text}");
        }
        assert!(!text.contains("queue"), "{text}");
    }
}

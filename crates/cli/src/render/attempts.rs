//! The executions of a task as a small table.

use taskyard_proto::v1::Attempt;

use super::{
    super::{
        output::printable,
        table::{Column, aligned, heading},
        units,
    },
    error_text,
};

/// A line for each attempt; nothing unless there are several, for the task itself
/// tells of the only one.
pub fn table(attempts: &[Attempt]) -> Option<String> {
    if attempts.len() < 2 {
        return None;
    }
    let header = heading(["ATTEMPT", "WORKER", "STARTED", "RAN", "ERROR"]);
    let rows: Vec<_> = std::iter::once(header).chain(attempts.iter().map(row)).collect();
    let text = Column::text(0);
    Some(aligned([Column::figures(0), text, text, Column::figures(0), text], &rows))
}

fn row(attempt: &Attempt) -> [String; 5] {
    let ran = match (attempt.start_time, attempt.end_time) {
        (Some(start), Some(end)) => units::span(units::between(start, end)),
        _ => String::new(),
    };
    [
        attempt.attempt.to_string(),
        printable(&attempt.worker),
        attempt.start_time.map(units::calendar).unwrap_or_default(),
        ran,
        attempt.error.as_ref().map(error_text).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskyard_proto::v1::TaskError;

    #[test]
    fn only_several_attempts_are_worth_a_table() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let failed = Attempt {
            attempt: 1,
            worker: "worker-3".into(),
            start_time: at(100),
            end_time: at(102),
            error: Some(TaskError { reason: "TIMEOUT".into(), message: "too slow".into() }),
            ..Attempt::default()
        };
        assert_eq!(table(std::slice::from_ref(&failed)), None);
        let running = Attempt { attempt: 2, end_time: None, error: None, ..failed.clone() };
        let text = table(&[failed, running]).expect("there are two");
        let text = console::strip_ansi_codes(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].starts_with("      1  worker-3  "), "{text}");
        assert!(lines[1].ends_with("  2.0 s  TIMEOUT: too slow"), "{text}");
        assert!(lines[2].starts_with("      2  worker-3  ") && !lines[2].contains(" s"), "{text}");
    }
}

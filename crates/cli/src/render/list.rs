//! Tasks as a table, a line each.

use prost_types::Timestamp;
use taskyard_proto::v1::Task;

use super::{
    super::{
        columns::{Paged, Stack, fitted},
        json,
        output::{middle_cut, printable},
        units,
    },
    attempts, state_style,
};

/// One page of a list, aligned. Where the screen has `room` for so many columns, names are
/// cut in the middle and the least important columns left out; identifiers and figures are
/// never cut. Without such a bound there is everything. `now` tells which times are of today.
pub fn task_table(
    tasks: &[Task],
    pages: &mut Paged,
    room: Option<usize>,
    now: Timestamp,
) -> String {
    let columns = fitted(room, 6, |longest| columns(tasks, longest, room.map(|_| now)));
    pages.table(columns, room)
}

/// The columns, of which names are cut to `longest`; times of today without a date, if it is
/// said when that is.
fn columns(tasks: &[Task], longest: usize, today: Option<Timestamp>) -> Vec<Stack> {
    let cells = |cell: &dyn Fn(&Task) -> String| tasks.iter().map(cell).collect::<Vec<_>>();
    let name = |text: &str| middle_cut(&printable(text), longest);
    let state = |task: &Task| {
        state_style(task.state()).apply_to(json::state_name(task.state())).to_string()
    };
    let ran = |task: &Task| match (task.start_time, task.finish_time) {
        (Some(started), Some(finished)) => units::span(units::between(started, finished)),
        _ => String::new(),
    };
    let time =
        |task: &Task| task.create_time.map(|time| units::recent(time, today)).unwrap_or_default();
    let error =
        |task: &Task| task.error.as_ref().map(|error| name(&error.reason)).unwrap_or_default();
    let width = if today.is_some() { 12 } else { 23 };
    // The least widths keep the pages of a long list aligned, unless something is unusual.
    vec![
        Stack::text("TASK", cells(&|task| printable(&task.task_id))).at_least(14),
        Stack::text("STATE", cells(&state)).at_least(9),
        Stack::text("KIND", cells(&|task| name(&task.kind))).at_least(8).optional(1),
        Stack::text("QUEUE", cells(&|task| name(&task.queue))).at_least(8).optional(2),
        Stack::text("ATTEMPT", cells(&|task| attempts(task, "/"))).at_least(7).optional(6),
        Stack::text("CREATED", cells(&time)).at_least(width).optional(5),
        Stack::figures("RAN", cells(&ran)).at_least(7).optional(4),
        Stack::text("ERROR", cells(&error)).optional(3),
    ]
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;

    use super::*;
    use taskyard_proto::v1::{TaskError, TaskState};

    const NOW: Timestamp = Timestamp { seconds: 1_766_577_600, nanos: 0 };

    fn table(tasks: &[Task], room: Option<usize>) -> String {
        let text = task_table(tasks, &mut Paged::default(), room, NOW);
        console::strip_ansi_codes(&text).into_owned()
    }

    fn task() -> Task {
        Task {
            task_id: "t1zq8x5kd7".into(),
            state: TaskState::Failed.into(),
            kind: "exec".into(),
            queue: "a-queue-with-a-very-long-name-of-its-own-in-production".into(),
            attempt: 2,
            max_attempts: 3,
            create_time: Some(NOW),
            start_time: Some(NOW),
            finish_time: Some(Timestamp { seconds: NOW.seconds + 75, nanos: 0 }),
            error: Some(TaskError { reason: "EXIT_STATUS".into(), message: "1".into() }),
            ..Task::default()
        }
    }

    #[test]
    fn a_table_fits_every_terminal_and_cuts_no_figure() {
        for width in 40..220 {
            let text = table(&[task(), Task { queue: "default".into(), ..task() }], Some(width));
            assert!(text.lines().all(|line| measure_text_width(line) <= width), "{width}:\n{text}");
            assert!(text.lines().skip(1).all(|line| line.starts_with("t1zq8x5kd7  ")), "{text}");
            if text.contains("RAN") {
                assert_eq!(text.matches("1 min 15 s").count(), 2, "{width}:\n{text}");
            }
        }
        let narrow = table(&[task()], Some(80));
        assert!(narrow.contains("a-queu") && narrow.contains('…'), "{narrow}");
        assert!(!narrow.contains("ATTEMPT") && narrow.contains("EXIT_STATUS"), "{narrow}");
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        let text = table(&[task()], None);
        for whole in [task().queue.as_str(), "2/3", "1 min 15 s", "EXIT_STATUS", "2025-12-2"] {
            assert!(text.contains(whole), "{whole}: {text}");
        }
    }

    #[test]
    fn all_pages_have_the_columns_of_the_first() {
        let mut pages = Paged::default();
        let first = task_table(&[task()], &mut pages, Some(60), NOW);
        let short = Task { queue: "q".into(), ..task() };
        let second = task_table(&[short], &mut pages, Some(60), NOW);
        assert!(!first.contains("RAN") && first.lines().count() == 2, "{first}");
        assert!(!second.contains("1 min 15 s") && second.lines().count() == 1, "{second}");
    }
}

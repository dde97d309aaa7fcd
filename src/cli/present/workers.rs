//! The crew as text for people: a line for each worker, and what it runs.

use console::Style;

use super::{
    super::{
        output::printable,
        table::{Column, aligned, heading},
        units::{self, count, percent},
    },
    bar::{bar, load_style},
};
use crate::proto::v1::{Pool, Worker};

/// Columns of the bar of a worker's busy share.
const BAR: usize = 10;

const HEADER: [&str; 9] =
    ["WORKER", "TASK", "KIND", "QUEUE", "ATTEMPT", "FOR", "FINISHED", "BUSY", ""];

/// The workers, a line each, aligned; identifiers are never cut.
pub fn table(pool: &Pool) -> String {
    let rows = pool.workers.iter().map(row);
    let rows: Vec<_> = std::iter::once(heading(HEADER)).chain(rows).collect();
    let (text, figures) = (Column::text(0), Column::figures(0));
    aligned([text, Column::text(14), text, text, figures, figures, figures, figures, text], &rows)
}

fn row(worker: &Worker) -> [String; 9] {
    let share = worker.busy_share;
    let mut end = bar(share, BAR, &load_style(share));
    if worker.leaving {
        end = format!("{end}  {}", Style::new().yellow().apply_to("leaving"));
    }
    let [task, kind, queue, attempt, running] = execution(worker);
    [
        printable(&worker.worker),
        task,
        kind,
        queue,
        attempt,
        running,
        count(worker.finished),
        percent(share),
        end,
    ]
}

fn execution(worker: &Worker) -> [String; 5] {
    let Some(execution) = &worker.execution else {
        let idle = Style::new().dim().apply_to("idle").to_string();
        return [idle, String::new(), String::new(), String::new(), String::new()];
    };
    [
        Style::new().cyan().apply_to(printable(&execution.task_id)).to_string(),
        printable(&execution.kind),
        printable(&execution.queue),
        execution.attempt.to_string(),
        execution.running_for.map(|span| units::span(units::from_wire(span))).unwrap_or_default(),
    ]
}

/// What the crew is going to be, in a sentence.
pub fn size_words(pool: &Pool) -> String {
    let leaving = pool.workers.iter().filter(|worker| worker.leaving).count() as u64;
    let size = units::counted(pool.size.into(), "worker");
    match leaving {
        0 => format!("the crew has {size}"),
        1 => format!("the crew will have {size}: 1 leaves when its task has ended"),
        more => format!("the crew will have {size}: {more} leave when their tasks have ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::Execution;

    fn pool() -> Pool {
        let execution = Execution {
            task_id: "t1msh6argt".into(),
            queue: "mail".into(),
            kind: "exec".into(),
            attempt: 2,
            running_for: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
            ..Execution::default()
        };
        let busy = Worker {
            worker: "worker-2".into(),
            leaving: true,
            execution: Some(execution),
            finished: 1_234,
            busy_share: 0.75,
        };
        let idle = Worker { worker: "worker-1".into(), ..Worker::default() };
        Pool { size: 1, workers: vec![idle, busy] }
    }

    #[test]
    fn every_worker_has_a_line() {
        assert_eq!(
            console::strip_ansi_codes(&table(&pool())),
            "\
WORKER    TASK            KIND  QUEUE  ATTEMPT    FOR  FINISHED  BUSY
worker-1  idle                                                0    0%  ──────────
worker-2  t1msh6argt      exec  mail         2  3.0 s     1,234   75%  ━━━━━━━╸──  leaving"
        );
    }

    #[test]
    fn who_leaves_is_told() {
        let words = "the crew will have 1 worker: 1 leaves when its task has ended";
        assert_eq!(size_words(&pool()), words);
        assert_eq!(size_words(&Pool { size: 8, workers: vec![] }), "the crew has 8 workers");
    }
}

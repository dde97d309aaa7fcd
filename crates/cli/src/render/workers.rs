//! The pool as text for people: a line for each worker, and what it runs.

use console::Style;
use taskyard_proto::v1::{Execution, Pool, Worker};

use super::{
    super::{
        columns::{self, Stack, fitted},
        output::{middle_cut, printable},
        units::{self, count, percent},
    },
    bar::{bar, load_style},
};

/// Columns of the bar of a worker's busy share.
const BAR: usize = 10;

/// Columns of a task's id, so that the table stands still while tasks come and go.
const TASK: usize = 14;

/// The workers, a line each, aligned, fitted to a screen with so much room; in full without
/// such a bound. Identifiers are never cut.
pub fn table(pool: &Pool, room: Option<usize>) -> String {
    let workers: Vec<_> = pool.workers.iter().collect();
    columns::table(&fitted(room, 6, |longest| worker_columns(&workers, longest)))
}

/// The columns of a table of workers, of which names of queues and kinds are cut to
/// `longest` columns of the screen.
pub fn worker_columns(workers: &[&Worker], longest: usize) -> Vec<Stack> {
    let cells = |cell: &dyn Fn(&Worker) -> String| {
        workers.iter().map(|worker| cell(worker)).collect::<Vec<_>>()
    };
    let running = |cell: &dyn Fn(&Execution) -> String| {
        cells(&|worker| worker.execution.as_ref().map(cell).unwrap_or_default())
    };
    let cut = |text: &str| middle_cut(&printable(text), longest);
    let bars = |worker: &Worker| bar(worker.busy_share, BAR, &load_style(worker.busy_share));
    let leaving = Style::new().yellow().apply_to("leaving").to_string();
    let mut columns = vec![
        Stack::text("WORKER", cells(&|worker| printable(&worker.worker))),
        Stack::text("TASK", cells(&task)).at_least(TASK),
        Stack::text("KIND", running(&|execution| cut(&execution.kind))).optional(2),
        Stack::text("QUEUE", running(&|execution| cut(&execution.queue))).optional(4),
        Stack::figures("ATTEMPT", running(&|execution| execution.attempt.to_string())).optional(3),
        Stack::figures("FOR", running(&running_for)).optional(0),
        Stack::figures("FINISHED", cells(&|worker| count(worker.finished))).optional(5),
        Stack::figures("BUSY", cells(&|worker| percent(worker.busy_share))).optional(1),
        Stack::text("", cells(&bars)).optional(6),
    ];
    if workers.iter().any(|worker| worker.leaving) {
        let word = |worker: &Worker| if worker.leaving { leaving.clone() } else { String::new() };
        columns.push(Stack::text("", cells(&word)));
    }
    columns
}

fn task(worker: &Worker) -> String {
    match &worker.execution {
        Some(execution) => Style::new().cyan().apply_to(printable(&execution.task_id)).to_string(),
        None => Style::new().dim().apply_to("idle").to_string(),
    }
}

fn running_for(execution: &Execution) -> String {
    execution.running_for.map(|span| units::span(units::from_wire(span))).unwrap_or_default()
}

/// What the pool is going to be, in a sentence.
pub fn size_words(pool: &Pool) -> String {
    let leaving = pool.workers.iter().filter(|worker| worker.leaving).count() as u64;
    let size = units::counted(pool.size.into(), "worker");
    match leaving {
        0 => format!("the pool has {size}"),
        1 => format!("the pool will have {size}: 1 leaves when its task has ended"),
        more => format!("the pool will have {size}: {more} leave when their tasks have ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            console::strip_ansi_codes(&table(&pool(), None)),
            "\
WORKER    TASK            KIND  QUEUE  ATTEMPT    FOR  FINISHED  BUSY
worker-1  idle                                                0    0%  ──────────
worker-2  t1msh6argt      exec  mail         2  3.0 s     1,234   75%  ━━━━━━━╸──  leaving"
        );
    }

    #[test]
    fn who_leaves_is_told() {
        let words = "the pool will have 1 worker: 1 leaves when its task has ended";
        assert_eq!(size_words(&pool()), words);
        assert_eq!(size_words(&Pool { size: 8, workers: vec![] }), "the pool has 8 workers");
    }
}

//! What the demo says at its end, on stdout.
//!
//! Owns the wording and the layout. Must not know where the figures come from.

use std::time::Duration;

use console::Style;
use taskyard_cli::{
    output::printable,
    program,
    table::{Column, aligned},
    units::{counted, span},
};

use super::{
    progress::{Progress, percentile},
    screen::Files,
};

/// Failures that are listed.
const MAX_FAILURES: usize = 20;

/// All of it, as one text.
pub fn text(progress: &Progress, files: &Files, wall: Duration) -> String {
    let parts = [
        headline(progress, wall),
        times(progress),
        workers(progress),
        failures(progress, files),
        next(),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n\n")
}

fn headline(progress: &Progress, wall: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    let rate = progress.ended() as f64 / wall.as_secs_f64().max(1e-6);
    let succeeded = Style::new().green().apply_to(format!("{} succeeded", progress.succeeded));
    let failed = match progress.failures.len() {
        0 => String::new(),
        number => format!(", {}", Style::new().red().apply_to(format!("{number} failed"))),
    };
    let tasks = Style::new().bold().apply_to(counted(progress.ended(), "task"));
    format!("{tasks}: {succeeded}{failed}, in {} ({rate:.0} tasks/s)", span(wall))
}

fn times(progress: &Progress) -> String {
    let line = |name, values: &[Duration]| {
        let (p50, p99) = (percentile(values, 50)?, percentile(values, 99)?);
        Some(format!("{name:<8} p50 {:>8}   p99 {:>8}", span(p50), span(p99)))
    };
    let lines = [line("waiting", &progress.waited), line("running", &progress.ran)];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn workers(progress: &Progress) -> String {
    let all: Duration = progress.workers.values().map(|worker| worker.busy).sum();
    let header = ["WORKER", "TASKS", "BUSY", "SHARE", ""];
    let header = header.map(|name| Style::new().dim().apply_to(name).to_string());
    let rows = progress.workers.iter().map(|(name, worker)| {
        let share = worker.busy.as_secs_f64() / all.as_secs_f64().max(1e-9);
        [
            name.to_string(),
            worker.done.to_string(),
            span(worker.busy),
            format!("{:.0}%", share * 100.0),
            Style::new().cyan().apply_to(bar(share)).to_string(),
        ]
    });
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    let figures = Column::figures(0);
    aligned([Column::text(0), figures, figures, figures, Column::text(0)], &rows)
}

/// A share of the whole, as a bar of up to 24 characters.
fn bar(share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share is between 0 and 1"
    )]
    let length = (share.clamp(0.0, 1.0) * 24.0).round() as usize;
    "━".repeat(length)
}

fn failures(progress: &Progress, files: &Files) -> String {
    let mut lines: Vec<_> = progress
        .failures
        .iter()
        .take(MAX_FAILURES)
        .map(|failure| {
            let file = files.get(&failure.task_id).unwrap_or(&failure.task_id);
            let file = Style::new().red().apply_to(printable(file));
            format!("{file}  {}", failure.why)
        })
        .collect();
    if let Some(more @ 1..) = progress.failures.len().checked_sub(MAX_FAILURES) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

fn next() -> String {
    let (dim, program) = (Style::new().dim(), program::name());
    format!(
        "Next:\n  {program} serve\n  {program} watch      # in another terminal; then: {program} \
         submit sleep --args '{{\"duration\":\"2s\"}}' --wait\n  {}",
        dim.apply_to("grpcurl -plaintext localhost:50051 taskyard.v1.TaskService/WatchEvents"),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::progress::Failure, *};

    fn progress() -> Progress {
        let mut progress = Progress { succeeded: 3, ..Progress::default() };
        progress.waited = [1, 2, 30].map(Duration::from_millis).to_vec();
        progress.ran = [4, 5, 6].map(Duration::from_millis).to_vec();
        for (name, done, busy) in [("worker-1", 3, 30), ("worker-2", 1, 10)] {
            let worker = progress.workers.entry(name.into()).or_default();
            (worker.done, worker.busy) = (done, Duration::from_millis(busy));
        }
        progress
    }

    fn plain(progress: &Progress, files: &Files) -> String {
        console::strip_ansi_codes(&text(progress, files, Duration::from_millis(500))).into_owned()
    }

    #[test]
    fn a_good_run_in_figures() {
        let text = plain(&progress(), &Files::new());
        assert!(text.starts_with("3 tasks: 3 succeeded, in 500 ms (6 tasks/s)\n"), "{text}");
        assert!(text.contains("waiting  p50   2.0 ms   p99    30 ms"), "{text}");
        assert!(text.contains("75%") && text.contains(&"━".repeat(18)), "{text}");
        assert!(text.contains("taskyard serve") && text.contains("grpcurl"), "{text}");
    }

    #[test]
    fn failures_are_told_by_file() {
        let mut progress = progress();
        progress.failures.push(Failure { task_id: "t1".into(), why: "EXIT_STATUS: 1".into() });
        let files = Files::from([("t1".to_owned(), "secret.txt".to_owned())]);
        let text = plain(&progress, &files);
        assert!(text.starts_with("4 tasks: 3 succeeded, 1 failed"), "{text}");
        assert!(text.contains("\nsecret.txt  EXIT_STATUS: 1\n"), "{text}");
    }

    #[test]
    fn many_failures_are_cut_and_said_so() {
        let failure = Failure { task_id: "t1".into(), why: "ERROR".into() };
        let progress = Progress { failures: vec![failure; 25], ..Progress::default() };
        assert!(failures(&progress, &Files::new()).ends_with("and 5 more"));
    }

    #[test]
    fn without_a_task_there_is_still_a_summary() {
        let text = plain(&Progress::default(), &Files::new());
        assert!(text.starts_with("0 tasks: 0 succeeded"), "{text}");
    }
}

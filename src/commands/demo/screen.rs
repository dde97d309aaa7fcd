//! What the demo shows while it works, on stderr.
//!
//! Owns the live table on a terminal, and the occasional line elsewhere. Must
//! not know servers.

use std::{collections::HashMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use taskyard_cli::{
    interrupt::NoEcho,
    output::{note, printable, shortened, stderr_is_terminal},
};
use tokio::time::Instant;

use super::progress::{Name, Progress};

/// Task ids and the files that they stand for.
pub type Files = HashMap<String, String>;

/// Workers that have a line of their own; more would not fit.
const MAX_LINES: usize = 16;

/// How often there is a line where there is no terminal.
const PERIOD: Duration = Duration::from_secs(1);

/// The screen.
pub enum Screen {
    /// A table that is drawn again and again.
    Live(Live),
    /// A line now and then.
    Plain {
        /// Tasks in all.
        total: u64,
        /// When the next line is due.
        next: Instant,
    },
}

/// One line a worker, and a bar below.
pub struct Live {
    table: MultiProgress,
    workers: Vec<(Name, ProgressBar)>,
    bar: ProgressBar,
    _echo: Option<NoEcho>,
}

impl Screen {
    /// A screen for so many tasks and workers.
    pub fn new(total: u64, workers: u32) -> Self {
        if stderr_is_terminal() {
            Self::Live(Live::new(total, workers))
        } else {
            Self::Plain { total, next: Instant::now() + PERIOD }
        }
    }

    /// Shows how things stand.
    pub fn show(&mut self, progress: &Progress, files: &Files) {
        match self {
            Self::Live(live) => live.show(progress, files),
            Self::Plain { total, next } if Instant::now() >= *next => {
                *next = Instant::now() + PERIOD;
                note(plain_line(progress, *total));
            }
            Self::Plain { .. } => {}
        }
    }

    /// Tells something, above the table.
    pub fn note(&self, text: &str) {
        match self {
            Self::Live(live) => live.table.suspend(|| note(text)),
            Self::Plain { .. } => note(text),
        }
    }

    /// Leaves the terminal as it was.
    fn clear(&self) {
        if let Self::Live(live) = self {
            // A bar that goes on ticking would draw the table again, and so would one that is
            // dropped.
            live.bar.disable_steady_tick();
            // A terminal that has gone needs no clearing.
            let _ = live.table.clear();
            live.table.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

/// However the run ends, also where Ctrl-C drops it in the middle.
impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

fn plain_line(progress: &Progress, total: u64) -> String {
    let running = progress.workers.values().filter(|worker| worker.running.is_some()).count();
    format!(
        "{} of {total} done, {running} running, {} failed",
        progress.ended(),
        progress.failures.len()
    )
}

impl Live {
    fn new(total: u64, workers: u32) -> Self {
        let table = MultiProgress::new();
        let numbers = (1..=workers).take(MAX_LINES);
        let workers =
            numbers.map(|number| worker_line(&table, &format!("worker-{number}"))).collect();
        let bar = table.add(ProgressBar::new(total));
        bar.set_style(style("\n  {bar:40.cyan/dim}  {pos}/{len}  {msg}{elapsed:.dim}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { table, workers, bar, _echo: NoEcho::begin() }
    }

    fn show(&self, progress: &Progress, files: &Files) {
        for (name, line) in &self.workers {
            let Some(worker) = progress.workers.get(name) else { continue };
            line.set_position(worker.done);
            line.set_message(match &worker.running {
                Some(task_id) => file_of(task_id, files),
                None => String::new(),
            });
        }
        self.bar.set_position(progress.ended());
        if !progress.failures.is_empty() {
            self.bar.set_message(format!("{} failed  ", progress.failures.len()));
        }
    }
}

fn worker_line(table: &MultiProgress, name: &str) -> (Name, ProgressBar) {
    let line = table.add(ProgressBar::no_length());
    line.set_style(style("  {prefix:10.bold} {pos:>5} done  {msg:.cyan}"));
    line.set_prefix(name.to_owned());
    line.tick();
    (name.into(), line)
}

/// The file that a task works on, short enough for one line.
fn file_of(task_id: &str, files: &Files) -> String {
    let name = files.get(task_id).map_or(task_id, String::as_str);
    shortened(&printable(name), 50)
}

/// A template of our own that is wrong shows as the plain bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_it_is() {
        assert_eq!(plain_line(&Progress::default(), 9), "0 of 9 done, 0 running, 0 failed");
    }

    #[test]
    fn a_task_shows_as_its_file_once_that_is_known() {
        let mut files = Files::new();
        assert_eq!(file_of("t1", &files), "t1");
        files.insert("t1".into(), "src/\u{1b}lib.rs".into());
        assert_eq!(file_of("t1", &files), "src/\\u{1b}lib.rs");
    }

    #[test]
    fn the_templates_are_valid() {
        for template in [
            "\n  {bar:40.cyan/dim}  {pos}/{len}  {msg}{elapsed:.dim}",
            "  {prefix:10.bold} {pos:>5} done  {msg:.cyan}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}

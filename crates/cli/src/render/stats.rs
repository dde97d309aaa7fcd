//! Statistics as text for people, in pieces that a screen is made of.
//!
//! Owns the wording, and the columns of the queues. Must not know how much room there
//! is on a screen, or what is left out of it.

use console::{Style, measure_text_width};
use taskyard_proto::v1::{PoolStats, QueueStats, SizingAdvice, TaskCounts};

use super::{
    super::{
        columns::Stack,
        output::{middle_cut, printable},
        program,
        units::{count, frequency, from_wire, percent, span},
    },
    bar::{bar, load_style},
    queues::{block_style, block_word, counts_parts},
};

/// Columns of the names in front of the lines.
pub const NAMES: usize = 9;

/// A line with a name in front.
pub fn named(name: &str, text: &str) -> String {
    format!("{}{text}", Style::new().dim().apply_to(format!("{name:<NAMES$}")))
}

/// Words in as many lines as they take, the first with a name in front.
pub fn paragraph(name: &str, words: &[String], width: usize) -> Vec<String> {
    let lines = wrapped(words, width.saturating_sub(NAMES)).into_iter().enumerate();
    lines.map(|(at, line)| named(if at == 0 { name } else { "" }, &line)).collect()
}

/// How many tasks stand where, each number with its word.
pub fn tasks_words(counts: TaskCounts) -> Vec<String> {
    let mut parts = counts_parts(counts);
    match parts.len() {
        0 => vec!["none".into()],
        all => {
            parts[..all - 1].iter_mut().for_each(|part| part.push(','));
            parts
        }
    }
}

/// How busy the pool is, with a bar, for a screen so wide.
pub fn pool_words(pool: &PoolStats, width: usize) -> String {
    let share = pool.busy_share;
    let style = load_style(share);
    let bar = bar(share, (width / 3).clamp(10, 48), &style);
    format!(
        "{bar}  {} busy; {} of {} workers run a task",
        style.apply_to(percent(share)),
        count(pool.busy_workers.into()),
        count(pool.workers.into()),
    )
}

/// How fast tasks come and go.
pub fn rates_words(pool: &PoolStats) -> String {
    let [arriving, ending] = [pool.arrival_rate, pool.completion_rate].map(frequency);
    format!("{arriving}/s arrive, {ending}/s complete, over about the last minute")
}

/// How long tasks wait and run.
pub fn times_words(pool: &PoolStats) -> String {
    let mean = |value: Option<prost_types::Duration>| value.map(|value| span(from_wire(value)));
    match (mean(pool.mean_service), mean(pool.mean_wait)) {
        (None, None) => "nothing was measured yet".into(),
        (Some(service), None) => format!("{service} to run"),
        (None, Some(wait)) => format!("{wait} to wait for a worker"),
        (Some(service), Some(wait)) => {
            format!("{service} to run, after {wait} of waiting, in the mean")
        }
    }
}

/// The server's sentence, and what to do about it.
pub fn advice_words(advice: Option<&SizingAdvice>, workers: u32) -> String {
    let Some(advice) = advice.filter(|advice| !advice.summary.is_empty()) else {
        return "none yet: nothing was measured".into();
    };
    let summary = printable(advice.summary.trim());
    if advice.workers > workers && workers > 0 {
        format!("{summary} ({} resize {})", program::name(), advice.workers)
    } else {
        summary
    }
}

/// Words in lines of at most `width` columns; a longer word has a line of its own.
fn wrapped(words: &[String], width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words {
        let longer = measure_text_width(&line) + 1 + measure_text_width(word);
        if !line.is_empty() && longer > width {
            lines.push(std::mem::take(&mut line));
        }
        line.push_str(if line.is_empty() { "" } else { " " });
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// The columns of a table of queues, of which names are cut to `longest` columns of
/// the screen. What holds tasks back is the last, and may be empty.
pub fn queue_columns(queues: &[&QueueStats], longest: usize) -> Vec<Stack> {
    let cells = |cell: &dyn Fn(&QueueStats, TaskCounts) -> String| {
        queues.iter().map(|queue| cell(queue, queue.counts.unwrap_or_default())).collect::<Vec<_>>()
    };
    let mean = |value: Option<prost_types::Duration>| {
        value.map_or_else(|| "-".into(), |value| span(from_wire(value)))
    };
    let block = |queue: &QueueStats| {
        let style = block_style(queue.block);
        block_word(queue.block).map(|word| style.apply_to(word).to_string()).unwrap_or_default()
    };
    vec![
        Stack::text("QUEUE", cells(&|queue, _| middle_cut(&printable(&queue.queue), longest))),
        Stack::figures("WAITING", cells(&|_, counts| count(counts.scheduled + counts.queued))),
        Stack::figures("RUNNING", cells(&|_, counts| count(counts.running))).optional(0),
        Stack::figures("IN/S", cells(&|queue, _| frequency(queue.arrival_rate))).optional(2),
        Stack::figures("OUT/S", cells(&|queue, _| frequency(queue.completion_rate))).optional(2),
        Stack::figures("RUNS", cells(&|queue, _| mean(queue.mean_service))).optional(5),
        Stack::figures("WAITED", cells(&|queue, _| mean(queue.mean_wait))).optional(4),
        Stack::figures("FAILED", cells(&|_, counts| count(counts.failed))).optional(6),
        Stack::figures("WAIT NOW", cells(&|queue, _| mean(queue.wait_now))).optional(1),
        Stack::figures("BUSY", cells(&|queue, _| percent(queue.busy_share))).optional(3),
        Stack::text("", cells(&|queue, _| block(queue))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_proposed_only_if_it_is_larger() {
        let advice =
            |workers| SizingAdvice { workers, summary: "so.".into(), ..SizingAdvice::default() };
        assert_eq!(advice_words(Some(&advice(9)), 8), "so. (taskyard resize 9)");
        assert_eq!(advice_words(Some(&advice(8)), 8), "so.");
        assert_eq!(advice_words(Some(&advice(0)), 8), "so.");
        assert_eq!(advice_words(None, 8), "none yet: nothing was measured");
    }
}

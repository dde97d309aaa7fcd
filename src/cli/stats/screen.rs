//! The screen of `stats`, as one text.
//!
//! Owns the wording and the layout for a given size. Must not know terminals, or
//! where the figures come from.

use console::{Style, measure_text_width};

use super::{
    super::{
        output::{printable, shortened},
        present::{
            bar::{bar, load_style},
            queues::{block_style, block_word, counts_parts},
        },
        units::{between, count, frequency, from_wire, percent, span},
    },
    columns::{Stack, fit, table, width},
};
use crate::proto::v1::{CrewStats, GetStatsResponse, QueueStats, SizingAdvice, TaskCounts};

/// Columns of the names in front of the lines.
const NAMES: usize = 9;

/// The narrowest screen for which lines are broken; on a narrower one they are cut.
const LEAST_WIDTH: usize = 40;

/// Columns of a queue's bar: as many as there is room for, within these bounds.
const BAR: std::ops::RangeInclusive<usize> = 6..=20;

/// All of it, within `width` columns and, by leaving out the quietest queues,
/// `height` lines.
pub fn screen(stats: &GetStatsResponse, width: usize, height: usize) -> String {
    let width = width.max(LEAST_WIDTH);
    let crew = stats.crew.unwrap_or_default();
    let mut lines = vec![named("crew", &crew_words(&crew, width))];
    lines.push(named("rates", &rates_words(&crew)));
    lines.push(named("times", &times_words(&crew)));
    lines.extend(paragraph("tasks", &tasks_words(crew.counts.unwrap_or_default()), width));
    if let (Some(start), Some(now)) = (stats.start_time, stats.time) {
        lines.push(named("up", &span(between(start, now))));
    }
    let advice = advice_words(stats.advice.as_ref(), crew.workers);
    let advice: Vec<_> = advice.split_whitespace().map(str::to_owned).collect();
    lines.extend(paragraph("advice", &advice, width));
    if stats.queues.is_empty() {
        return lines.join("\n");
    }
    lines.push(String::new());
    // One line for the heading.
    let room = height.saturating_sub(lines.len() + 1).max(1);
    let (queues, left_out) = busiest(&stats.queues, room);
    lines.push(queue_table(&queues, width));
    if left_out > 0 {
        let more = format!("and {} quieter ones; see taskyard queues", count(left_out as u64));
        lines.push(Style::new().dim().apply_to(more).to_string());
    }
    lines.join("\n")
}

fn named(name: &str, text: &str) -> String {
    format!("{}{text}", Style::new().dim().apply_to(format!("{name:<NAMES$}")))
}

/// Words in as many lines as they take, the first with a name in front.
fn paragraph(name: &str, words: &[String], width: usize) -> Vec<String> {
    let lines = wrapped(words, width - NAMES).into_iter().enumerate();
    lines.map(|(at, line)| named(if at == 0 { name } else { "" }, &line)).collect()
}

/// How many tasks stand where, each number with its word.
fn tasks_words(counts: TaskCounts) -> Vec<String> {
    let mut parts = counts_parts(counts);
    match parts.len() {
        0 => vec!["none".into()],
        all => {
            parts[..all - 1].iter_mut().for_each(|part| part.push(','));
            parts
        }
    }
}

fn crew_words(crew: &CrewStats, width: usize) -> String {
    let share = crew.busy_share;
    let style = load_style(share);
    let bar = bar(share, (width / 3).clamp(10, 48), &style);
    format!(
        "{bar}  {} busy; {} of {} workers run a task",
        style.apply_to(percent(share)),
        count(crew.busy_workers.into()),
        count(crew.workers.into()),
    )
}

fn rates_words(crew: &CrewStats) -> String {
    let [arriving, ending] = [crew.arrival_rate, crew.completion_rate].map(frequency);
    format!("{arriving}/s arrive, {ending}/s complete, over about the last minute")
}

fn times_words(crew: &CrewStats) -> String {
    let mean = |value: Option<prost_types::Duration>| value.map(|value| span(from_wire(value)));
    match (mean(crew.mean_service), mean(crew.mean_wait)) {
        (None, None) => "nothing was measured yet".into(),
        (Some(service), None) => format!("{service} to run"),
        (None, Some(wait)) => format!("{wait} to wait for a worker"),
        (Some(service), Some(wait)) => {
            format!("{service} to run, after {wait} of waiting, in the mean")
        }
    }
}

/// The server's sentence, and what to do about it.
fn advice_words(advice: Option<&SizingAdvice>, workers: u32) -> String {
    let Some(advice) = advice.filter(|advice| !advice.summary.is_empty()) else {
        return "none yet: nothing was measured".into();
    };
    let summary = printable(advice.summary.trim());
    if advice.workers > workers && workers > 0 {
        format!("{summary} (taskyard resize {})", advice.workers)
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

/// The queues with the most to do, as many as there is room for, in their order;
/// and how many are left out, which then takes a line.
fn busiest(queues: &[QueueStats], room: usize) -> (Vec<&QueueStats>, usize) {
    let all: Vec<_> = queues.iter().collect();
    if all.len() <= room {
        return (all, 0);
    }
    let kept = room.saturating_sub(1).max(1);
    let work = |queue: &QueueStats| {
        let counts = queue.counts.unwrap_or_default();
        counts.running + counts.queued + counts.scheduled
    };
    let mut order: Vec<_> = (0..all.len()).collect();
    order.sort_by(|&a, &b| {
        let by_work = work(all[b]).cmp(&work(all[a]));
        by_work.then(all[b].arrival_rate.total_cmp(&all[a].arrival_rate)).then(a.cmp(&b))
    });
    order.truncate(kept);
    order.sort_unstable();
    (order.into_iter().map(|place| all[place]).collect(), queues.len() - kept)
}

fn queue_table(queues: &[&QueueStats], screen: usize) -> String {
    let cells = |cell: &dyn Fn(&QueueStats, TaskCounts) -> String| {
        queues.iter().map(|queue| cell(queue, queue.counts.unwrap_or_default())).collect::<Vec<_>>()
    };
    let mean = |value: Option<prost_types::Duration>| {
        value.map_or_else(|| "-".into(), |value| span(from_wire(value)))
    };
    let name_width = screen / 5;
    let mut stacks = vec![
        Stack::text("QUEUE", cells(&|queue, _| shortened(&printable(&queue.queue), name_width))),
        Stack::figures("WAITING", cells(&|_, counts| count(counts.scheduled + counts.queued))),
        Stack::figures("RUNNING", cells(&|_, counts| count(counts.running))),
        Stack::figures("IN/S", cells(&|queue, _| frequency(queue.arrival_rate))),
        Stack::figures("OUT/S", cells(&|queue, _| frequency(queue.completion_rate))),
        Stack::figures("RUNS", cells(&|queue, _| mean(queue.mean_service))).optional(),
        Stack::figures("WAITED", cells(&|queue, _| mean(queue.mean_wait))).optional(),
        Stack::figures("FAILED", cells(&|_, counts| count(counts.failed))).optional(),
        Stack::figures("WAIT NOW", cells(&|queue, _| mean(queue.wait_now))),
        Stack::figures("BUSY", cells(&|queue, _| percent(queue.busy_share))),
    ];
    let words = cells(&|queue, _| {
        let style = block_style(queue.block);
        block_word(queue.block).map(|word| style.apply_to(word).to_string()).unwrap_or_default()
    });
    let blocked = words.iter().any(|word| !word.is_empty());
    let blocks = Stack::text("", words);
    let taken = if blocked { width(std::slice::from_ref(&blocks)) + 2 } else { 0 };
    let room = screen.saturating_sub(taken);
    fit(&mut stacks, room.saturating_sub(BAR.start() + 2));
    let left = room.saturating_sub(width(&stacks) + 2);
    if left >= *BAR.start() {
        let bars = cells(&|queue, _| {
            bar(queue.busy_share, left.min(*BAR.end()), &load_style(queue.busy_share))
        });
        stacks.push(Stack::text("", bars));
    }
    if blocked {
        stacks.push(blocks);
    }
    table(&stacks)
}

#[cfg(test)]
mod tests;

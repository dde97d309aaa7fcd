//! The screen of `stats`, as one text.
//!
//! Owns the wording and the layout for a given size. Must not know terminals, or
//! where the figures come from.

use console::Style;
use taskyard_proto::v1::{GetStatsResponse, QueueStats};

use super::super::{
    columns::{Stack, fit, table, width},
    program,
    render::{
        bar::{bar, load_style},
        stats::{
            advice_words, named, paragraph, pool_words, queue_columns, rates_words, tasks_words,
            times_words,
        },
    },
    units::{between, count, span},
};

/// The narrowest screen for which lines are broken; on a narrower one they are cut.
const LEAST_WIDTH: usize = 40;

/// Columns of a queue's bar: as many as there is room for, within these bounds.
const BAR: std::ops::RangeInclusive<usize> = 6..=20;

/// All of it, within `width` columns and, by leaving out the quietest queues,
/// `height` lines.
pub fn screen(stats: &GetStatsResponse, width: usize, height: usize) -> String {
    let width = width.max(LEAST_WIDTH);
    let pool = stats.pool.unwrap_or_default();
    let mut lines = vec![named("pool", &pool_words(&pool, width))];
    lines.push(named("rates", &rates_words(&pool)));
    lines.push(named("times", &times_words(&pool)));
    lines.extend(paragraph("tasks", &tasks_words(pool.counts.unwrap_or_default()), width));
    if let (Some(start), Some(now)) = (stats.start_time, stats.time) {
        lines.push(named("up", &span(between(start, now))));
    }
    let advice = advice_words(stats.advice.as_ref(), pool.workers);
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
        let more =
            format!("and {} quieter ones; see {} queues", count(left_out as u64), program::name());
        lines.push(Style::new().dim().apply_to(more).to_string());
    }
    lines.join("\n")
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
    let mut stacks = queue_columns(queues, screen / 5);
    let blocks = stacks.pop().filter(|blocks| !blocks.is_empty());
    let taken = blocks.as_ref().map_or(0, |blocks| width(std::slice::from_ref(blocks)) + 2);
    let room = screen.saturating_sub(taken);
    fit(&mut stacks, room.saturating_sub(BAR.start() + 2));
    let left = room.saturating_sub(width(&stacks) + 2);
    if left >= *BAR.start() {
        let bar = |queue: &&QueueStats| {
            bar(queue.busy_share, left.min(*BAR.end()), &load_style(queue.busy_share))
        };
        stacks.push(Stack::text("", queues.iter().map(bar).collect()));
    }
    stacks.extend(blocks);
    table(&stacks)
}

#[cfg(test)]
mod tests;

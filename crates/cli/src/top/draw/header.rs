//! The lines at the top: the server, how it stands with it, the pool, and advice.

use std::time::Duration;

use console::{Style, measure_text_width};
use ratatui::layout::Rect;
use tokio::time::Instant;

use super::{
    super::{
        super::{
            output::printable,
            render::stats::{NAMES, advice_words, named, paragraph, pool_words, tasks_words},
            units::{between, count, frequency, percent, span},
        },
        model::{Link, Model, Picture},
    },
    ends,
};

/// Columns that the words for a rate have, so that what follows stands still.
const RATE: usize = 7;

/// Columns of a screen that has room for more than a word.
const WIDE: usize = 60;

/// Columns of the span that a picture of rates goes back.
const SPAN: usize = 6;

/// As many lines as there is room for, the most important first.
pub fn lines(model: &Model, place: Rect, now: Instant) -> Vec<String> {
    let width = usize::from(place.width);
    let picture = model.picture();
    if place.height == 1 {
        return vec![first(model, now, width, true)];
    }
    let pool = picture.stats.pool.unwrap_or_default();
    let mut lines = vec![
        first(model, now, width, false),
        named("pool", &pool_words(&pool, width)),
        named("rates", &rates(picture, width.saturating_sub(NAMES))),
    ];
    lines.extend(paragraph("tasks", &tasks_words(pool.counts.unwrap_or_default()), usize::MAX));
    let room = usize::from(place.height).saturating_sub(lines.len());
    let wrap = if room > 1 { width } else { usize::MAX };
    lines.extend(match &model.link {
        Link::Up | Link::Draining => {
            let advice = advice_words(picture.stats.advice.as_ref(), pool.workers);
            paragraph("advice", &words(&advice), wrap)
        }
        Link::Lost { why, .. } | Link::Refused(why) => {
            let red = |word| Style::new().red().apply_to(word).to_string();
            paragraph("problem", &words(why).into_iter().map(red).collect::<Vec<_>>(), wrap)
        }
    });
    lines
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The server, and how it stands with it; in an only line also how busy the pool is.
fn first(model: &Model, now: Instant, width: usize, is_only: bool) -> String {
    let is_wide = width >= WIDE;
    let mut right = link(&model.link, now, is_wide);
    if model.is_frozen() {
        right = format!("{}  {right}", frozen(is_wide));
    }
    let room = width.saturating_sub(measure_text_width(&right) + 1);
    let lefts = if is_only { only_lefts(model) } else { lefts(model) };
    let fits = |left: &&String| measure_text_width(left) <= room;
    let left = lefts.iter().find(fits).or(lefts.last()).map_or("", String::as_str);
    ends(left, &right, width)
}

/// What may stand at the left of the first line, the best first.
fn lefts(model: &Model) -> Vec<String> {
    let name = Style::new().bold().apply_to("taskyard").to_string();
    let server = printable(&model.server);
    let stats = &model.picture().stats;
    let long = match (&model.link, stats.start_time, stats.time) {
        (Link::Up | Link::Draining, Some(start), Some(time)) => {
            format!("{name}  {server}  up {}", span(between(start, time)))
        }
        _ => String::new(),
    };
    let lefts = [long, format!("{name}  {server}"), server];
    lefts.into_iter().filter(|left| !left.is_empty()).collect()
}

fn only_lefts(model: &Model) -> Vec<String> {
    let pool = model.picture().stats.pool.unwrap_or_default();
    let share = percent(pool.busy_share);
    let busy = format!("{share} busy");
    let of = format!("{} of {}", count(pool.busy_workers.into()), count(pool.workers.into()));
    let server = printable(&model.server);
    vec![format!("{server}  {busy}; {of} workers run a task"), format!("{busy}; {of}"), busy, share]
}

fn frozen(is_wide: bool) -> String {
    let words = if is_wide { " FROZEN: Space lets it go on " } else { "FROZEN" };
    Style::new().yellow().bold().reverse().apply_to(words).to_string()
}

fn link(link: &Link, now: Instant, is_wide: bool) -> String {
    let (style, words) = match link {
        Link::Up => (Style::new().green(), "● live".to_owned()),
        Link::Draining if is_wide => {
            (Style::new().magenta().bold(), "◌ draining, about to end".into())
        }
        Link::Draining => (Style::new().magenta().bold(), "◌ draining".into()),
        Link::Lost { since, .. } if is_wide => {
            // In whole seconds: less is no outage that anybody could have seen.
            let seconds = now.saturating_duration_since(*since).as_secs();
            let silent = match seconds {
                0 => String::new(),
                seconds => format!(" for {}", span(Duration::from_secs(seconds))),
            };
            (Style::new().red().bold(), format!("✗ no answer{silent}; looking for it"))
        }
        Link::Lost { .. } => (Style::new().red().bold(), "✗ no answer".into()),
        Link::Refused(_) => (Style::new().red().bold(), "✗ refused".into()),
    };
    style.apply_to(words).to_string()
}

/// How fast tasks come and go, now and in the last minutes.
fn rates(picture: &Picture, width: usize) -> String {
    let pool = picture.stats.pool.unwrap_or_default();
    let rate = |rate| format!("{:>RATE$}", format!("{}/s", frequency(rate)));
    let [arriving, ending] = [pool.arrival_rate, pool.completion_rate].map(rate);
    let plain = format!("{} arrive, {} complete", arriving.trim(), ending.trim());
    let fixed = format!("{arriving} arrive     {ending} complete    last {:>SPAN$}", "");
    // On a narrow screen the figures matter more than the picture.
    let columns = (width.saturating_sub(fixed.len()) / 2).min(60);
    if columns < 4 {
        return plain;
    }
    let [arrivals, endings] = picture.history.pictures(columns).map(|p| format!("{p:>columns$}"));
    format!(
        "{arriving} arrive  {}   {ending} complete  {}  {}",
        Style::new().cyan().apply_to(arrivals),
        Style::new().green().apply_to(endings),
        Style::new().dim().apply_to(format!("last {}", rounded(picture.history.span()))),
    )
}

/// A span that changes its width as seldom as can be.
fn rounded(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", count(seconds / 60)),
    }
}

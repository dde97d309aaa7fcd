//! What `top` knows of the service, and what its person wants to see of it.
//!
//! Owns all state of the screen; it changes by messages only. Must not know terminals,
//! how anything is drawn, or where the messages come from: clocks included, so that
//! each brings its time.

use std::{cmp::Ordering, collections::VecDeque, ops::Range, time::Duration};

use ratatui::layout::Size;
use taskyard_client::{Seen, is_lost, reason};
use taskyard_proto::v1::{
    Event, EventType, GetPoolResponse, GetStatsResponse, Pool, QueueBlock, QueueStats, Worker,
};
use taskyard_text::closest;
use tokio::time::Instant;
use tonic::Status;

use super::{
    super::{json::type_name, problem::told},
    history::History,
    keys::{Command, Scroll},
    layout::{Layout, Panel, Wishes},
};

/// Events that are kept.
pub const KEPT: usize = 1_000;

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// There is more to see.
    GoOn,
    /// It was enough.
    Quit,
}

/// How it stands with the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It answers.
    Up,
    /// It answers, and is about to end.
    Draining,
    /// It does not answer.
    Lost {
        /// Since when.
        since: Instant,
        /// In what words.
        why: String,
    },
    /// It answers that it will not tell, in these words.
    Refused(String),
}

/// What is known of the service at a time.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The statistics; only of the queues that are wanted.
    pub stats: GetStatsResponse,
    /// The pool.
    pub pool: Pool,
    /// The rates of the last minutes.
    pub history: History,
    /// The newest events, the oldest first: at most [`KEPT`].
    pub events: VecDeque<Event>,
    /// Events per second.
    pub event_rate: f64,
}

/// A row as it was when it was selected.
#[derive(Clone, Debug)]
pub enum Row {
    /// Of the queues.
    Queue(Box<QueueStats>),
    /// Of the workers.
    Worker(Box<Worker>),
    /// Of the events.
    Event(Box<Event>),
}

/// All that decides what is on the screen, but its size and the time.
pub struct Model {
    /// Where the server is.
    pub server: String,
    /// How it stands with it.
    pub link: Link,
    /// Why no events arrive, if that is so.
    pub no_events: Option<String>,
    /// The panel that is looked at.
    pub focus: Panel,
    /// It has the whole screen.
    pub zoomed: bool,
    /// The help is shown.
    pub help: bool,
    /// The queues that are wanted; all, if none is named.
    pub wanted: Vec<String>,
    /// Only rows that have this in them are shown.
    pub filter: String,
    /// The filter is being written.
    pub is_writing: bool,
    /// The queue that was probably meant by one that is wanted and does not exist.
    pub meant: Option<String>,
    /// The row of which everything is shown.
    pub details: Option<Row>,
    /// The selected row of each panel, from where it is anchored: its top, or, of events, its
    /// bottom.
    selected: [usize; 3],
    live: Picture,
    frozen: Option<Box<Picture>>,
    /// Rows above what is shown of a panel; of events, rows below it.
    scrolled: [usize; 3],
    size: Size,
    /// Events since the time of the last rate.
    counted: (u64, Option<Instant>),
}

impl Model {
    /// Of a server that has told nothing yet.
    pub fn new(server: &str, wanted: Vec<String>) -> Self {
        Self {
            server: server.trim_start_matches("http://").to_owned(),
            link: Link::Up,
            no_events: None,
            focus: Panel::default(),
            zoomed: false,
            help: false,
            wanted,
            filter: String::new(),
            is_writing: false,
            meant: None,
            details: None,
            selected: [0; 3],
            live: Picture::default(),
            frozen: None,
            scrolled: [0; 3],
            size: Size::default(),
            counted: (0, None),
        }
    }

    /// What is to be shown.
    pub fn picture(&self) -> &Picture {
        self.frozen.as_deref().unwrap_or(&self.live)
    }

    /// The picture stands still.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// What decides the layout.
    pub fn wishes(&self) -> Wishes {
        let (queues, workers) = (self.len(Panel::Queues), self.len(Panel::Workers));
        Wishes { focus: self.focus, zoomed: self.zoomed, queues, workers }
    }

    /// What there is to scroll in.
    pub fn len(&self, panel: Panel) -> usize {
        match panel {
            Panel::Queues => self.queues().len(),
            Panel::Workers => self.workers().len(),
            Panel::Events => self.events_shown().len(),
        }
    }

    /// The queues that pass the filter, the busiest first.
    pub fn queues(&self) -> Vec<&QueueStats> {
        let queues = self.picture().stats.queues.iter();
        queues.filter(|queue| self.passes(&[&queue.queue])).collect()
    }

    /// The workers that pass the filter.
    pub fn workers(&self) -> Vec<&Worker> {
        let passes = |worker: &&Worker| {
            let execution = worker.execution.as_ref();
            let texts = execution.map(|of| [&*of.task_id, &*of.kind, &*of.queue]);
            self.passes(&[&worker.worker]) || texts.is_some_and(|texts| self.passes(&texts))
        };
        self.picture().pool.workers.iter().filter(passes).collect()
    }

    /// The events that pass the filter, the oldest first.
    pub fn events_shown(&self) -> Vec<&Event> {
        let passes = |event: &&Event| {
            let name = type_name(event.r#type);
            self.passes(&[&event.task_id, &event.kind, &event.queue, &event.worker, &name])
        };
        self.picture().events.iter().filter(passes).collect()
    }

    fn passes(&self, texts: &[&str]) -> bool {
        if self.filter.is_empty() {
            return true;
        }
        let wanted = self.filter.to_lowercase();
        texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    }

    /// Which row of a panel is selected, where it has so many in sight; `None` if it has none.
    pub fn selected(&self, panel: Panel, rows: usize) -> Option<usize> {
        let window = self.window(panel, rows);
        let last = window.len().checked_sub(1)?;
        let away = self.selected[panel as usize].min(last);
        Some(if panel == Panel::Events { window.end - 1 - away } else { window.start + away })
    }

    fn row(&self) -> Option<Row> {
        let panel = self.focus;
        let rows = Layout::new(self.size, self.wishes()).rows(panel);
        let at = self.selected(panel, rows)?;
        Some(match panel {
            Panel::Queues => Row::Queue(Box::new((*self.queues().get(at)?).clone())),
            Panel::Workers => Row::Worker(Box::new((*self.workers().get(at)?).clone())),
            Panel::Events => Row::Event(Box::new((*self.events_shown().get(at)?).clone())),
        })
    }

    /// What of a panel is in sight, where it has so many rows.
    pub fn window(&self, panel: Panel, rows: usize) -> Range<usize> {
        let len = self.len(panel);
        let hidden = len.saturating_sub(rows);
        let scrolled = self.scrolled[panel as usize].min(hidden);
        let start = if panel == Panel::Events { hidden - scrolled } else { scrolled };
        start..len.min(start + rows)
    }

    /// The screen has this size.
    pub fn resized(&mut self, size: Size) {
        self.size = size;
    }

    /// The server told its statistics, or did not.
    pub fn stats(&mut self, answer: Result<GetStatsResponse, Status>, now: Instant) {
        self.measure_events(now);
        let mut stats = match answer {
            Ok(stats) => stats,
            Err(status) => return self.failed(&status, now),
        };
        let is_another_run = stats.start_time != self.live.stats.start_time;
        let is_draining = stats.queues.iter().any(|queue| queue.block() == QueueBlock::Draining)
            || (self.link == Link::Draining && !is_another_run);
        self.link = if is_draining { Link::Draining } else { Link::Up };
        if !self.wanted.is_empty() {
            let names: Vec<_> = stats.queues.iter().map(|queue| queue.queue.as_str()).collect();
            let missing = self.wanted.iter().find(|name| !names.contains(&name.as_str()));
            self.meant = missing.and_then(|name| closest(name, names)).map(str::to_owned);
            stats.queues.retain(|queue| self.wanted.contains(&queue.queue));
        }
        stats.queues.sort_by(busiest_first);
        let pool = stats.pool.unwrap_or_default();
        self.live.history.take(now, pool.arrival_rate, pool.completion_rate);
        self.live.stats = stats;
    }

    /// The server told its pool, or did not; the latter is said by its statistics.
    pub fn pool(&mut self, answer: Result<GetPoolResponse, Status>) {
        if let Ok(GetPoolResponse { pool: Some(pool), .. }) = answer {
            self.live.pool = pool;
        }
    }

    /// The watch saw something, or was refused.
    pub fn seen(&mut self, seen: Result<Seen, Status>, now: Instant) {
        match seen {
            Ok(Seen::Events(batch)) => {
                if batch.events.iter().any(|event| self.tells_of_a_drain(event)) {
                    self.link = Link::Draining;
                }
                self.events(batch.events);
            }
            Ok(Seen::Draining) => self.link = Link::Draining,
            Ok(Seen::Lost(status)) => {
                self.no_events = Some(told(&status));
                self.failed(&status, now);
            }
            Ok(Seen::Started | Seen::Restored) => self.no_events = None,
            Ok(_) => {}
            Err(status) => self.no_events = Some(told(&status)),
        }
    }

    /// A key was pressed.
    pub fn command(&mut self, command: Command) -> Flow {
        match command {
            Command::Back if self.help => self.help = false,
            Command::Back if self.details.is_some() => self.details = None,
            Command::Back if self.is_writing || !self.filter.is_empty() => {
                self.is_writing = false;
                self.filter.clear();
            }
            Command::Details if self.is_writing => self.is_writing = false,
            Command::Details if self.details.is_some() => self.details = None,
            Command::Details => self.details = self.row(),
            Command::Filter => self.is_writing = true,
            Command::Write(c) => self.write(c),
            Command::Erase => drop(self.filter.pop()),
            Command::Back | Command::Quit => return Flow::Quit,
            Command::Help => self.help = !self.help,
            Command::Focus(panel) => self.focus = panel,
            Command::Next => self.focus = self.focus.next(),
            Command::Previous => self.focus = self.focus.previous(),
            Command::Zoom => self.zoomed = !self.zoomed,
            Command::Freeze => self.freeze(),
            Command::Scroll(scroll) => self.scroll_or_select(scroll),
        }
        Flow::GoOn
    }

    /// The server said no, or nothing.
    fn failed(&mut self, status: &Status, now: Instant) {
        if reason(status).as_deref() == Some("DRAINING") {
            self.link = Link::Draining;
        } else if is_lost(status) {
            let since = match self.link {
                Link::Lost { since, .. } => since,
                _ => now,
            };
            self.link = Link::Lost { since, why: told(status) };
        } else {
            self.link = Link::Refused(told(status));
        }
    }

    /// The server drains, or another run of it did, of which history tells.
    fn tells_of_a_drain(&self, event: &Event) -> bool {
        let time = |time: Option<prost_types::Timestamp>| {
            time.map(|time| (time.seconds, time.nanos)).unwrap_or_default()
        };
        event.r#type() == EventType::Draining
            && time(event.time) >= time(self.live.stats.start_time)
    }

    /// Keeps the newest; the others are never looked at.
    fn events(&mut self, events: Vec<Event>) {
        let (ring, new) = (&mut self.live.events, events.len());
        self.counted.0 += new as u64;
        let kept = new.min(KEPT);
        let too_many = (ring.len() + kept).saturating_sub(KEPT);
        ring.drain(..too_many);
        ring.extend(events.into_iter().skip(new - kept));
        let scrolled = &mut self.scrolled[Panel::Events as usize];
        // Who looks at older ones goes on looking at them, while they are kept.
        if *scrolled > 0 && self.frozen.is_none() {
            *scrolled = scrolled.saturating_add(new).min(KEPT);
        }
    }

    fn measure_events(&mut self, now: Instant) {
        let (number, since) = self.counted;
        let span = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if since.is_some() && span < Duration::from_millis(500) {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "for reading")]
        let rate = if span.is_zero() { 0.0 } else { number as f64 / span.as_secs_f64() };
        self.live.event_rate = rate;
        self.counted = (0, Some(now));
    }

    fn freeze(&mut self) {
        if self.frozen.take().is_some() {
            // What came meanwhile has moved what was looked at out of reach.
            self.scrolled[Panel::Events as usize] = 0;
        } else {
            self.frozen = Some(Box::new(self.live.clone()));
        }
    }

    fn write(&mut self, c: char) {
        // What is longer matches nothing.
        const MAX: usize = 64;
        if self.filter.len() < MAX && !c.is_control() {
            self.filter.push(c);
        }
    }

    /// A step scrolls while there are rows out of sight, and selects others then: so that each
    /// can be reached.
    fn scroll_or_select(&mut self, scroll: Scroll) {
        let panel = self.focus;
        let rows = Layout::new(self.size, self.wishes()).rows(panel);
        let window = self.window(panel, rows);
        let away = match scroll {
            Scroll::Up => panel == Panel::Events,
            Scroll::Down => panel != Panel::Events,
            _ => {
                self.selected[panel as usize] = 0;
                return self.scroll(scroll);
            }
        };
        let is_more = match scroll {
            Scroll::Up => window.start > 0,
            _ => window.end < self.len(panel),
        };
        let selected = &mut self.selected[panel as usize];
        *selected = (*selected).min(window.len().saturating_sub(1));
        match (away, is_more, *selected) {
            (true, false, at) => *selected = (at + 1).min(window.len().saturating_sub(1)),
            (false, _, at @ 1..) => *selected = at - 1,
            _ => self.scroll(scroll),
        }
    }

    fn scroll(&mut self, scroll: Scroll) {
        let (panel, rows) = (self.focus, Layout::new(self.size, self.wishes()).rows(self.focus));
        let hidden = self.len(panel).saturating_sub(rows);
        let top = self.window(panel, rows).start;
        let page = rows.saturating_sub(1).max(1);
        let top = match scroll {
            Scroll::Up => top.saturating_sub(1),
            Scroll::Down => top + 1,
            Scroll::PageUp => top.saturating_sub(page),
            Scroll::PageDown => top + page,
            Scroll::Home => 0,
            Scroll::End => hidden,
        }
        .min(hidden);
        self.scrolled[panel as usize] = if panel == Panel::Events { hidden - top } else { top };
    }
}

/// By the part of the pool that they keep busy, then by what they have to do.
fn busiest_first(one: &QueueStats, other: &QueueStats) -> Ordering {
    // To a whole percent, so that rows do not change places all the time.
    let busy = |queue: &QueueStats| (queue.busy_share * 100.0).round();
    let work = |queue: &QueueStats| {
        let counts = queue.counts.unwrap_or_default();
        counts.running + counts.queued + counts.scheduled
    };
    busy(other)
        .total_cmp(&busy(one))
        .then(work(other).cmp(&work(one)))
        .then_with(|| one.queue.cmp(&other.queue))
}

#[cfg(test)]
mod tests;

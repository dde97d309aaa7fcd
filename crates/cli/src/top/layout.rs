//! Where what is on the screen.
//!
//! Owns the places for a given size. Must not know what is drawn there.

use ratatui::layout::{Rect, Size};

/// A part of the screen that can be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Panel {
    /// The queues.
    #[default]
    Queues,
    /// The workers.
    Workers,
    /// The newest events.
    Events,
}

impl Panel {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::Queues, Self::Workers, Self::Events];

    /// The one after it.
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// The one before it.
    pub fn previous(self) -> Self {
        Self::ALL[(self as usize + Self::ALL.len() - 1) % Self::ALL.len()]
    }

    /// Rows of a panel that do not scroll: its title, and the heading of a table.
    pub fn fixed_rows(self) -> u16 {
        match self {
            Self::Queues | Self::Workers => 2,
            Self::Events => 1,
        }
    }
}

/// The least size of a screen on which anything can be told.
pub const LEAST: Size = Size { width: 16, height: 4 };

/// The least rows for all panels at once.
const LEAST_FOR_ALL: u16 = 12;

/// The least columns for two panels side by side.
const LEAST_FOR_TWO: u16 = 170;

/// Columns between two panels.
const GAP: u16 = 3;

/// What decides the layout, beside the size.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// The panel that is looked at.
    pub focus: Panel,
    /// It is to have the whole screen.
    pub zoomed: bool,
    /// Rows that there are of queues.
    pub queues: usize,
    /// Rows that there are of workers.
    pub workers: usize,
}

/// The places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How the service stands.
    pub header: Rect,
    /// All panels together.
    pub body: Rect,
    /// Those panels that there is room for.
    pub panels: [Option<Rect>; 3],
    /// The keys.
    pub footer: Rect,
}

impl Layout {
    /// The places on a screen of at least [`LEAST`].
    pub fn new(size: Size, wishes: Wishes) -> Self {
        let header = header_rows(size, wishes.zoomed);
        let body = size.height.saturating_sub(header + 1);
        let full = |y, height| Rect::new(0, y, size.width, height);
        let body = full(header, body);
        Self {
            header: full(0, header),
            body,
            panels: panels(body, wishes),
            footer: full(body.bottom(), 1),
        }
    }

    /// Rows of this panel that scroll; none if it is not there.
    pub fn rows(&self, panel: Panel) -> usize {
        let place = self.panels[panel as usize].unwrap_or_default();
        place.height.saturating_sub(panel.fixed_rows()).into()
    }
}

fn header_rows(size: Size, zoomed: bool) -> u16 {
    match size.height {
        _ if zoomed => 1,
        ..10 => 1,
        10..18 => 3,
        // Room for the advice in two lines where one is too short for it.
        22.. if size.width < 150 => 6,
        18.. => 5,
    }
}

fn panels(body: Rect, wishes: Wishes) -> [Option<Rect>; 3] {
    if wishes.zoomed || body.height < LEAST_FOR_ALL {
        return Panel::ALL.map(|panel| (panel == wishes.focus).then_some(body));
    }
    // One row for a word, where there is nothing.
    let wanted = |rows: usize, panel: Panel| {
        u16::try_from(rows.max(1)).unwrap_or(u16::MAX).saturating_add(panel.fixed_rows())
    };
    let (queues, workers) =
        (wanted(wishes.queues, Panel::Queues), wanted(wishes.workers, Panel::Workers));
    let below = |y: u16| Rect::new(body.x, y, body.width, body.bottom() - y);
    if body.width >= LEAST_FOR_TWO {
        let upper = Rect { height: queues.max(workers).min(body.height / 2), ..body };
        let left = Rect { width: (body.width - GAP) / 2, ..upper };
        let x = left.right() + GAP;
        let right = Rect { x, width: body.right() - x, ..upper };
        return [Some(left), Some(right), Some(below(upper.bottom()))];
    }
    let queues = Rect { height: queues.min(body.height / 3), ..body };
    let rest = below(queues.bottom());
    let workers = Rect { height: workers.min(rest.height / 2), ..rest };
    [Some(queues), Some(workers), Some(below(workers.bottom()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Wishes =
        Wishes { focus: Panel::Queues, zoomed: false, queues: 500, workers: 5_000 };

    #[test]
    fn nothing_is_outside_or_covered_at_any_size() {
        for (width, height) in (16..300).flat_map(|width| (4..100).map(move |h| (width, h))) {
            for wishes in [MANY, Wishes { zoomed: true, ..MANY }, Wishes::default()] {
                let layout = Layout::new(Size { width, height }, wishes);
                let parts: Vec<_> = [layout.header, layout.footer]
                    .into_iter()
                    .chain(layout.panels.into_iter().flatten())
                    .collect();
                let screen = Rect::new(0, 0, width, height);
                for (place, part) in parts.iter().enumerate() {
                    assert_eq!(part.intersection(screen), *part, "{width}x{height}");
                    assert!(part.height > 0, "{width}x{height}: {layout:?}");
                    let others = &parts[place + 1..];
                    assert!(!others.iter().any(|other| part.intersects(*other)), "{layout:?}");
                }
                assert!(layout.rows(wishes.focus) > 0 || height < 5, "{width}x{height}");
            }
        }
    }

    #[test]
    fn a_panel_takes_no_more_than_it_needs() {
        let few = Wishes { queues: 1, workers: 2, ..MANY };
        let layout = Layout::new(Size { width: 80, height: 24 }, few);
        assert_eq!(Panel::ALL.map(|panel| layout.rows(panel)), [1, 2, 9]);
        let layout = Layout::new(Size { width: 80, height: 24 }, MANY);
        assert_eq!(Panel::ALL.map(|panel| layout.rows(panel)), [3, 4, 5]);
    }

    #[test]
    fn a_small_screen_has_one_panel() {
        let layout = Layout::new(Size { width: 40, height: 10 }, MANY);
        assert_eq!(layout.panels, [Some(layout.body), None, None]);
        assert_eq!(Panel::ALL.map(|panel| layout.rows(panel)), [4, 0, 0]);
    }

    #[test]
    fn panels_go_round() {
        for panel in Panel::ALL {
            assert_eq!(panel.next().previous(), panel);
        }
        assert_eq!(Panel::Events.next(), Panel::Queues);
    }
}

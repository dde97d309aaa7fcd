//! The picture: a pure function of the model, the time and the screen's size.
//!
//! Owns what is on the screen; what text says is [`present`](super::super::present)'s,
//! so that every command says it alike. Must not change anything, or know terminals.

mod details;
mod header;
mod panels;

use console::{Style, measure_text_width};
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Rect, Size},
};
use tokio::time::Instant;

use super::{
    super::output::{printable, shortened},
    keys,
    layout::{LEAST, Layout, Panel},
    model::Model,
    paint,
};

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, model: &Model, now: Instant) {
    let area = frame.area();
    let canvas = frame.buffer_mut();
    if area.width < LEAST.width || area.height < LEAST.height {
        lines(canvas, area, &["top: too small".into(), "q quits".into()]);
        return;
    }
    let size = Size { width: area.width, height: area.height };
    let layout = Layout::new(size, model.wishes());
    lines(canvas, layout.header, &header::lines(model, layout.header, now));
    if model.help {
        lines(canvas, layout.body, &help(layout.body.width.into()));
    } else if let Some(row) = &model.details {
        lines(canvas, layout.body, &details::lines(row, layout.body.width.into()));
    } else {
        for (panel, place) in Panel::ALL.into_iter().zip(layout.panels) {
            let Some(place) = place else { continue };
            lines(canvas, place, &panels::lines(model, panel, place));
        }
    }
    let foot = if model.is_writing {
        format!("/{}▏  Enter keeps it, Esc shows all again", printable(&model.filter))
    } else {
        footer(layout.footer.width.into())
    };
    lines(canvas, layout.footer, &[foot]);
}

/// Lines from the top; what does not fit is cut where that can be seen.
fn lines(canvas: &mut Buffer, place: Rect, texts: &[String]) {
    for (y, text) in (place.y..place.bottom()).zip(texts) {
        let text = shortened(text, place.width.into());
        canvas.set_line(place.x, y, &paint::line(&text), place.width);
    }
}

/// Two texts, one at each end of a line; the left one is cut if it has to be.
fn ends(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(measure_text_width(right) + 1);
    let left = shortened(left, room);
    let gap = width.saturating_sub(measure_text_width(&left) + measure_text_width(right));
    format!("{left}{}{right}", " ".repeat(gap))
}

/// As many keys as there is room for.
fn footer(width: usize) -> String {
    let key = Style::new().bold();
    let dim = Style::new().dim();
    let mut line = String::new();
    for (name, _, word) in keys::HELP.iter().filter(|(.., word)| !word.is_empty()) {
        let gap = if line.is_empty() { "" } else { "  " };
        let longer = format!("{line}{gap}{} {}", key.apply_to(name), dim.apply_to(word));
        if measure_text_width(&longer) > width {
            break;
        }
        line = longer;
    }
    line
}

fn help(width: usize) -> Vec<String> {
    let title = panels::rule("keys", "? or Esc closes this", true, width);
    let key = |name: &str| Style::new().bold().apply_to(format!("{name:<7}"));
    let line = |(name, does, _): &(&str, &str, &str)| format!("{}{does}", key(name));
    [title].into_iter().chain(keys::HELP.iter().map(line)).collect()
}

#[cfg(test)]
mod tests;

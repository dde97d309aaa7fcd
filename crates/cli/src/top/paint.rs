//! Text as the other commands print it, on a screen.
//!
//! Owns how the colours in a text become those of cells. Must not know what the text
//! says.

use console::AnsiCodeIterator;
use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

/// A text with the codes of [`console::Style`] as a line with styles.
pub fn line(text: &str) -> Line<'static> {
    let mut style = Style::new();
    let mut spans = Vec::new();
    for (piece, is_code) in AnsiCodeIterator::new(text) {
        if is_code {
            style = codes(piece).fold(style, after);
        } else {
            spans.push(Span::styled(piece.to_owned(), style));
        }
    }
    Line::from(spans)
}

/// The numbers of a code for colours; none of any other.
fn codes(code: &str) -> impl Iterator<Item = u8> {
    let inner = code.strip_prefix("\u{1b}[").and_then(|code| code.strip_suffix('m'));
    inner.into_iter().flat_map(|numbers| numbers.split(';')).filter_map(|code| code.parse().ok())
}

fn after(style: Style, code: u8) -> Style {
    match code {
        0 => Style::new(),
        1 => style.add_modifier(Modifier::BOLD),
        2 => style.add_modifier(Modifier::DIM),
        4 => style.add_modifier(Modifier::UNDERLINED),
        7 => style.add_modifier(Modifier::REVERSED),
        30 => style.fg(Color::Black),
        31 => style.fg(Color::Red),
        32 => style.fg(Color::Green),
        33 => style.fg(Color::Yellow),
        34 => style.fg(Color::Blue),
        35 => style.fg(Color::Magenta),
        36 => style.fg(Color::Cyan),
        37 => style.fg(Color::Gray),
        _ => style,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colours_of_a_text_are_kept() {
        let red = console::Style::new().red().bold().force_styling(true).apply_to("red");
        let painted = line(&format!("a {red} b"));
        let styles: Vec<_> =
            painted.spans.iter().map(|span| (span.content.as_ref(), span.style)).collect();
        let bold_red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        assert_eq!(styles, [("a ", Style::new()), ("red", bold_red), (" b", Style::new())]);
    }

    #[test]
    fn what_is_no_colour_has_no_effect() {
        let painted = line("a\u{1b}[2Jb");
        assert!(painted.spans.iter().all(|span| span.style == Style::new()));
        assert_eq!(line(""), Line::default());
    }
}

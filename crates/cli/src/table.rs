//! Columns of text, aligned on screen widths: colours and wide characters count
//! as what they show.
//!
//! Owns the layout. Must not know what stands in the columns.

use console::{Alignment, Style, measure_text_width, pad_str};

/// How a column is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Columns of the screen that it takes at least.
    pub least: usize,
    /// To which side its cells lean.
    pub side: Alignment,
}

impl Column {
    /// A column of text.
    pub const fn text(least: usize) -> Self {
        Self { least, side: Alignment::Left }
    }

    /// A column of figures.
    pub const fn figures(least: usize) -> Self {
        Self { least, side: Alignment::Right }
    }
}

/// The first row: what stands in the columns.
pub fn heading<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(|name| Style::new().dim().apply_to(name).to_string())
}

/// Lays the rows out, two blanks between the columns; nothing is ever cut.
pub fn aligned<const N: usize>(columns: [Column; N], rows: &[[String; N]]) -> String {
    let rows: Vec<_> = rows.iter().map(<[String; N]>::as_slice).collect();
    lay_out(&columns, &rows)
}

/// [`aligned`], where the number of columns is known only when there is a screen.
pub fn lay_out(columns: &[Column], rows: &[&[String]]) -> String {
    let mut widths: Vec<_> = columns.iter().map(|column| column.least).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(*row) {
            *width = (*width).max(measure_text_width(cell));
        }
    }
    let line = |row: &&[String]| {
        let mut line = String::new();
        for (place, ((cell, width), column)) in row.iter().zip(&widths).zip(columns).enumerate() {
            line.push_str(if place == 0 { "" } else { "  " });
            line.push_str(&pad_str(cell, *width, column.side, None));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_they_show() {
        let colored = console::Style::new().red().force_styling(true).apply_to("ab").to_string();
        let rows = [
            ["x".to_owned(), colored, "last".to_owned()],
            ["long".to_owned(), "abc".to_owned(), String::new()],
        ];
        let columns = [Column::text(2), Column::figures(4), Column::text(0)];
        let text = console::strip_ansi_codes(&aligned(columns, &rows)).into_owned();
        assert_eq!(text, "x       ab  last\nlong   abc");
    }
}

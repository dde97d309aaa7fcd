//! A table that leaves out what does not fit.
//!
//! Owns which columns a screen has room for. Must not know what stands in them.

use console::{Alignment, measure_text_width};

use super::super::table::{Column, heading, lay_out};

/// One column, from top to bottom.
pub struct Stack {
    name: &'static str,
    side: Alignment,
    cells: Vec<String>,
    /// It is left out where there is no room for it, the last such one first.
    optional: bool,
}

impl Stack {
    /// A column of figures.
    pub fn figures(name: &'static str, cells: Vec<String>) -> Self {
        Self { name, side: Alignment::Right, cells, optional: false }
    }

    /// A column of text.
    pub fn text(name: &'static str, cells: Vec<String>) -> Self {
        Self { name, side: Alignment::Left, cells, optional: false }
    }

    /// The same, where there is room.
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| measure_text_width(cell));
        cells.chain([self.name.len()]).max().unwrap_or_default()
    }
}

/// Blanks between two columns.
const GAP: usize = 2;

/// The columns of the screen that these take.
pub fn width(stacks: &[Stack]) -> usize {
    let all: usize = stacks.iter().map(|stack| stack.width() + GAP).sum();
    all.saturating_sub(GAP)
}

/// Takes out optional columns, the last first, until the rest is at most `most`
/// columns of the screen wide, or none is left.
pub fn fit(stacks: &mut Vec<Stack>, most: usize) {
    while width(stacks) > most {
        let Some(last) = stacks.iter().rposition(|stack| stack.optional) else { return };
        stacks.remove(last);
    }
}

/// The table, with its heading.
pub fn table(stacks: &[Stack]) -> String {
    let columns: Vec<_> =
        stacks.iter().map(|stack| Column { least: 0, side: stack.side }).collect();
    let head = stacks.iter().flat_map(|stack| heading([stack.name])).collect::<Vec<_>>();
    let count = stacks.first().map_or(0, |stack| stack.cells.len());
    let row = |row: usize| stacks.iter().map(|stack| stack.cells[row].clone()).collect::<Vec<_>>();
    let rows: Vec<_> = std::iter::once(head).chain((0..count).map(row)).collect();
    let rows: Vec<_> = rows.iter().map(Vec::as_slice).collect();
    lay_out(&columns, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_optional_column_goes_first() {
        let all = || {
            vec![
                Stack::text("A", vec!["long".into()]),
                Stack::figures("B", vec!["1".into()]).optional(),
                Stack::figures("C", vec!["2".into()]).optional(),
                Stack::figures("D", vec!["3".into()]),
            ]
        };
        for (most, shown) in
            [(13, "long  1  2  3"), (12, "long  1  3"), (9, "long  3"), (1, "long  3")]
        {
            let mut stacks = all();
            fit(&mut stacks, most);
            let text = console::strip_ansi_codes(&table(&stacks)).into_owned();
            assert_eq!(text.lines().nth(1), Some(shown), "{most}");
        }
        assert_eq!(width(&all()), 13);
    }
}

//! A table that leaves out what does not fit.
//!
//! Owns which columns a screen has room for. Must not know what stands in them.

use console::{Alignment, measure_text_width};

use super::table::{Column, heading, lay_out};

/// One column, from top to bottom.
pub struct Stack {
    name: &'static str,
    side: Alignment,
    cells: Vec<String>,
    /// Columns of the screen that it takes at least.
    least: usize,
    /// Where there is no room for all, those with the highest rank are left out first,
    /// and of several the last; those with none never are.
    rank: Option<u8>,
}

impl Stack {
    /// A column of figures.
    pub fn figures(name: &'static str, cells: Vec<String>) -> Self {
        Self { name, side: Alignment::Right, cells, least: 0, rank: None }
    }

    /// A column of text.
    pub fn text(name: &'static str, cells: Vec<String>) -> Self {
        Self { name, side: Alignment::Left, cells, least: 0, rank: None }
    }

    /// The same, where there is room: the higher the rank, the more it takes.
    pub fn optional(self, rank: u8) -> Self {
        Self { rank: Some(rank), ..self }
    }

    /// The same, at least so wide.
    pub fn at_least(self, least: usize) -> Self {
        Self { least, ..self }
    }

    /// Nothing stands in it.
    pub fn is_empty(&self) -> bool {
        self.cells.iter().all(String::is_empty)
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| measure_text_width(cell));
        cells.chain([self.name.len(), self.least]).max().unwrap_or_default()
    }
}

/// Blanks between two columns.
const GAP: usize = 2;

/// The columns of the screen that these take.
pub fn width(stacks: &[Stack]) -> usize {
    let all: usize = stacks.iter().map(|stack| stack.width() + GAP).sum();
    all.saturating_sub(GAP)
}

/// Takes out optional columns until the rest is at most `most` columns of the screen
/// wide, or none is left.
pub fn fit(stacks: &mut Vec<Stack>, most: usize) {
    while width(stacks) > most {
        let ranks = stacks.iter().enumerate().map(|(place, stack)| (stack.rank, place));
        let Some((Some(_), first)) = ranks.max() else { return };
        stacks.remove(first);
    }
}

/// The columns for a screen with so much room, without a bound for any. `make` makes them with
/// names cut to a number of columns: names are cut before anything is left out, but to no less
/// than this `part` of the screen.
pub fn fitted(room: Option<usize>, part: usize, make: impl Fn(usize) -> Vec<Stack>) -> Vec<Stack> {
    let Some(most) = room else { return make(usize::MAX) };
    let least = (most / part).max(LEAST_NAME);
    let tries = [usize::MAX, most / 3, most / 4, most / 5];
    let whole = tries.into_iter().filter(|longest| *longest > least).map(&make);
    if let Some(stacks) = whole.into_iter().find(|stacks| width(stacks) <= most) {
        return stacks;
    }
    let mut stacks = make(least);
    fit(&mut stacks, most);
    stacks
}

/// Columns that a name has at least.
const LEAST_NAME: usize = 8;

/// A table in several pages, all with the columns of the first.
#[derive(Default)]
pub struct Paged {
    kept: Option<Vec<&'static str>>,
}

impl Paged {
    /// The next page; the first has the heading.
    pub fn table(&mut self, mut stacks: Vec<Stack>, room: Option<usize>) -> String {
        let is_first = self.kept.is_none();
        if let Some(kept) = &self.kept {
            stacks.retain(|stack| kept.contains(&stack.name));
        } else if let Some(most) = room {
            fit(&mut stacks, most);
        }
        self.kept.get_or_insert_with(|| stacks.iter().map(|stack| stack.name).collect());
        let text = table(&stacks);
        match text.split_once('\n') {
            Some((_, rows)) if !is_first => rows.to_owned(),
            _ => text,
        }
    }
}

/// The table, with its heading.
pub fn table(stacks: &[Stack]) -> String {
    let columns: Vec<_> =
        stacks.iter().map(|stack| Column { least: stack.least, side: stack.side }).collect();
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
    fn the_column_of_the_highest_rank_goes_first() {
        let all = || {
            vec![
                Stack::text("A", vec!["long".into()]),
                Stack::figures("B", vec!["1".into()]).optional(1),
                Stack::figures("C", vec!["2".into()]).optional(1),
                Stack::figures("E", vec!["9".into()]).optional(0),
                Stack::figures("D", vec!["3".into()]),
            ]
        };
        for (most, shown) in
            [(16, "long  1  2  9  3"), (15, "long  1  9  3"), (12, "long  9  3"), (1, "long  3")]
        {
            let mut stacks = all();
            fit(&mut stacks, most);
            let text = console::strip_ansi_codes(&table(&stacks)).into_owned();
            assert_eq!(text.lines().nth(1), Some(shown), "{most}");
        }
        assert_eq!(width(&all()), 16);
    }
}

//! Values as people write and read them.
//!
//! Owns the spelling of durations and sizes ([`units`]), of rates ([`rate`]), of
//! texts with placeholders ([`template`]), and of what is quoted back in a
//! message. Must not know who writes them, or any other module.

pub mod rate;
pub mod template;
pub mod units;

/// Characters of a value that a message quotes.
const MAX_QUOTED: usize = 64;

/// A value in quotation marks, on one line and short, for a message.
pub fn quoted(value: &str) -> String {
    match value.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}", format!("{}…", &value[..end])),
        None => format!("{value:?}"),
    }
}

/// A name without quotation marks, on one line and short, for a message.
pub fn short(name: &str) -> String {
    let visible = |c: char| if c.is_control() { '�' } else { c };
    let shown = name.chars().take(MAX_QUOTED).map(visible).collect::<String>();
    if name.chars().nth(MAX_QUOTED).is_some() { shown + "…" } else { shown }
}

/// The one of `known` that `written` was probably meant to be: at most a third
/// of its letters, and no more than three, are wrong.
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.chars().take(MAX_QUOTED).collect::<Vec<_>>();
    let bound = (written.len() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (edits(&written, name), name))
        .filter(|(edits, _)| *edits <= bound)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// The Levenshtein distance, by the usual table of which only one row is kept.
fn edits(from: &[char], to: &str) -> usize {
    let mut row = (0..=from.len()).collect::<Vec<_>>();
    for (above, letter) in to.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (column, own) in from.iter().enumerate() {
            let replaced = diagonal + usize::from(*own != letter);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[from.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_is_one_short_line() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted(&"é".repeat(64)), format!("\"{}\"", "é".repeat(64)));
        assert_eq!(quoted(&"é".repeat(65)), format!("\"{}…\"", "é".repeat(64)));
    }

    #[test]
    fn a_short_name_is_one_line() {
        assert_eq!(short("it's\n[31m"), "it's�[31m");
        assert_eq!(short(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }

    #[test]
    fn a_misspelt_name_is_recognised_and_a_different_one_is_not() {
        let known = ["workers", "drain_timeout", "log"];
        assert_eq!(closest("worker", known), Some("workers"));
        assert_eq!(closest("drian_timeout", known), Some("drain_timeout"));
        assert_eq!(closest("lug", known), Some("log"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("", known), None);
    }
}

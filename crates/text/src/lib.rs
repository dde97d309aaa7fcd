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
/// of its letters, and no more than three, are wrong; two that changed places count as one.
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.chars().take(MAX_QUOTED).collect::<String>();
    let bound = (written.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&written, name), name))
        .filter(|(edits, _)| *edits <= bound)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// What the operating system says of a failure, as a part of a sentence: `connection refused`
/// for `Connection refused (os error 111)`, wherever it stands in `text`.
pub fn without_error_numbers(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let after = &rest[at + MARK.len()..];
        let digits = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
        let Some(behind) = digits.strip_prefix(')') else {
            plain.push_str(&rest[..at + MARK.len()]);
            rest = after;
            continue;
        };
        plain.push_str(&uncapitalised(&rest[..at]));
        rest = behind;
    }
    plain.push_str(rest);
    plain
}

/// The text with a small letter where its last part, after a colon, begins.
fn uncapitalised(text: &str) -> String {
    let begin = text.rfind(": ").map_or(0, |colon| colon + 2);
    let (before, last) = text.split_at(begin);
    let mut letters = last.chars();
    match letters.next() {
        Some(first) => format!("{before}{}{}", first.to_lowercase(), letters.as_str()),
        None => text.to_owned(),
    }
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
    fn a_failure_of_the_system_is_told_in_words() {
        for (text, plain) in [
            ("Connection refused (os error 111)", "connection refused"),
            (
                "cannot read a: No such file or directory (os error 2); b",
                "cannot read a: no such file or directory; b",
            ),
            (
                "a: Is a directory (os error 21)\n  b: Not a directory (os error 20)",
                "a: is a directory\n  b: not a directory",
            ),
            ("it is about (os error x)", "it is about (os error x)"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_error_numbers(text), plain);
        }
    }

    #[test]
    fn a_misspelt_name_is_recognised_and_a_different_one_is_not() {
        let known = ["workers", "drain_timeout", "log"];
        assert_eq!(closest("worker", known), Some("workers"));
        assert_eq!(closest("drian_timeout", known), Some("drain_timeout"));
        assert_eq!(closest("lug", known), Some("log"));
        assert_eq!(closest("lgo", known), Some("log"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("", known), None);
    }
}

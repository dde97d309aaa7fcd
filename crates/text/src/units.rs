//! Durations (`1h 30m`, `500ms`, `7d`) and sizes (`64KiB`, `4MB`).
//!
//! Owns how they are read and written; what [`show_duration`] and [`show_size`]
//! write reads back as the same value. Must not know which bounds apply.

use std::time::Duration;

use jiff::{SpanRelativeTo, fmt::friendly::SpanParser};

use super::quoted;

/// Why a text is not a duration or a size. Says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number that could be seconds, milliseconds, anything.
    #[error("{} has no unit; write {example} if seconds are meant", quoted(.number))]
    NoUnit {
        /// What was written.
        number: String,
        /// The same in seconds.
        example: String,
    },
    /// Time does not run backwards.
    #[error("{} is negative; write a duration such as 30s or 0s", quoted(.0))]
    Negative(String),
    /// Not a duration.
    #[error("{} is not a duration; write one such as 500ms, 1.5s, 2m, 1h 30m or 7d", quoted(.0))]
    Duration(String),
    /// Not a size.
    #[error("{} is not a size; write one such as 512, 64KiB, 4MB or 1GiB", quoted(.0))]
    Size(String),
}

/// Reads a duration: numbers, whole or with a fraction, each with its unit, the
/// largest being the day of 24 hours, whole. Resolution 1 ns.
///
/// # Errors
/// A number without a unit, a negative duration, and what is none.
pub fn parse_duration(text: &str) -> Result<Duration, Error> {
    const PARSER: SpanParser = SpanParser::new();
    let text = text.trim();
    if text.starts_with('-') || text.ends_with("ago") {
        return Err(Error::Negative(text.into()));
    }
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(Error::NoUnit { number: text.into(), example: format!("{}s", bounded(text)) });
    }
    PARSER
        .parse_unsigned_duration(text)
        .ok()
        .or_else(|| with_days(text, &PARSER))
        .ok_or_else(|| Error::Duration(text.into()))
}

/// A duration of days and perhaps more. Nothing longer than a day: the length of
/// a month is anybody's guess.
fn with_days(text: &str, parser: &SpanParser) -> Option<Duration> {
    let span = parser.parse_span(text).ok()?;
    if span.get_weeks() != 0 {
        return None;
    }
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.try_into().ok()
}

/// A number short enough to be repeated in an example; another if it is not.
fn bounded(number: &str) -> &str {
    if number.len() <= 20 { number } else { "30" }
}

/// Units of time, the longest first, in nanoseconds.
const TIMES: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Days of 24 hours are written from here on: `24h` reads better than `1d`.
const DAYS_FROM: Duration = Duration::from_hours(48);

/// Writes a duration, for example `1h 30m` or `7d`; zero is `0s`.
pub fn show_duration(duration: Duration) -> String {
    const DAY: u128 = 24 * TIMES[0].1;
    let mut rest = duration.as_nanos();
    let mut parts = Vec::new();
    if duration >= DAYS_FROM {
        parts.push(format!("{}d", rest / DAY));
        rest %= DAY;
    }
    for (unit, nanos) in TIMES {
        if rest >= nanos {
            parts.push(format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

/// Units of size, the binary ones first and of them the largest, in bytes.
const SIZES: [(&str, u64); 10] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a size: a whole number, of bytes or with a unit in upper or lower case.
///
/// # Errors
/// What is no size, is negative, has a fraction, or does not fit in 64 bits.
pub fn parse_size(text: &str) -> Result<u64, Error> {
    let wrong = || Error::Size(text.into());
    let digits = text.trim();
    let split = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (number, unit) = (&digits[..split], digits[split..].trim_start());
    let bytes = match unit {
        "" => 1,
        unit => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?.1,
    };
    let number = number.parse::<u64>().map_err(|_| wrong())?;
    number.checked_mul(bytes).ok_or_else(wrong)
}

/// Writes a size in the largest binary unit that needs no fraction, for example
/// `64KiB`; in plain bytes if there is none.
pub fn show_size(size: u64) -> String {
    let whole = |(_, bytes): &&(&str, u64)| size != 0 && size.is_multiple_of(*bytes);
    match SIZES[..5].iter().find(whole) {
        Some((unit, bytes)) => format!("{}{unit}", size / bytes),
        None => size.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            (" 2 hours ", 7_200_000),
            ("0s", 0),
            ("7d", 604_800_000),
            ("2d 3h", 183_600_000),
            ("1 day", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_would_be_right() {
        let refusal = |text: &str| parse_duration(text).map_err(|wrong| wrong.to_string());
        assert_eq!(
            refusal("30"),
            Err(r#""30" has no unit; write 30s if seconds are meant"#.into())
        );
        assert_eq!(
            refusal("-1s"),
            Err(r#""-1s" is negative; write a duration such as 30s or 0s"#.into())
        );
        for text in [
            "",
            "soon",
            "5 parsecs",
            "1.5d",
            "2w",
            "1mo",
            "inf",
            "NaN",
            "1s 1s",
            "99999999999999999999h",
            "99999999999d",
        ] {
            assert_eq!(parse_duration(text), Err(Error::Duration(text.into())), "{text}");
        }
    }

    #[test]
    fn long_durations_are_written_in_days() {
        for (hours, text) in
            [(24, "24h"), (47, "47h"), (48, "2d"), (51, "2d 3h"), (87_600, "3650d")]
        {
            assert_eq!(show_duration(Duration::from_hours(hours)), text);
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1MiB", 1 << 20),
            ("64 kib", 64 << 10),
            ("1GiB", 1 << 30),
            ("4MB", 4_000_000),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "MiB", "-1", "1.5MiB", "1 parsec", "1K", "99999999999999999999", "99999999TiB"]
        {
            assert_eq!(parse_size(text), Err(Error::Size(text.into())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos: u64, size: u64, shift in 0u32..64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
            let size = size >> shift << (shift / 2);
            prop_assert_eq!(parse_size(&show_size(size)), Ok(size));
        }
    }
}

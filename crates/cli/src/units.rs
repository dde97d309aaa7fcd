//! Time spans, times and counts, as people write and read them.
//!
//! Owns their spelling, both ways. Must not know tasks or events.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil, fmt::temporal, tz::TimeZone};
use taskyard_text::{
    quoted,
    units::{Error, parse_duration},
};

/// A reader of whole numbers within bounds.
pub fn whole<T>(
    bounds: std::ops::RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: TryFrom<i128> + Into<i128> + Copy,
{
    let (least, most): (i128, i128) = ((*bounds.start()).into(), (*bounds.end()).into());
    move |text| {
        let number = text.trim().parse::<i128>().map_err(|_| {
            format!("{} is not a whole number; write one{}", quoted(text), range(least, most))
        })?;
        let is_within = (least..=most).contains(&number);
        T::try_from(number).ok().filter(|_| is_within).ok_or_else(|| outside(number, least, most))
    }
}

/// Numbers from here on are no bound that anybody set.
const ENDLESS: i128 = 1 << 31;

fn range(least: i128, most: i128) -> String {
    if most >= ENDLESS - 1 {
        return if least < 0 { String::new() } else { format!(" from {} up", signed(least)) };
    }
    format!(" from {} to {}", signed(least), signed(most))
}

fn outside(number: i128, least: i128, most: i128) -> String {
    let (number_words, least_words) = (signed(number), signed(least));
    if most < ENDLESS - 1 {
        return format!("{number_words} is not between {least_words} and {}", signed(most));
    }
    if number < least {
        return format!("{number_words} is not {least_words} or more");
    }
    format!("{number_words} is too large")
}

/// A whole number for reading: `-12,345`.
fn signed(number: i128) -> String {
    let sign = if number < 0 { "-" } else { "" };
    match u64::try_from(number.unsigned_abs()) {
        Ok(size) => format!("{sign}{}", count(size)),
        Err(_) => number.to_string(),
    }
}

/// Reads a span such as `5s`, `250ms`, `1h30m`.
///
/// # Errors
/// How to write one.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|wrong| wrong.to_string())
}

/// Reads a time such as `2026-12-24T18:00:00+01:00`, RFC 3339.
///
/// # Errors
/// How to write one.
pub fn parse_time(text: &str) -> Result<prost_types::Timestamp, String> {
    static PARSER: temporal::DateTimeParser = temporal::DateTimeParser::new();
    let text = text.trim();
    let time = match PARSER.parse_timestamp(text) {
        Ok(time) => to_timestamp(time),
        // It stops 26 hours before the end of the year 9999, so that each of its times has a
        // date in every zone.
        Err(_) => PARSER
            .parse_pieces(text)
            .ok()
            .and_then(|pieces| last_hours(&pieces))
            .ok_or_else(|| {
                format!("{text:?} is not a time; write it as RFC 3339, like 2026-12-24T18:00:00Z")
            })?,
    };
    if (YEAR_1..YEAR_10000).contains(&time.seconds) {
        Ok(time)
    } else {
        Err(format!("{text:?} is not within the years 1 to 9999 in UTC"))
    }
}

/// What a `google.protobuf.Timestamp` may be, in seconds since the epoch.
const YEAR_1: i64 = -62_135_596_800;
const YEAR_10000: i64 = 253_402_300_800;

const EPOCH: civil::DateTime = civil::date(1970, 1, 1).at(0, 0, 0, 0);

/// A date and time with its offset.
fn last_hours(pieces: &temporal::Pieces<'_>) -> Option<prost_types::Timestamp> {
    let local = pieces.date().to_datetime(pieces.time()?).duration_since(EPOCH);
    let offset = SignedDuration::from_secs(pieces.to_numeric_offset()?.seconds().into());
    let time = local.checked_sub(offset)?;
    // Before the epoch the parser of times knows all that there are.
    Some(prost_types::Timestamp { seconds: time.as_secs(), nanos: time.subsec_nanos() })
        .filter(|time| time.seconds > 0)
}

/// A time for the wire. It has room for every time that there is.
pub fn to_timestamp(time: Timestamp) -> prost_types::Timestamp {
    let seconds = i64::try_from(time.as_nanosecond().div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.as_nanosecond().rem_euclid(1_000_000_000)).unwrap_or(0);
    prost_types::Timestamp { seconds, nanos }
}

/// Reads a time in the past: as [`parse_time`], or how long before `now`, such as
/// `2h` or `7d`.
///
/// # Errors
/// How to write one.
pub fn parse_since(text: &str, now: Timestamp) -> Result<prost_types::Timestamp, String> {
    match parse_duration(text) {
        Ok(ago) => now
            .checked_sub(ago)
            .map(to_timestamp)
            .map_err(|_| format!("{text:?} ago is out of range")),
        Err(Error::NoUnit { example, .. }) => {
            Err(format!("{text:?} has no unit; write {example} if seconds ago are meant"))
        }
        Err(_) => parse_time(text).map_err(|_| {
            format!(
                "{text:?} is not a time; write how long ago, like 2h or 7d, \
                 or RFC 3339, like 2026-12-24T18:00:00Z"
            )
        }),
    }
}

/// For the wire. What is longer than the wire can carry becomes the longest.
pub fn to_wire(span: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(span.subsec_nanos()).unwrap_or(0);
    prost_types::Duration { seconds, nanos }
}

/// From the wire; a negative span counts as zero.
pub fn from_wire(span: prost_types::Duration) -> Duration {
    Duration::try_from(span).unwrap_or_default()
}

/// A span for reading: three digits, one unit (two from a minute up).
pub fn span(span: Duration) -> String {
    let micros = span.as_secs_f64() * 1e6;
    match span.as_secs() {
        0 if micros < 999.5 => format!("{micros:.0} µs"),
        0 if micros < 999_500.0 => format!("{} ms", three_digits(micros / 1e3)),
        0..60 => format!("{} s", three_digits(span.as_secs_f64())),
        seconds @ 60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds @ 3600..172_800 => {
            format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60)
        }
        seconds => format!("{} d {:02} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A number per second for reading, to three digits: `0.25`, `12.3`, `1,234`.
pub fn frequency(per_second: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    match per_second {
        rate if rate.is_nan() || rate <= 0.0 => "0".into(),
        rate if rate < 0.005 => "<0.01".into(),
        rate if rate < 9.995 => format!("{rate:.2}"),
        rate if rate < 99.95 => format!("{rate:.1}"),
        rate => count(rate.round() as u64),
    }
}

/// A part of the whole for reading: `74%`.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share.clamp(0.0, 1.0) * 100.0)
}

fn three_digits(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// A count for reading: `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes for reading, to three digits: `812 B`, `1.2 MiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1_000 {
        return format!("{number} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// A count with its noun: `1 task`, `2 tasks`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A time as RFC 3339 in UTC, for programs.
pub fn rfc3339(time: prost_types::Timestamp) -> String {
    match moment(time) {
        Some(moment) => moment.to_string(),
        None => utc(time).map_or_else(String::new, |utc| format!("{utc}Z")),
    }
}

/// The date and time in UTC, to the last one of the year 9999.
fn utc(time: prost_types::Timestamp) -> Option<civil::DateTime> {
    EPOCH.checked_add(SignedDuration::new(time.seconds, time.nanos)).ok()
}

/// The local date and time with milliseconds.
pub fn calendar(time: prost_types::Timestamp) -> String {
    local(time, "%Y-%m-%d %H:%M:%S%.3f")
}

/// As short as a time can be told: of the local day of `today` without its date, of others
/// without milliseconds. In full, if it is not said when today is.
pub fn recent(time: prost_types::Timestamp, today: Option<prost_types::Timestamp>) -> String {
    let Some(today) = today else { return calendar(time) };
    if local(time, "%Y-%m-%d") == local(today, "%Y-%m-%d") {
        return clock(time);
    }
    local(time, "%Y-%m-%d %H:%M:%S")
}

/// The time of this moment.
pub fn now() -> prost_types::Timestamp {
    to_timestamp(Timestamp::now())
}

/// The local time of the day with milliseconds.
pub fn clock(time: prost_types::Timestamp) -> String {
    local(time, "%H:%M:%S%.3f")
}

fn local(time: prost_types::Timestamp, format: &str) -> String {
    match moment(time) {
        Some(moment) => moment.to_zoned(TimeZone::system()).strftime(format).to_string(),
        // It may have no date here.
        None => utc(time).map_or_else(|| "-".into(), |utc| utc.strftime(format).to_string()),
    }
}

fn moment(time: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// The span between two times; zero if the second is not later.
pub fn between(from: prost_types::Timestamp, to: prost_types::Timestamp) -> Duration {
    match (moment(from), moment(to)) {
        (Some(from), Some(to)) => Duration::try_from(to.duration_since(from)).unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!(parse_span("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_span("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_span("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_span("2d 3h"), Ok(Duration::from_hours(51)));
        for wrong in ["", "5", "-5s", "soon", "5 parsecs"] {
            assert!(parse_span(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn whole_numbers_have_their_bounds_in_words() {
        let pool = whole(1..=10_000_u32);
        assert_eq!(pool("7"), Ok(7));
        assert_eq!(pool("0"), Err("0 is not between 1 and 10,000".into()));
        assert_eq!(pool("-5"), Err("-5 is not between 1 and 10,000".into()));
        let wrong = "\"many\" is not a whole number; write one from 1 to 10,000";
        assert_eq!(pool("many"), Err(wrong.into()));
        let limit = whole(0..=u64::MAX);
        assert_eq!(limit("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(limit("x"), Err("\"x\" is not a whole number; write one from 0 up".into()));
        assert_eq!(limit("-1"), Err("-1 is not 0 or more".into()));
        assert_eq!(whole(i32::MIN..=i32::MAX)("-3"), Ok(-3));
    }

    #[test]
    fn times_are_read_with_their_offset() {
        let noon = prost_types::Timestamp { seconds: 1_766_577_600, nanos: 0 };
        assert_eq!(parse_time("2025-12-24T12:00:00Z"), Ok(noon));
        assert_eq!(parse_time("2025-12-24T13:00:00+01:00"), Ok(noon));
        assert_eq!(rfc3339(noon), "2025-12-24T12:00:00Z");
        let last = prost_types::Timestamp { seconds: YEAR_10000 - 1, nanos: 999_999_999 };
        assert_eq!(parse_time("9999-12-31T23:59:59.999999999Z"), Ok(last));
        assert_eq!(parse_time("9999-12-31T22:59:59.999999999-01:00"), Ok(last));
        assert_eq!(rfc3339(last), "9999-12-31T23:59:59.999999999Z");
        assert!(calendar(last).starts_with("9999-12-31 23:59:59"), "{}", calendar(last));
        let first = prost_types::Timestamp { seconds: YEAR_1, nanos: 0 };
        assert_eq!(parse_time("0001-01-01T00:00:00Z"), Ok(first));
        assert_eq!(rfc3339(first), "0001-01-01T00:00:00Z");
        for outside in ["9999-12-31T23:59:59-01:00", "0000-12-31T23:59:59Z"] {
            let wrong = parse_time(outside).expect_err(outside);
            assert!(wrong.contains("the years 1 to 9999"), "{wrong}");
        }
        assert!(parse_time("9999-12-31T23:59:59").is_err(), "it has no offset");
        assert!(parse_time("2025-12-24").is_err());
        assert!(parse_time("tomorrow").is_err());
    }

    #[test]
    fn times_in_the_past_may_be_spans() {
        let now = Timestamp::from_second(1_766_577_600).expect("within range");
        let at = |seconds| Ok(prost_types::Timestamp { seconds, nanos: 0 });
        assert_eq!(parse_since("2h", now), at(1_766_577_600 - 7_200));
        assert_eq!(parse_since("1d", now), at(1_766_577_600 - 86_400));
        assert_eq!(parse_since("2025-12-24T12:00:00Z", now), at(1_766_577_600));
        for (text, told) in [("2", "write 2s if"), ("yesterday", "like 2h"), ("7000000d", "range")]
        {
            let wrong = parse_since(text, now).expect_err(text);
            assert!(wrong.contains(told), "{wrong}");
        }
    }

    #[test]
    fn times_of_today_have_no_date() {
        let time = parse_time("2025-12-24T12:00:00.5Z").expect("a time");
        let later =
            |hours: i64| prost_types::Timestamp { seconds: time.seconds + hours * 3_600, ..time };
        assert_eq!(recent(time, Some(time)), clock(time));
        assert_eq!(recent(time, None), calendar(time));
        let other = recent(time, Some(later(48)));
        assert!(calendar(time).starts_with(&other) && !other.contains('.'), "{other}");
    }

    #[test]
    fn frequencies_have_three_digits() {
        let table = [
            (0.0, "0"),
            (0.001, "<0.01"),
            (0.25, "0.25"),
            (9.999, "10.0"),
            (12.34, "12.3"),
            (99.96, "100"),
            (12_345.6, "12,346"),
            (f64::NAN, "0"),
        ];
        for (value, text) in table {
            assert_eq!(frequency(value), text);
        }
        assert_eq!((percent(0.744), percent(1.5)), ("74%".into(), "100%".into()));
    }

    #[test]
    fn times_before_the_epoch_have_positive_nanos() {
        let time = parse_time("1969-12-31T23:59:59.5Z");
        assert_eq!(time, Ok(prost_types::Timestamp { seconds: -1, nanos: 500_000_000 }));
    }

    #[test]
    fn spans_are_written_in_one_friendly_unit() {
        let table = [
            (Duration::ZERO, "0 µs"),
            (Duration::from_micros(812), "812 µs"),
            (Duration::from_micros(1234), "1.2 ms"),
            (Duration::from_micros(45_600), "46 ms"),
            (Duration::from_micros(999_700), "1.0 s"),
            (Duration::from_millis(3_449), "3.4 s"),
            (Duration::from_secs(59), "59 s"),
            (Duration::from_secs(125), "2 min 05 s"),
            (Duration::from_secs(3_725), "1 h 02 min"),
            (Duration::from_hours(47), "47 h 00 min"),
            (Duration::from_hours(51), "2 d 03 h"),
        ];
        for (value, text) in table {
            assert_eq!(span(value), text);
        }
    }

    #[test]
    fn bytes_are_written_in_one_friendly_unit() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (123_456_789, "118 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "task"), "1 task");
        assert_eq!(counted(2_000, "task"), "2,000 tasks");
    }
}

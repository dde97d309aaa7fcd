//! Rates (`100/s`, `30/m`, `5/h`, `0.5/s`), or `none`.
//!
//! Owns how they are read and written. Must not know which bounds apply.

use super::quoted;

/// No limit at all.
pub const NONE: &str = "none";

/// A text that is not a rate. Says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a rate; write one such as 100/s, 30/m, 5/h or 0.5/s, or none", quoted(.0))]
pub struct Error(String);

/// Units of time, the shortest first, in seconds.
const UNITS: [(&str, f64); 4] = [("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];

/// Reads a rate, in events per second; `None` for [`NONE`].
///
/// # Errors
/// What is none: also one of zero or below it, which would be [`NONE`] or nonsense.
pub fn parse(text: &str) -> Result<Option<f64>, Error> {
    if text.trim() == NONE {
        return Ok(None);
    }
    per_second(text).map(Some).ok_or_else(|| Error(text.into()))
}

fn per_second(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    let number = number.trim();
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rate = number.parse::<f64>().ok()? / seconds;
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

/// Writes a rate in the shortest unit that has at least one, to four digits
/// behind the point.
pub fn show(per_second: f64) -> String {
    let (unit, seconds) = UNITS
        .into_iter()
        .find(|(_, seconds)| per_second * seconds >= 0.999_999)
        .unwrap_or(UNITS[UNITS.len() - 1]);
    let number = format!("{:.4}", per_second * seconds);
    let number = number.trim_end_matches('0').trim_end_matches('.');
    format!("{number}/{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, rate) in [
            ("100/s", 100.0),
            ("0.5/s", 0.5),
            ("30/m", 0.5),
            (" 36 / h ", 0.01),
            ("864/d", 0.01),
            ("1e3/s", 1_000.0),
        ] {
            assert_eq!(parse(text), Ok(Some(rate)), "{text}");
        }
        assert_eq!(parse("none"), Ok(None));
    }

    #[test]
    fn what_is_no_rate_is_refused_with_what_would_be_right() {
        for text in ["", "100", "100/", "/s", "0/s", "-1/s", "+1/s", "inf/s", "1/w", "1/s/s", "no"]
        {
            assert_eq!(parse(text), Err(Error(text.into())), "{text}");
        }
        assert_eq!(
            Error("5".into()).to_string(),
            r#""5" is not a rate; write one such as 100/s, 30/m, 5/h or 0.5/s, or none"#
        );
    }

    #[test]
    fn rates_are_written_in_a_unit_that_fits() {
        for (rate, text) in [
            (100.0, "100/s"),
            (1.5, "1.5/s"),
            (0.5, "30/m"),
            (5.0 / 3_600.0, "5/h"),
            (1.0 / 60.0, "1/m"),
            (0.000_1, "8.64/d"),
            (1_000_000.0, "1000000/s"),
        ] {
            assert_eq!(show(rate), text);
            assert_eq!(parse(text), Ok(Some(rate)), "{text}");
        }
    }
}

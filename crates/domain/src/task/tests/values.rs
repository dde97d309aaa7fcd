//! Identifiers, times and failures.

use super::*;
use crate::base32;

fn reads(text: &str) -> Option<TaskId> {
    text.parse().ok()
}

#[test]
fn an_id_is_written_as_documented() {
    assert_eq!(TaskId::new(1, 0).to_string(), "t100000000");
    assert_eq!(TaskId::new(32, 31).to_string(), "t100000000z");
    assert_eq!(TaskId::new(1, u64::MAX).to_string(), "t1zzzzzzzz", "a tag has 40 bits");
    let longest = TaskId::new(i64::MAX as u64, u64::MAX);
    assert_eq!(reads(&longest.to_string()), Some(longest));
    assert!(longest.to_string().len() <= 24);
    assert_eq!(format!("{longest:?}"), longest.to_string());
}

#[test]
fn what_is_no_id_is_refused() {
    let beyond_sql = TaskId::new(i64::MAX as u64 + 1, 0).to_string();
    for garbage in [
        "",
        "t",
        "t00000000",   // no number
        "t000000000",  // number zero
        "t0100000000", // a leading zero
        "T100000000",  // another prefix
        "100000000",   // none
        "t10000000A",  // upper case
        "t10000000i",  // letters that are left out
        "t10000000l",
        "t10000000o",
        "t10000000u",
        " t100000000",
        "t100000000\n",
        "t1000000é",
        "té00000000",
        "t\0\0\0\0\0\0\0\0\0",
        "tzzzzzzzzzzzzz00000000", // beyond 64 bits
        "t1000000000000000000000000000000",
        &beyond_sql,
    ] {
        assert_eq!(reads(garbage), None, "{garbage:?}");
    }
}

#[test]
fn base32_has_bounds() {
    assert_eq!(base32::read(b""), None);
    assert_eq!(base32::read(b"fzzzzzzzzzzzz"), Some(u64::MAX));
    assert_eq!(base32::read(b"g000000000000"), None, "one beyond 64 bits");
    assert_eq!(base32::read(b"00000000000001"), None, "too many digits");
    for (value, chars) in [(0, 1), (1, 1), (31, 1), (32, 2), (1023, 2), (1024, 3), (u64::MAX, 13)] {
        assert_eq!(base32::significant_chars(value), chars, "{value}");
    }
}

#[test]
fn a_failure_is_kept_as_it_is_if_it_fits() {
    let reason = "R".repeat(Failure::MAX_REASON);
    let message = "m".repeat(Failure::MAX_MESSAGE);
    let failure = Failure::new(&reason, message.clone());
    assert_eq!((failure.reason, failure.message), (reason, message));
    assert_eq!(Failure::new("exit-status 7é", "").reason, "EXIT_STATUS_7_");
}

#[test]
fn a_long_failure_is_cut_and_says_so() {
    let failure = Failure::new(&"r".repeat(100), "é".repeat(Failure::MAX_MESSAGE));
    assert_eq!(failure.reason, "R".repeat(Failure::MAX_REASON));
    assert!(failure.message.contains("é … é"), "{}", failure.message);
    assert!((Failure::MAX_MESSAGE - 2..=Failure::MAX_MESSAGE).contains(&failure.message.len()));
}

#[test]
fn a_message_that_is_cut_keeps_what_was_tried_and_its_cause() {
    let long = format!("cannot fetch {}: connection refused", "x".repeat(5_000));
    let message = Failure::new("FETCH", long).message;
    assert!(message.starts_with("cannot fetch xxx"), "{message}");
    assert!(message.ends_with("xxx: connection refused"), "{message}");
}

#[test]
fn times_do_not_overflow() {
    let (first, last) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
    assert_eq!(Timestamp(0).after(Duration::MAX), last);
    assert_eq!(last.after(Duration::from_micros(1)), last);
    assert_eq!(last.since(first), Duration::from_micros(i64::MAX as u64));
    assert_eq!(first.since(last), Duration::ZERO);
}

proptest! {
    #[test]
    fn an_id_reads_back(number in 1..=i64::MAX as u64, shift in 0..63u32, tag: u64) {
        let id = TaskId::new((number >> shift).max(1), tag);
        prop_assert_eq!(reads(&id.to_string()), Some(id));
    }

    #[test]
    fn an_id_has_one_spelling(text in "[tT]?[0-9a-zA-Z]{0,24}") {
        if let Some(id) = reads(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn no_text_is_too_odd(text: String) {
        if let Some(id) = reads(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn base32_reads_back(value: u64, shift in 0..64u32, wider in 0..3usize) {
        let value = value >> shift;
        let chars = (base32::significant_chars(value) + wider).min(base32::MAX_U64_CHARS);
        let mut digits = vec![0; chars];
        base32::write(value, &mut digits);
        prop_assert_eq!(base32::read(&digits), Some(value));
        let needed = base32::significant_chars(value);
        prop_assert!(value == 0 || digits[chars - needed] != b'0', "as few as possible");
    }

    #[test]
    fn a_failure_is_bounded(reason: String, message in "\\PC{0,2000}") {
        let failure = Failure::new(&reason, message.clone());
        prop_assert!(failure.reason.len() <= Failure::MAX_REASON);
        let upper_snake = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        prop_assert!(failure.reason.chars().all(upper_snake));
        prop_assert!(failure.message.len() <= Failure::MAX_MESSAGE);
        if message.len() > Failure::MAX_MESSAGE {
            // The mark may stand in the message, too.
            let is_cut = failure.message.match_indices(" … ").any(|(at, mark)| {
                message.starts_with(&failure.message[..at])
                    && message.ends_with(&failure.message[at + mark.len()..])
            });
            prop_assert!(is_cut, "{}", failure.message);
            prop_assert!(failure.message.len() >= Failure::MAX_MESSAGE - 8);
        } else {
            prop_assert_eq!(failure.message, message);
        }
    }

    #[test]
    fn since_undoes_after(start in i64::MIN / 2..i64::MAX / 2, span in 0..i64::MAX as u64 / 2) {
        let (start, span) = (Timestamp(start), Duration::from_micros(span));
        prop_assert_eq!(start.after(span).since(start), span);
    }
}

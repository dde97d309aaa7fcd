//! Cursors as clients send them: what is taken for one is written as it was read, and resolving
//! it never gives a number that there is not.

#![no_main]

use taskyard::{
    event::Seq,
    events::{Cursor, CursorCodec, Incarnation},
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((numbers, text)) = data.split_at_checked(2) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let read = taskyard_fuzz::within(1 << 10, || text.parse::<Cursor>());
    let Ok(cursor) = read else { return };
    let written = cursor.to_string();
    assert!(written.len() <= 26, "{written}");
    assert_eq!(written.parse(), Ok(cursor), "{text} was read as {written}");

    let (first, newest) = (u64::from(numbers[0]), u64::from(numbers[1]));
    let incarnations =
        [1, first.max(1)].map(|first| Incarnation { mark: 7, first: Seq(first) }).to_vec();
    let codec = CursorCodec::new(7, incarnations);
    if let Ok(seq) = codec.resolve(cursor, Seq(newest)) {
        assert_eq!(seq, cursor.seq());
        assert!(seq.0 <= newest, "{written} is past the newest event, {newest}");
        assert_eq!(codec.cursor(seq), cursor);
    }
});

//! Cursors, and which of them a store accepts.

use proptest::{collection::vec, prelude::*};

use super::*;

fn incarnation(mark: u32, first: u64) -> Incarnation {
    Incarnation { mark, first: Seq(first) }
}

fn codec(incarnations: &[(u32, u64)]) -> CursorCodec {
    CursorCodec::new(
        7,
        incarnations.iter().map(|(mark, first)| incarnation(*mark, *first)).collect(),
    )
}

/// Kept by a client as text, and sent back.
fn kept(cursor: Cursor) -> Cursor {
    let text = cursor.to_string();
    assert!(text.len() <= 64);
    text.parse().expect("a cursor reads back")
}

#[test]
fn a_cursor_of_another_store_is_refused() {
    let other = CursorCodec::new(8, vec![incarnation(1, 1)]);
    let resolved = codec(&[(1, 1)]).resolve(kept(other.cursor(Seq(3))), Seq(5));
    assert_eq!(resolved, Err(Invalid::AnotherStore));
}

#[test]
fn only_the_bits_of_a_mark_count() {
    let high = CursorCodec::new(7 | 1 << 31, vec![incarnation(1 | 1 << 30, 1)]);
    assert_eq!(high.resolve(kept(high.cursor(Seq(3))), Seq(5)), Ok(Seq(3)));
    assert_eq!(high.cursor(Seq(3)), codec(&[(1, 1)]).cursor(Seq(3)));
}

#[test]
fn a_cursor_past_the_end_is_refused() {
    let store = codec(&[(1, 1)]);
    assert_eq!(store.resolve(store.cursor(Seq(5)), Seq(5)), Ok(Seq(5)));
    assert_eq!(store.resolve(store.cursor(Seq(6)), Seq(5)), Err(Invalid::PastEnd));
}

#[test]
fn a_restored_backup_gives_the_same_numbers_to_other_events() {
    // The backup was taken at event 5; the store went on to event 9, was started
    // again, and went on to 12. Then the backup was restored and started.
    let backup = [(1, 1)];
    let lost = codec(&[backup[0], (2, 10)]);
    let restored = codec(&[backup[0], (3, 6)]);
    for newest in [5, 7, 9, 20] {
        for common in 0..=5 {
            let cursor = kept(lost.cursor(Seq(common)));
            assert_eq!(restored.resolve(cursor, Seq(newest)), Ok(Seq(common)));
        }
        for other in 6..=12 {
            // Whether or not the number was given again meanwhile.
            let resolved = restored.resolve(kept(lost.cursor(Seq(other))), Seq(newest));
            assert_eq!(resolved, Err(Invalid::AnotherHistory), "{other} of {newest}");
        }
    }
}

#[test]
fn incarnations_that_told_nothing_give_no_cursors() {
    // 2 and 3 died before their first event; 4 numbered from 6 on.
    let store = codec(&[(1, 1), (2, 6), (3, 6), (4, 6)]);
    for seq in 0..9 {
        assert_eq!(store.resolve(kept(store.cursor(Seq(seq))), Seq(8)), Ok(Seq(seq)));
    }
    let earlier = codec(&[(1, 1), (2, 6)]);
    assert_eq!(store.resolve(earlier.cursor(Seq(5)), Seq(8)), Ok(Seq(5)));
    let lost = store.resolve(earlier.cursor(Seq(6)), Seq(8));
    assert_eq!(lost, Err(Invalid::AnotherHistory), "the disk lost what incarnation 2 told");
}

#[test]
fn what_is_no_cursor_is_refused() {
    let good = codec(&[(1, 1)]).cursor(Seq(5)).to_string();
    let long = format!("{good}0000000000000");
    let upper = good.to_uppercase();
    let wide = format!("{}é", &good[..good.len() - 2]);
    for garbage in ["", "c", "c00000", &good[1..], &good[..13], &long, &upper, &wide, "newest"] {
        assert_eq!(garbage.parse::<Cursor>(), Err(NotACursor), "{garbage:?}");
    }
}

proptest! {
    #[test]
    fn every_cursor_that_was_given_out_resolves(
        store: u32,
        starts in vec((any::<u32>(), 0..5u64), 1..8),
        told in 0..40u64,
    ) {
        let mut first = 1;
        let mut incarnations = Vec::new();
        let mut given = Vec::new();
        for (mark, events) in starts {
            incarnations.push(incarnation(mark, first));
            let codec = CursorCodec::new(store, incarnations.clone());
            first += events;
            given.extend((0..first).map(|seq| (seq, kept(codec.cursor(Seq(seq))))));
        }
        let newest = Seq(first - 1 + told);
        let codec = CursorCodec::new(store, incarnations);
        for (seq, cursor) in given {
            prop_assert_eq!(codec.resolve(cursor, newest), Ok(Seq(seq)));
        }
    }

    #[test]
    fn a_cursor_reads_back(store: u32, mark: u32, seq: u64, shift in 0..64u32) {
        let cursor = CursorCodec::new(store, vec![incarnation(mark, 1)]).cursor(Seq(seq >> shift));
        prop_assert_eq!(kept(cursor), cursor);
    }

    #[test]
    fn no_text_is_too_odd(text in prop_oneof![any::<String>(), "c[0-9a-zé]{0,30}"]) {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(kept(cursor), cursor);
        }
    }
}

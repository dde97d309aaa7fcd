//! `WatchEventsResponse`, as the server sends it: joined, not encoded.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use crate::proto::v1::{
    SubmitResponse, WatchCaughtUp, WatchDraining, WatchGap, WatchHeartbeat, WatchSnapshot,
    WatchSnapshotEnd, WatchStarted,
};

/// The same bytes as [`crate::proto::v1::WatchEventsResponse`], with the events
/// encoded already: each was, once, when it was committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedWatchEventsResponse {
    /// Resume after this.
    pub cursor: String,
    /// Field 2, as often as there are events, with tags and lengths.
    pub events: Bytes,
    /// What else there is to say.
    pub control: Option<Control>,
}

/// The `control` of a response.
#[derive(Clone, Debug, PartialEq)]
pub enum Control {
    /// The watch has begun.
    Started(WatchStarted),
    /// The stream was silent.
    Heartbeat,
    /// The stream's last message.
    Draining,
    /// The task that is followed is on disk.
    Submitted(SubmitResponse),
    /// A part of the snapshot.
    Snapshot(WatchSnapshot),
    /// The snapshot is complete.
    SnapshotEnd,
    /// What had happened when the watch began was sent.
    CaughtUp,
    /// Events are missing.
    Gap(WatchGap),
}

impl Control {
    fn encode(&self, buf: &mut impl BufMut) {
        match self {
            Self::Started(started) => encoding::message::encode(3, started, buf),
            Self::Heartbeat => encoding::message::encode(4, &WatchHeartbeat {}, buf),
            Self::Draining => encoding::message::encode(5, &WatchDraining {}, buf),
            Self::Submitted(submitted) => encoding::message::encode(6, submitted, buf),
            Self::Snapshot(part) => encoding::message::encode(7, part, buf),
            Self::SnapshotEnd => encoding::message::encode(8, &WatchSnapshotEnd {}, buf),
            Self::CaughtUp => encoding::message::encode(9, &WatchCaughtUp {}, buf),
            Self::Gap(gap) => encoding::message::encode(10, gap, buf),
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Started(started) => encoding::message::encoded_len(3, started),
            Self::Heartbeat => encoding::message::encoded_len(4, &WatchHeartbeat {}),
            Self::Draining => encoding::message::encoded_len(5, &WatchDraining {}),
            Self::Submitted(submitted) => encoding::message::encoded_len(6, submitted),
            Self::Snapshot(part) => encoding::message::encoded_len(7, part),
            Self::SnapshotEnd => encoding::message::encoded_len(8, &WatchSnapshotEnd {}),
            Self::CaughtUp => encoding::message::encoded_len(9, &WatchCaughtUp {}),
            Self::Gap(gap) => encoding::message::encoded_len(10, gap),
        }
    }
}

/// Bytes of a message at least. HTTP/2 libraries close a connection, with all its
/// calls, on which too many frames of less than 256 bytes of data were not read (h2
/// since 0.4.16, at 160 of them with the smallest window). A frame has five more.
const LEAST: usize = 256 - 5;
/// The number of a field that is in no message, and passed over by whoever reads it.
const PADDING: u32 = 15;

impl EncodedWatchEventsResponse {
    fn content_len(&self) -> usize {
        let cursor = match self.cursor.as_str() {
            "" => 0,
            _ => encoding::string::encoded_len(1, &self.cursor),
        };
        cursor + self.events.len() + self.control.as_ref().map_or(0, Control::encoded_len)
    }

    /// Zeroes that are to be added, with a key and a length before them.
    fn padding(&self) -> Option<usize> {
        let missing = LEAST.checked_sub(self.content_len()).filter(|missing| *missing > 0)?;
        // A key of one byte, and a length of one, or of two from 128 on.
        Some(missing.saturating_sub(if missing > 130 { 3 } else { 2 }))
    }
}

impl Message for EncodedWatchEventsResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.cursor.is_empty() {
            encoding::string::encode(1, &self.cursor, buf);
        }
        buf.put_slice(&self.events);
        if let Some(control) = &self.control {
            control.encode(buf);
        }
        if let Some(zeroes) = self.padding() {
            encoding::encode_key(PADDING, WireType::LengthDelimited, buf);
            encoding::encode_varint(zeroes as u64, buf);
            buf.put_bytes(0, zeroes);
        }
    }

    fn encoded_len(&self) -> usize {
        let padding = self.padding().map_or(0, |zeroes| {
            encoding::key_len(PADDING) + encoding::encoded_len_varint(zeroes as u64) + zeroes
        });
        self.content_len() + padding
    }

    /// A server only sends this; what it would receive is passed over.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::proto::v1::{Event, Task, WatchEventsResponse, watch_events_response};

    fn control() -> impl Strategy<Value = Control> {
        prop_oneof![
            "[a-z0-9]{0,64}"
                .prop_map(|newest_cursor| Control::Started(WatchStarted { newest_cursor })),
            Just(Control::Heartbeat),
            Just(Control::Draining),
            Just(Control::SnapshotEnd),
            Just(Control::CaughtUp),
            vec("[a-z]{0,30}", 0..5).prop_map(|ids| {
                let task = |task_id| Task { task_id, ..Task::default() };
                let tasks = ids.into_iter().map(task).collect();
                Control::Snapshot(WatchSnapshot { tasks, workers: Vec::new() })
            }),
            ("[a-z0-9]{0,64}", any::<u64>()).prop_map(|(from_cursor, missing_events)| {
                Control::Gap(WatchGap { from_cursor, to_cursor: "c1".into(), missing_events })
            }),
            ("\\PC{0,30}", 0..7i32, any::<bool>()).prop_map(|(task_id, state, existing)| {
                let cursor = "c1".into();
                Control::Submitted(SubmitResponse { task_id, cursor, state, existing })
            }),
        ]
    }

    fn generated(control: Control) -> watch_events_response::Control {
        match control {
            Control::Started(started) => watch_events_response::Control::Started(started),
            Control::Heartbeat => watch_events_response::Control::Heartbeat(WatchHeartbeat {}),
            Control::Draining => watch_events_response::Control::Draining(WatchDraining {}),
            Control::Submitted(submitted) => watch_events_response::Control::Submitted(submitted),
            Control::Snapshot(part) => watch_events_response::Control::Snapshot(part),
            Control::SnapshotEnd => {
                watch_events_response::Control::SnapshotEnd(WatchSnapshotEnd {})
            }
            Control::CaughtUp => watch_events_response::Control::CaughtUp(WatchCaughtUp {}),
            Control::Gap(gap) => watch_events_response::Control::Gap(gap),
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        let fields = (any::<u64>(), 0..20i32, "\\PC{0,200}", any::<u32>());
        fields.prop_map(|(seq, r#type, queue, attempt)| Event {
            seq,
            r#type,
            queue,
            attempt,
            ..Event::default()
        })
    }

    #[test]
    fn no_message_is_small() {
        for content in 0..=LEAST {
            let joined = EncodedWatchEventsResponse {
                events: vec![0; content].into(),
                ..EncodedWatchEventsResponse::default()
            };
            let length = joined.encoded_len();
            assert_eq!(joined.encode_to_vec().len(), length);
            assert!((LEAST..=LEAST + 1).contains(&length), "{length} bytes for {content}");
        }
    }

    proptest! {
        #[test]
        fn it_encodes_as_the_generated_message_does(
            cursor in "[a-z0-9]{0,64}",
            events in vec(event(), 0..6),
            control in option::of(control()),
        ) {
            let pieces = WatchEventsResponse { events: events.clone(), ..Default::default() };
            let joined = EncodedWatchEventsResponse {
                cursor: cursor.clone(),
                events: pieces.encode_to_vec().into(),
                control: control.clone(),
            };
            let whole = WatchEventsResponse { cursor, events, control: control.map(generated) };
            let (encoded, content) = (joined.encode_to_vec(), whole.encode_to_vec());
            prop_assert_eq!(encoded.len(), joined.encoded_len());
            prop_assert!(encoded.starts_with(&content));
            prop_assert!(encoded.len() == content.len() || encoded.len() <= LEAST + 2);
            prop_assert!(encoded.len() >= LEAST, "it is small");
            prop_assert_eq!(WatchEventsResponse::decode(&*encoded), Ok(whole));
            let mut cleared = joined;
            cleared.clear();
            prop_assert_eq!(cleared, EncodedWatchEventsResponse::default());
        }
    }
}

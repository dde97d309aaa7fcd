//! `WatchEventsResponse`, as the server sends it: joined, not encoded.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use crate::proto::v1::{SubmitResponse, WatchDraining, WatchHeartbeat, WatchStarted};

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
}

impl Control {
    fn encode(&self, buf: &mut impl BufMut) {
        match self {
            Self::Started(started) => encoding::message::encode(3, started, buf),
            Self::Heartbeat => encoding::message::encode(4, &WatchHeartbeat {}, buf),
            Self::Draining => encoding::message::encode(5, &WatchDraining {}, buf),
            Self::Submitted(submitted) => encoding::message::encode(6, submitted, buf),
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Started(started) => encoding::message::encoded_len(3, started),
            Self::Heartbeat => encoding::message::encoded_len(4, &WatchHeartbeat {}),
            Self::Draining => encoding::message::encoded_len(5, &WatchDraining {}),
            Self::Submitted(submitted) => encoding::message::encoded_len(6, submitted),
        }
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
    }

    fn encoded_len(&self) -> usize {
        let cursor = match self.cursor.as_str() {
            "" => 0,
            _ => encoding::string::encoded_len(1, &self.cursor),
        };
        cursor + self.events.len() + self.control.as_ref().map_or(0, Control::encoded_len)
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
    use crate::proto::v1::{Event, WatchEventsResponse, watch_events_response};

    fn control() -> impl Strategy<Value = Control> {
        prop_oneof![
            "[a-z0-9]{0,64}"
                .prop_map(|newest_cursor| Control::Started(WatchStarted { newest_cursor })),
            Just(Control::Heartbeat),
            Just(Control::Draining),
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
            prop_assert_eq!(joined.encode_to_vec(), whole.encode_to_vec());
            prop_assert_eq!(joined.encoded_len(), whole.encoded_len());
            let mut cleared = joined;
            cleared.clear();
            prop_assert_eq!(cleared, EncodedWatchEventsResponse::default());
        }
    }
}

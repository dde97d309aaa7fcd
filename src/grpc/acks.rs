//! `SubmitStreamResponse`, as the server sends it: written as outcomes come.
//!
//! A stream may carry some hundred thousand acknowledgements a second. The
//! generated messages would take several allocations for each; these bytes are
//! the same.

use std::fmt::{Display, Write as _};

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, encode_key, encode_varint},
};
use tonic_types::pb;

use super::convert;
use crate::{
    events::Hub,
    proto::v1::{SubmitAck, submit_ack},
    store::Submitted,
};

/// The field number of `SubmitStreamResponse.acks`.
const ACKS_FIELD: u32 = 1;

/// The same bytes as [`crate::proto::v1::SubmitStreamResponse`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedSubmitStreamResponse {
    /// Field 1, as often as there are acknowledgements, with tags and lengths.
    acks: Bytes,
}

impl Message for EncodedSubmitStreamResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.acks);
    }

    fn encoded_len(&self) -> usize {
        self.acks.len()
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

/// Writes the acknowledgements of one message.
#[derive(Debug)]
pub struct AckWriter<'a> {
    hub: &'a Hub,
    out: Vec<u8>,
    ack: Vec<u8>,
    response: Vec<u8>,
    text: String,
}

impl<'a> AckWriter<'a> {
    /// A message of about `count` acknowledgements.
    pub fn new(hub: &'a Hub, count: usize) -> Self {
        /// Roughly as many bytes as an acknowledgement has.
        const USUAL: usize = 64;
        let out = Vec::with_capacity(count * USUAL);
        Self { hub, out, ack: Vec::new(), response: Vec::new(), text: String::new() }
    }

    /// The task is on disk.
    pub fn taken(&mut self, sequence: u64, submitted: Submitted) {
        self.response.clear();
        let cursor = self.hub.cursor(submitted.seq.previous());
        put_display(&mut self.response, &mut self.text, 1, submitted.task);
        put_display(&mut self.response, &mut self.text, 2, cursor);
        encoding::int32::encode(3, &convert::state_to(submitted.state).into(), &mut self.response);
        if submitted.existing {
            encoding::bool::encode(4, &true, &mut self.response);
        }
        self.ack.clear();
        if sequence != 0 {
            encoding::uint64::encode(1, &sequence, &mut self.ack);
        }
        put_bytes(&mut self.ack, 2, &self.response);
        put_bytes(&mut self.out, ACKS_FIELD, &self.ack);
    }

    /// The request was refused: rare, so the generated message may do it.
    pub fn refused(&mut self, sequence: u64, status: pb::Status) {
        let result = Some(submit_ack::Result::Error(status));
        encoding::message::encode(ACKS_FIELD, &SubmitAck { sequence, result }, &mut self.out);
    }

    /// The message.
    pub fn finish(self) -> EncodedSubmitStreamResponse {
        EncodedSubmitStreamResponse { acks: self.out.into() }
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_display(out: &mut Vec<u8>, text: &mut String, field: u32, value: impl Display) {
    text.clear();
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
    put_bytes(out, field, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        event::Seq,
        events::{CursorCodec, Incarnation, hub},
        grpc::status,
        proto::v1,
        task::{State, TaskId},
    };

    fn submitted() -> impl Strategy<Value = Submitted> {
        let fields = (1..i64::MAX as u64, any::<u64>(), 1..u64::MAX, 0..6usize, any::<bool>());
        fields.prop_map(|(number, tag, seq, state, existing)| Submitted {
            task: TaskId::new(number, tag),
            seq: Seq(seq),
            state: State::ALL[state],
            existing,
        })
    }

    proptest! {
        #[test]
        fn it_encodes_as_the_generated_message_does(
            outcomes in vec((any::<u64>(), proptest::option::of(submitted())), 0..9),
        ) {
            let incarnation = Incarnation { mark: 7, first: Seq(1) };
            let (_publisher, hub) = hub(Seq(0), CursorCodec::new(3, vec![incarnation]));
            let mut writer = AckWriter::new(&hub, outcomes.len());
            let mut acks = Vec::new();
            for (sequence, outcome) in outcomes {
                let result = Some(if let Some(submitted) = outcome {
                    writer.taken(sequence, submitted);
                    submit_ack::Result::Ack(v1::SubmitResponse {
                        task_id: submitted.task.to_string(),
                        cursor: hub.cursor(submitted.seq.previous()).to_string(),
                        state: convert::state_to(submitted.state).into(),
                        existing: submitted.existing,
                    })
                } else {
                    let status = status::to_message(&status::draining());
                    writer.refused(sequence, status.clone());
                    submit_ack::Result::Error(status)
                });
                acks.push(SubmitAck { sequence, result });
            }
            let (written, whole) = (writer.finish(), v1::SubmitStreamResponse { acks });
            prop_assert_eq!(written.encode_to_vec(), whole.encode_to_vec());
            prop_assert_eq!(written.encoded_len(), whole.encoded_len());
        }
    }
}

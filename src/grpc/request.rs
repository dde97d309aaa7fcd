//! `SubmitBatchRequest`, as the server reads it: bounded, whatever was sent.
//!
//! A request of a batch takes two bytes on the wire at the least, and some hundred
//! times as many in memory. Those that are too many are counted, and not kept.

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use crate::proto::v1::SubmitRequest;

/// Requests of a batch.
pub const MAX_REQUESTS: usize = 1_000;

/// The field numbers of `SubmitBatchRequest`.
const REQUESTS_FIELD: u32 = 1;
const ATOMIC_FIELD: u32 = 2;

/// What [`crate::proto::v1::SubmitBatchRequest`] says, as far as it may be taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoundedSubmitBatchRequest {
    /// The first 1,000, which is the most that a batch may have.
    pub requests: Vec<SubmitRequest>,
    /// How many came after those.
    pub left_out: usize,
    /// All or none.
    pub atomic: bool,
}

impl Message for BoundedSubmitBatchRequest {
    /// A server only reads this; what it left out is not written.
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::message::encode_repeated(REQUESTS_FIELD, &self.requests, buf);
        if self.atomic {
            encoding::bool::encode(ATOMIC_FIELD, &self.atomic, buf);
        }
    }

    fn encoded_len(&self) -> usize {
        let atomic =
            if self.atomic { encoding::bool::encoded_len(ATOMIC_FIELD, &self.atomic) } else { 0 };
        encoding::message::encoded_len_repeated(REQUESTS_FIELD, &self.requests) + atomic
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            REQUESTS_FIELD if self.requests.len() < MAX_REQUESTS => {
                encoding::message::merge_repeated(wire_type, &mut self.requests, buf, ctx)
            }
            REQUESTS_FIELD => {
                encoding::check_wire_type(WireType::LengthDelimited, wire_type)?;
                self.left_out += 1;
                encoding::skip_field(wire_type, tag, buf, ctx)
            }
            ATOMIC_FIELD => encoding::bool::merge(wire_type, &mut self.atomic, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::proto::v1::SubmitBatchRequest;

    fn request() -> impl Strategy<Value = SubmitRequest> {
        let fields = ("\\PC{0,20}", "[a-z]{0,9}", any::<i32>());
        fields.prop_map(|(kind, queue, priority)| SubmitRequest {
            kind,
            queue,
            priority,
            ..Default::default()
        })
    }

    proptest! {
        #[test]
        fn it_is_read_and_written_as_the_generated_message_is(
            requests in vec(request(), 0..9),
            atomic: bool,
        ) {
            let whole = SubmitBatchRequest { requests: requests.clone(), atomic };
            let bytes = whole.encode_to_vec();
            let read = BoundedSubmitBatchRequest::decode(bytes.as_slice()).unwrap();
            let expected = BoundedSubmitBatchRequest { requests, left_out: 0, atomic };
            prop_assert_eq!(&read, &expected);
            prop_assert_eq!(read.encoded_len(), bytes.len());
            prop_assert_eq!(read.encode_to_vec(), bytes);
        }

        #[test]
        fn no_bytes_are_read_that_the_generated_message_refuses(bytes in vec(0..=18_u8, 0..20)) {
            let whole = SubmitBatchRequest::decode(bytes.as_slice()).map(|read| read.requests);
            let bounded = BoundedSubmitBatchRequest::decode(bytes.as_slice());
            prop_assert_eq!(bounded.ok().map(|read| read.requests), whole.ok());
        }
    }

    #[test]
    fn what_is_too_much_is_counted_and_not_kept() {
        const SENT: usize = 2_000_000;
        let mut bytes = [0x0a, 0x00].repeat(SENT);
        bytes.extend([0x10, 0x01]);
        let read = BoundedSubmitBatchRequest::decode(bytes.as_slice()).expect("it is a message");
        assert_eq!((read.requests.len(), read.left_out), (MAX_REQUESTS, SENT - MAX_REQUESTS));
        assert!(read.requests.capacity() < 2 * MAX_REQUESTS);
        assert!(read.atomic, "what comes after them is read");
        // Nor is what is skipped allowed to be no message at all.
        let mut broken = [0x0a, 0x00].repeat(MAX_REQUESTS);
        broken.extend([0x08, 0x01]);
        assert!(BoundedSubmitBatchRequest::decode(broken.as_slice()).is_err());
    }
}

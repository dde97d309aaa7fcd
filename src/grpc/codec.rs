//! How the server reads messages.
//!
//! Owns one difference from prost's own codec: arguments that nest deeper than prost reads
//! (100 messages in one another) are cut, so that they are refused as what they are, one
//! wrong field of one request. Otherwise the whole message could not be read, and what is
//! wrong with it could not be named; on a stream, it would take all that follow with it.

use std::{any::TypeId, marker::PhantomData};

use bytes::{Buf, BufMut as _, Bytes};
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint},
};
use taskyard_proto::values::MAX_DEPTH;
use tonic::{
    Status,
    codec::{self, BufferSettings, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::request::BoundedSubmitBatchRequest;
use crate::proto::v1;

/// Writes as prost does, and reads as the module says.
#[derive(Clone, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader(PhantomData)
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct Reader<U>(PhantomData<U>);

/// Up to here, copying a message's bytes is cheaper than sharing them.
const SMALL: usize = 1 << 10;

impl<U: Message + Default + Send + 'static> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let length = src.remaining();
        if length <= SMALL && src.chunk().len() == length {
            let read = read(&src.chunk());
            src.advance(length);
            return read.map(Some);
        }
        read(&src.copy_to_bytes(length)).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

fn read<U: Message + Default + 'static>(bytes: &(impl Buf + Clone)) -> Result<U, Status> {
    U::decode(bytes.clone()).or_else(|error| {
        let cut = arguments_of::<U>().and_then(|path| cut(&mut bytes.clone(), path));
        let read = cut.and_then(|cut| U::decode(cut).ok());
        // In prost's words, which `status` knows.
        read.ok_or_else(|| Status::internal(error.to_string()))
    })
}

/// The fields that lead to the arguments in a message that has some.
fn arguments_of<U: 'static>() -> Option<&'static [u32]> {
    let read = TypeId::of::<U>();
    if read == TypeId::of::<v1::SubmitRequest>() {
        Some(&[2])
    } else if read == TypeId::of::<v1::SubmitStreamRequest>() {
        Some(&[2, 2])
    } else if read == TypeId::of::<BoundedSubmitBatchRequest>() {
        Some(&[1, 2])
    } else {
        None
    }
}

/// A message whose arguments, at the end of `path`, are cut one level below what is allowed,
/// so that they are still too deep; `None` if it is no message.
fn cut(message: &mut impl Buf, path: &[u32]) -> Option<Bytes> {
    let Some((step, rest)) = path.split_first() else {
        return cut_values(message, Nested::Struct, MAX_DEPTH + 1);
    };
    rewrite(message, |field, inner| if field == *step { Some(cut(inner, rest)) } else { None })
}

/// The messages of `google/protobuf/struct.proto`, by what in them leads deeper.
#[derive(Clone, Copy)]
enum Nested {
    Struct,
    Entry,
    Value,
    List,
}

/// `room` is how many objects and lists may still be entered, this one counted.
fn cut_values(message: &mut impl Buf, kind: Nested, room: usize) -> Option<Bytes> {
    if room == 0 {
        return Some(Bytes::new());
    }
    rewrite(message, |field, inner| {
        let (kind, room) = match (kind, field) {
            (Nested::Struct, 1) => (Nested::Entry, room),
            (Nested::Entry, 2) | (Nested::List, 1) => (Nested::Value, room),
            (Nested::Value, 5) => (Nested::Struct, room - 1),
            (Nested::Value, 6) => (Nested::List, room - 1),
            _ => return None,
        };
        Some(cut_values(inner, kind, room))
    })
}

/// Copies a message, but for the fields for which `change` has something else; `None` if it
/// is no message.
fn rewrite(
    message: &mut impl Buf,
    change: impl Fn(u32, &mut Bytes) -> Option<Option<Bytes>>,
) -> Option<Bytes> {
    let mut copy = Vec::with_capacity(message.remaining());
    while message.has_remaining() {
        let (field, wire_type) = decode_key(message).ok()?;
        encode_key(field, wire_type, &mut copy);
        match wire_type {
            WireType::Varint => encode_varint(decode_varint(message).ok()?, &mut copy),
            WireType::SixtyFourBit => copy.put(take(message, 8)?),
            WireType::ThirtyTwoBit => copy.put(take(message, 4)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(message).ok()?).ok()?;
                let mut inner = take(message, length)?;
                let inner = match change(field, &mut inner) {
                    Some(changed) => changed?,
                    None => inner,
                };
                encode_varint(inner.len() as u64, &mut copy);
                copy.put(inner);
            }
            // No message of this server has groups.
            WireType::StartGroup | WireType::EndGroup => return None,
        }
    }
    Some(copy.into())
}

fn take(message: &mut impl Buf, length: usize) -> Option<Bytes> {
    (message.remaining() >= length).then(|| message.copy_to_bytes(length))
}

#[cfg(test)]
mod tests {
    use prost_types::{ListValue, Struct, Value, value::Kind};

    use super::*;
    use crate::proto::v1::submit_request::Payload;
    use taskyard_proto::values::{self, Why};

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn object(inner: Value) -> Struct {
        Struct { fields: [("a".to_owned(), inner)].into() }
    }

    /// An object with `depth` - 1 more in it.
    fn objects(depth: usize) -> Struct {
        let one = value(Kind::NumberValue(1.0));
        (1..depth).fold(object(one), |inner, _| object(value(Kind::StructValue(inner))))
    }

    fn lists(depth: usize) -> Struct {
        let one = value(Kind::NumberValue(1.0));
        let list = |inner, _| value(Kind::ListValue(ListValue { values: vec![inner] }));
        object((1..depth).fold(one, list))
    }

    fn request(args: Struct) -> v1::SubmitRequest {
        v1::SubmitRequest {
            kind: "noop".into(),
            payload: Some(Payload::Args(args)),
            priority: -3,
            ..Default::default()
        }
    }

    /// What the arguments are refused for.
    fn refused(request: &v1::SubmitRequest) -> Why {
        assert_eq!((&*request.kind, request.priority), ("noop", -3));
        let Some(Payload::Args(args)) = &request.payload else { panic!("no arguments") };
        values::from_struct(args.clone()).expect_err("too deep").why
    }

    #[test]
    fn arguments_that_nest_deeper_than_can_be_read_are_still_named() {
        for deep in [objects, lists] {
            for depth in [21, 34, 49, 100, 1_000] {
                let one = request(deep(depth));
                let bytes = one.encode_to_vec();
                let read: v1::SubmitRequest = read(&bytes.as_slice()).expect("it is a message");
                assert_eq!(refused(&read), Why::TooDeep(MAX_DEPTH), "{depth}");
            }
        }
    }

    #[test]
    fn the_others_of_a_batch_or_a_stream_are_as_they_were_sent() {
        let good = request(objects(3));
        let requests = vec![good.clone(), request(objects(200)), good.clone()];
        let batch = v1::SubmitBatchRequest { requests, atomic: true }.encode_to_vec();
        let batch: BoundedSubmitBatchRequest = read(&Bytes::from(batch)).expect("it is a message");
        assert!(batch.atomic);
        assert_eq!([&batch.requests[0], &batch.requests[2]], [&good, &good]);
        assert_eq!(refused(&batch.requests[1]), Why::TooDeep(MAX_DEPTH));
        let request = Some(request(objects(200)));
        let item = v1::SubmitStreamRequest { sequence: 7, request }.encode_to_vec();
        let item: v1::SubmitStreamRequest = read(&Bytes::from(item)).expect("it is a message");
        assert_eq!(item.sequence, 7);
        assert_eq!(refused(&item.request.expect("it has one")), Why::TooDeep(MAX_DEPTH));
    }

    #[test]
    fn what_is_no_message_is_refused_as_before() {
        let whole = request(objects(200)).encode_to_vec();
        for broken in [&whole[..whole.len() - 1], &[0xff; 20], &[0x12, 0x7f]] {
            let status = read::<v1::SubmitRequest>(&broken).expect_err("no message");
            assert!(status.message().contains("decode Protobuf"), "{status}");
        }
    }
}

//! Statuses as the gRPC library makes them, and as messages carry them.

use prost::Message as _;
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::pb;

use super::{cut, plain, too_large};

/// The status of one of several requests, as a message: code, text and details.
pub fn to_message(status: &Status) -> pb::Status {
    // The details are such a message already. One that cannot be read is not of
    // this server, and loses no more than its details.
    let details = match pb::Status::decode(status.details()) {
        Ok(of_status) => of_status.details,
        Err(_) => Vec::new(),
    };
    pb::Status { code: status.code().into(), message: status.message().to_owned(), details }
}

/// Puts right what the gRPC library answers by itself: an oversized or garbled
/// request, an unknown method. `None` if the status is one of this module's.
pub fn repaired(status: &Status, path: &str) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    let message = status.message();
    let mut repaired = match status.code() {
        Code::OutOfRange if message.contains("message length too large") => {
            too_large(format!("the request is too large: {}", cut(message, 300)))
        }
        Code::Internal if message.contains("decode Protobuf") => plain(
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
            format!("the request is not a valid message: {}", cut(message, 300)),
        ),
        Code::Internal if message == "Missing request message." => plain(
            Code::Unimplemented,
            "NO_MESSAGE",
            "the method takes one message, and none was sent; nothing was done",
        ),
        Code::Unimplemented if message.is_empty() => plain(
            Code::Unimplemented,
            "UNKNOWN_METHOD",
            format!(
                "there is no method {:?}; `grpcurl … list` shows what there is",
                cut(path, 200)
            ),
        ),
        code => plain(code, "PROTOCOL", cut(message, 500)),
    };
    // What the library says beside it: which encodings are accepted.
    let mut headers = status.metadata().clone().into_headers();
    headers.extend(std::mem::take(repaired.metadata_mut()).into_headers());
    *repaired.metadata_mut() = MetadataMap::from_headers(headers);
    Some(repaired)
}

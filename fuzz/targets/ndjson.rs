//! A line of `submit --from`: what is taken is a request that the server can read.

#![no_main]

use prost::Message as _;
use taskyard::proto::v1::SubmitRequest;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Each value of a list becomes a message of its own.
    let bound = 400 * data.len() + (1 << 14);
    match taskyard_fuzz::within(bound, || taskyard_cli::fuzzing::ndjson_line(data)) {
        Ok(request) => {
            assert!(!request.kind.is_empty(), "{request:?}");
            let sent = request.encode_to_vec();
            let read = SubmitRequest::decode(&*sent).expect("the server can read it");
            assert_eq!(read.encode_to_vec().len(), sent.len(), "{request:?}");
        }
        Err(wrong) => {
            assert!(!wrong.is_empty(), "it is refused, and nothing is wrong");
            assert!(wrong.iter().all(|wrong| !wrong.is_empty()), "{wrong:?}");
        }
    }
});

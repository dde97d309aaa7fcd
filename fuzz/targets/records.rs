//! Records as a disk may have them: any bytes are refused, or read as what is written again as the
//! same record.

#![no_main]

use prost::encoding::{DecodeContext, decode_key, skip_field};
use taskyard::store::fuzzing::{RECORDS, labels_of_format_1, tasks_of_pack};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // A name of a byte, or a task of two, takes some hundred in memory; what is written again
    // has room to grow.
    let bound = 300 * data.len() + (1 << 10);
    for (name, rewrite) in RECORDS {
        let Some(written) = taskyard_fuzz::within(bound, || rewrite(data)) else { continue };
        assert_eq!(rewrite(&written).as_ref(), Some(&written), "a record of a {name}");
    }
    if let Some(tasks) = taskyard_fuzz::within(bound, || tasks_of_pack(1_000, data)) {
        assert_eq!(Some(tasks), heads(data), "tasks of a pack");
    }
    if let Some(labels) = taskyard_fuzz::within(bound, || labels_of_format_1(data)) {
        let (_, rewrite) = RECORDS[1];
        assert_eq!(rewrite(&labels), Some(labels), "labels of format 1");
    }
});

/// How often the bytes have the field of a pack that is a task.
fn heads(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let (field, wire_type) = decode_key(&mut bytes).ok()?;
        skip_field(wire_type, field, &mut bytes, DecodeContext::default()).ok()?;
        count += usize::from(field == 2);
    }
    Some(count)
}

//! What the fuzz targets reach of the records: there with `--cfg fuzzing` alone.

use prost::Message as _;

use super::record::{LabelsRecord, OutputRecord, PackRecord, QueueRecord, TaskRecord};

/// Reads a record and writes it again; `None` if it cannot be read.
pub type Rewrite = fn(&[u8]) -> Option<Vec<u8>>;

/// What is kept as records.
pub const RECORDS: [(&str, Rewrite); 5] = [
    ("task", |bytes| TaskRecord::from_bytes(bytes).ok().map(|record| record.to_bytes())),
    ("labels", |bytes| {
        let labels = LabelsRecord::from_bytes(Some(bytes)).ok()?;
        Some(LabelsRecord::to_bytes(&labels).unwrap_or_default())
    }),
    ("queue", |bytes| {
        QueueRecord::from_bytes(bytes).ok().map(|overrides| QueueRecord::to_bytes(&overrides))
    }),
    ("pack", |bytes| PackRecord::decode(bytes).ok().map(|record| record.to_bytes())),
    ("output", |bytes| {
        OutputRecord::from_bytes(bytes).ok().map(|output| OutputRecord::to_bytes(&output))
    }),
];

/// How many tasks the pack of this number has; `None` if it cannot be read.
pub fn tasks_of_pack(pack: u64, bytes: &[u8]) -> Option<usize> {
    PackRecord::heads(pack, bytes).ok().map(|heads| heads.len())
}

/// The labels in a record of format 1, as a record of their own.
pub fn labels_of_format_1(bytes: &[u8]) -> Option<Vec<u8>> {
    LabelsRecord::from_format_1(bytes)
}

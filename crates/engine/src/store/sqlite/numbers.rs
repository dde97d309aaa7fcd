//! Task numbers in as few bytes as they need.

use prost::encoding::{decode_varint, encode_varint};

/// Each as the difference from the one
/// before, zigzag, as a varint.
pub fn pack(tasks: &[u64]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(tasks.len() * 2);
    let mut before = 0u64;
    for task in tasks {
        let step = task.wrapping_sub(before).cast_signed();
        encode_varint(((step << 1) ^ (step >> 63)).cast_unsigned(), &mut packed);
        before = *task;
    }
    packed
}

/// The reverse of [`pack`]; what is damaged ends it.
pub fn unpack(mut packed: &[u8]) -> Vec<u64> {
    let mut tasks = Vec::new();
    let mut before = 0u64;
    while let Ok(zigzag) = decode_varint(&mut packed) {
        let step = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        before = before.wrapping_add(step);
        tasks.push(before);
    }
    tasks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_as_they_went(tasks in proptest::collection::vec(any::<u64>(), 0..50)) {
            prop_assert_eq!(unpack(&pack(&tasks)), tasks);
        }
    }

    #[test]
    fn neighbours_take_a_byte_each() {
        assert_eq!(pack(&[1_000_000, 1_000_001, 1_000_003, 1_000_002]).len(), 3 + 3);
    }
}

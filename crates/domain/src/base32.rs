//! Crockford's base 32 in lower case: digits and letters that are not mistaken
//! for each other (no i, l, o, u). <https://www.crockford.com/base32.html>

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters that any `u64` fits in.
pub const MAX_U64_CHARS: usize = 13;

/// Characters that `value` needs, at least one.
#[must_use]
pub fn significant_chars(value: u64) -> usize {
    (64 - value.leading_zeros()).div_ceil(5).max(1) as usize
}

/// Fills `out` with the low digits of `value`, zeros in front.
pub fn write(mut value: u64, out: &mut [u8]) {
    for place in out.iter_mut().rev() {
        *place = ALPHABET[(value & 31) as usize];
        value >>= 5;
    }
}

/// The value of `digits`; `None` if one is not of the alphabet, there is
/// none, or the value is beyond 64 bits.
#[must_use]
pub fn read(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_U64_CHARS {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let low = ALPHABET.iter().position(|known| known == digit)? as u64;
        (value >> 59 == 0).then_some(value << 5 | low)
    })
}

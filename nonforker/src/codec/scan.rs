//! Where the first delimiter is.
//!
//! Most lines are short. To choose among the vector units of a processor and to align the start, as
//! [`memchr`] does, costs more than to look at a hundred bytes; behind those it is worth it.

use memchr::memchr;

/// So many blocks of 16 bytes are looked at here.
const BLOCKS: usize = 8;

/// Where `needle` occurs first in `bytes`.
#[inline(never)]
pub(super) fn first(needle: u8, bytes: &[u8]) -> Option<usize> {
    let (blocks, _) = bytes.as_chunks::<16>();
    let mut at = 0;
    for block in blocks.iter().take(BLOCKS) {
        // Without an early end, so that the compiler makes one vector comparison of it.
        if block.iter().fold(false, |found, &byte| found | (byte == needle)) {
            return Some(at + within(needle, u128::from_le_bytes(*block)));
        }
        at += block.len();
    }
    further(needle, bytes, at)
}

#[inline(never)]
fn further(needle: u8, bytes: &[u8], at: usize) -> Option<usize> {
    memchr(needle, bytes.get(at..)?).map(|further| at + further)
}

/// Where `needle`, which is there, occurs first in a block.
#[inline]
fn within(needle: u8, block: u128) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    let halves = (block as u64, (block >> 64) as u64);
    let hits = zeros(halves.0 ^ repeat(needle));
    let bits = if hits != 0 {
        hits.trailing_zeros()
    } else {
        64 + zeros(halves.1 ^ repeat(needle)).trailing_zeros()
    };
    bits as usize / 8
}

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The highest bit of each byte that is zero; bits above the first of them may be wrong.
const fn zeros(bytes: u64) -> u64 {
    bytes.wrapping_sub(repeat(0x01)) & !bytes & repeat(0x80)
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn the_first_is_found_wherever_it_is() {
        for len in 0..300 {
            for at in 0..=len {
                let mut bytes = vec![b'x'; len];
                for byte in bytes.iter_mut().skip(at).step_by(3) {
                    *byte = b'\n';
                }
                let expected = (at < len).then_some(at);
                assert_eq!(first(b'\n', &bytes), expected, "at {at} of {len}");
            }
        }
    }
}

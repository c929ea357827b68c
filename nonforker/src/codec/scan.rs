//! Where the first delimiter is.
//!
//! Most lines are short. To choose among the vector units of a processor and to align the start, as
//! [`memchr()`] does, costs more than to look at a hundred bytes; behind those it is worth it.

use memchr::memchr;

/// So many blocks of 32 bytes are looked at here.
const BLOCKS: usize = 4;

/// Where `NEEDLE` occurs first in `bytes`.
#[inline(never)]
pub(super) fn first<const NEEDLE: u8>(bytes: &[u8]) -> Option<usize> {
    let (blocks, _) = bytes.as_chunks::<32>();
    let mut at = 0;
    for block in blocks.iter().take(BLOCKS) {
        // Without an early end, so that the compiler makes two vector comparisons of it.
        if block.iter().fold(false, |found, &byte| found | (byte == NEEDLE)) {
            return Some(at + within::<NEEDLE>(block));
        }
        at += block.len();
    }
    further(NEEDLE, bytes, at)
}

#[inline(never)]
fn further(needle: u8, bytes: &[u8], at: usize) -> Option<usize> {
    memchr(needle, bytes.get(at..)?).map(|further| at + further)
}

/// Where `NEEDLE`, which is there, occurs first in a block.
#[inline]
fn within<const NEEDLE: u8>(block: &[u8; 32]) -> usize {
    let (words, _) = block.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let hits = zeros(u64::from_le_bytes(*word) ^ repeat(NEEDLE));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += word.len();
    }
    at
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
                assert_eq!(first::<b'\n'>(&bytes), expected, "at {at} of {len}");
            }
        }
    }
}

//! Where the first delimiter is.
//!
//! Most lines are short. To choose among the vector units of a processor and to align the start, as
//! [`memchr()`] does, costs more than to look at a hundred bytes; behind those it is worth it.
//!
//! ```text
//!  block of 64 bytes ── compare ──▶ a bit for each byte ── the lowest ──▶ where it is
//! ```

use memchr::memchr;
use wide::u8x16;

const BLOCK: usize = 64;

/// Where `NEEDLE` occurs first in `bytes`.
#[inline(always)]
pub(super) fn first<const NEEDLE: u8>(bytes: &[u8]) -> Option<usize> {
    let mut looked_at = 0;
    if let Some(block) = bytes.first_chunk::<BLOCK>() {
        let hits = hits::<NEEDLE>(block);
        if hits != 0 {
            return Some(hits.trailing_zeros() as usize);
        }
        looked_at = BLOCK;
    }
    Some(looked_at + memchr(NEEDLE, bytes.get(looked_at..)?)?)
}

/// A bit for each byte of a block that is `NEEDLE`, the lowest for the first.
#[inline]
fn hits<const NEEDLE: u8>(block: &[u8; BLOCK]) -> u64 {
    let needle = u8x16::splat(NEEDLE);
    let (parts, _) = block.as_chunks::<16>();
    parts.iter().rev().fold(0, |hits, &part| {
        let equal = u8x16::from(part).cmp_eq(needle);
        hits << 16 | u64::from(equal.move_mask().cast_unsigned())
    })
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

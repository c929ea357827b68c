//! The short way to a command: at most nine arguments, and all of it is there, as with most commands.
//!
//! ```text
//!  *2\r\n $3\r\nGET\r\n $10\r\nuser:12345\r\n
//!  ──┬─── ──┬───    ─┬─  ──┬───          ─┬─
//!    └──────┴────────┴─────┴──────────────┴── each compared as one number
//! ```
//!
//! Nothing is refused here. What is not as above is left to the long way, in `mod.rs`, which knows
//! whether it is longer, incomplete or wrong. What is taken here would be taken there, too.

use super::{
    Number, any_number,
    command::{Bulks, Command},
};

/// A command of at most 9 arguments, and what is behind it.
#[inline]
pub(super) fn command(
    input: &[u8],
    args_max: usize,
    bulk_max: usize,
) -> Option<(Command<'_>, &[u8])> {
    let (count, body) = digit(b'*', input)?;
    if !(1..=args_max).contains(&count) {
        return None;
    }
    let (name, mut rest) = argument(body, bulk_max)?;
    let mut first = None;
    if count > 1 {
        let (argument, behind) = argument(rest, bulk_max)?;
        (first, rest) = (Some(argument), behind);
    }
    let mut behind = rest;
    for _ in 2..count {
        (_, behind) = argument(behind, bulk_max)?;
    }
    Some((Command::new(count, name, first, Bulks(rest)), behind))
}

/// An argument of at most `max` bytes, and what is behind it.
#[inline]
pub(super) fn argument(bytes: &[u8], max: usize) -> Option<(&[u8], &[u8])> {
    match digit(b'$', bytes).or_else(|| two_digits(b'$', bytes)) {
        Some((length, bytes)) if length <= max => split(bytes, length),
        Some(_) => None,
        None => long_argument(bytes, max),
    }
}

/// An argument whose length has more digits, and what is behind it.
#[inline(never)]
fn long_argument(bytes: &[u8], max: usize) -> Option<(&[u8], &[u8])> {
    match (bytes.first(), any_number(bytes, 1, max)) {
        (Some(b'$'), Number::Is(length, start)) => split(bytes.get(start..)?, length),
        _ => None,
    }
}

/// So many bytes in front of `\r\n`, and what is behind that.
#[inline]
fn split(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (argument, behind) = bytes.split_at_checked(length + 2)?;
    let (argument, ending) = argument.split_last_chunk()?;
    (*ending == *b"\r\n").then_some((argument, behind))
}

/// The number in `kind`, a digit and `\r\n`; and what is behind them.
#[inline]
fn digit(kind: u8, bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, behind) = bytes.split_first_chunk()?;
    let zero = u32::from_le_bytes([kind, b'0', b'\r', b'\n']);
    // Where they differ there must be the value of the digit, and nothing else.
    let number = (u32::from_le_bytes(*head) ^ zero).rotate_right(8);
    (number <= 9).then_some((number as usize, behind))
}

/// The number in `kind`, two digits of which the first is not 0, and `\r\n`; and what is behind
/// them.
#[inline]
fn two_digits(kind: u8, bytes: &[u8]) -> Option<(usize, &[u8])> {
    let ([first, head @ ..], behind) = bytes.split_first_chunk::<5>()?;
    let digits = u32::from_le_bytes(*head) ^ u32::from_le_bytes(*b"00\r\n");
    // Two bytes of values, the tens below; six more than a digit still has no more than four bits.
    let are_digits = (digits | digits.wrapping_add(0x0606)) & !0x0f0f == 0;
    let (tens, ones) = (digits & 0xff, digits >> 8);
    let is_number = *first == kind && are_digits && tens > 0;
    is_number.then_some(((tens * 10 + ones) as usize, behind))
}

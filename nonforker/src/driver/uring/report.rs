//! The names of operations, and what became of them.

use std::io;

use super::buffers::Lent;
use crate::conn::buffer::Buffer;

/// What an operation is, in its user data: four bits that no token uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A connection waits at a listener.
    Listener,
    /// Received bytes, in buffers of the ring.
    Receive,
    /// A send that waits until the kernel takes some of it.
    Send,
    /// A send that is carried out at once or not at all: see [`flights`](super::flights).
    Flight,
    /// Something happens to a socket.
    Watch,
    Cancel,
    Wake,
    /// A socket that is being connected may be.
    Connect,
}

/// Names an operation: what it is, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) kind: Kind,
    pub(super) key: u64,
}

impl Name {
    const SHIFT: u32 = 28;
    const KINDS: [Kind; 8] = [
        Kind::Listener,
        Kind::Receive,
        Kind::Send,
        Kind::Flight,
        Kind::Watch,
        Kind::Cancel,
        Kind::Wake,
        Kind::Connect,
    ];

    pub(super) fn pack(self) -> u64 {
        debug_assert_eq!(self.key & (0xf << Self::SHIFT), 0, "there are fewer than 2^28 slots");
        self.key | (self.kind as u64) << Self::SHIFT
    }

    pub(super) fn unpack(data: u64) -> Option<Self> {
        let kind = usize::try_from(data >> Self::SHIFT & 0xf).ok()?;
        let key = data & !(0xf << Self::SHIFT);
        Some(Self { kind: *Self::KINDS.get(kind)?, key })
    }
}

/// What became of an operation.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) name: Name,
    pub(super) result: io::Result<u32>,
    /// There will be more reports of the same operation.
    pub(super) more: bool,
    /// Of a receive: the kernel has more.
    pub(super) more_waits: bool,
    pub(super) lent: Option<Lent>,
    pub(super) batch: Option<Buffer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_was_packed_from() {
        for kind in Name::KINDS {
            for key in [0, 1, 0xfff_ffff, 0xffff_ffff_0000_0001] {
                let name = Name { kind, key };
                assert_eq!(Name::unpack(name.pack()), Some(name));
            }
        }
    }
}

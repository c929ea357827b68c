//! How much room a ring has, and how often it was not enough.

/// How many there are of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Submissions that fit before they have to be handed over.
    pub(super) submissions: u32,
    /// Completions that fit before the kernel has to keep them itself.
    pub(super) completions: u32,
    /// Receive buffers: enough for everybody whom the kernel serves in one go.
    pub(super) buffers: u16,
}

impl Size {
    pub(super) const DEFAULT: Self = Self { submissions: 512, completions: 4096, buffers: 64 };
}

/// How often what is rare has happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// The submission queue was full.
    pub(crate) full: u32,
    /// The completion queue was.
    pub(crate) overflowed: u32,
    /// A receive found no buffer.
    pub(crate) hungry: u32,
    /// Bytes came after a receive was turned off.
    pub(crate) late: u32,
    /// A send did not go in one piece.
    pub(crate) bounced: u32,
}

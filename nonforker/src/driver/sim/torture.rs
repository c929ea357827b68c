//! Failing one operation after the other, as curl's "torture" tests do.

/// Counts the operations that can fail, and fails the one that is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Torture {
    /// Operations so far.
    pub(crate) count: u64,
    /// Which one fails, counted from 1.
    pub(crate) victim: Option<u64>,
    /// All that come after it fail, too.
    pub(crate) for_ever: bool,
}

impl Torture {
    /// Counts one more operation. Returns whether it has to fail.
    pub(crate) fn strikes(&mut self) -> bool {
        self.count += 1;
        self.victim
            .is_some_and(|victim| self.count == victim || (self.for_ever && self.count > victim))
    }
}

//! Names a callback that took long: nothing else happened meanwhile.

use std::time::Duration;

use super::{core::Core, slot::Slot, throttle::Notice};
use crate::driver::Clock;

/// How late the coarse clock may be, and some more: a tick of the slowest kernels. In nanoseconds.
const COARSE_MAX: u64 = 20_000_000;

impl Core {
    /// A callback begins. Returns when, in nanoseconds.
    #[inline]
    pub(crate) fn callback_begins(&mut self, slot: &Slot) -> u64 {
        if slot.rules.slow < COARSE_MAX {
            self.look_at_clock();
        }
        self.now
    }

    /// The callbacks of this name that began then have returned.
    #[inline(always)]
    pub(crate) fn callback_ends(&mut self, slot: &Slot, callback: &str, began: u64) {
        let slow = slot.rules.slow;
        if slow < COARSE_MAX {
            self.look_at_clock();
        } else if slow < u64::MAX {
            self.look_at(Clock::COARSE);
        }
        if self.now - began >= slow {
            self.was_slow(slot, callback, self.now - began);
        }
    }

    #[cold]
    fn was_slow(&mut self, slot: &Slot, callback: &str, took: u64) {
        let took = Duration::from_nanos(took);
        if let Some(left_out) = self.notice(Notice::Slow) {
            tracing::warn!(
                peer = %slot.peer(), callback, ?took, left_out,
                "the handler was slow, and everybody else waited"
            );
        }
    }
}

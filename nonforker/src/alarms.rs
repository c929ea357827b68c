//! Timers of handlers: what is to be called, and when.
//!
//! A connection has a few of them, a service up to a thousand; so they are in a plain list. What
//! they share with the deadlines of a connection is only the time of the earliest.

use std::{fmt, time::Duration};

use crate::{conn::deadlines::Tick, driver::nanos, error::TooManyTimers};

/// How many timers a connection may have.
pub(crate) const OF_CONNECTION: usize = 16;
/// How many timers a service may have.
pub(crate) const OF_SERVICE: usize = 1000;

/// The shortest time between two calls of a repeated timer, in nanoseconds: a millisecond.
const PERIOD_MIN: u64 = 1_000_000;
/// A tick, in nanoseconds.
const TICK: u64 = 1_000;

/// Names a timer, to be cancelled: see [`Conn::after`](crate::Conn::after) and
/// [`Connections::after`](crate::Connections::after). The id of one that has been called, or was
/// cancelled, never names another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(u64);

/// What is called, once or again and again.
pub(crate) enum Run<O, E> {
    Once(O),
    Every(E),
}

/// A timer that waits, or is called just now.
pub(crate) struct Alarm<O, E> {
    id: TimerId,
    at: Tick,
    /// When it is due and the time to the next call after that, in nanoseconds, so that what the
    /// rounding to ticks adds does not add up.
    exactly: (u64, u64),
    pub(crate) run: Run<O, E>,
}

/// The timers of a connection or a service. An empty list takes a pointer.
pub(crate) struct Alarms<O, E> {
    #[expect(clippy::box_collection, reason = "most connections have none")]
    list: Option<Box<Vec<Alarm<O, E>>>>,
}

impl<O, E> Default for Alarms<O, E> {
    fn default() -> Self {
        Self { list: None }
    }
}

impl<O, E> fmt::Debug for Alarms<O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarms").field("earliest", &self.earliest()).finish()
    }
}

impl<O, E> Alarms<O, E> {
    /// Sets a timer that is due at `at`. `set` counts all that were ever set, and `period` is the
    /// time between two calls. At most `max` of them can wait.
    pub(crate) fn set(
        &mut self,
        set: &mut u64,
        max: usize,
        at: Tick,
        period: Duration,
        run: Run<O, E>,
    ) -> Result<TimerId, TooManyTimers> {
        let list = self.list.get_or_insert_default();
        if list.len() >= max {
            return Err(TooManyTimers { max });
        }
        *set += 1;
        let id = TimerId(*set);
        let exactly = ((at.get() - 1).saturating_mul(TICK), nanos(period).max(PERIOD_MIN));
        list.push(Alarm { id, at, exactly, run });
        Ok(id)
    }

    /// Forgets a timer. Returns whether there was one.
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        let Some(list) = &mut self.list else { return false };
        let before = list.len();
        list.retain(|alarm| alarm.id != id);
        list.len() < before
    }

    /// When the first is due.
    pub(crate) fn earliest(&self) -> Option<Tick> {
        self.list.as_ref()?.iter().map(|alarm| alarm.at).min()
    }

    /// The first that is due, if one is: by its time, and of the same time the one set first.
    pub(crate) fn first_due(&self, now: Tick) -> Option<TimerId> {
        let first = self.list.as_ref()?.iter().min_by_key(|alarm| (alarm.at, alarm.id))?;
        (first.at <= now).then_some(first.id)
    }

    /// Takes what is to be called of a timer that is due. A repeated one stays, with what `stand_in`
    /// gives in its place, to be [put back](Self::put_back) unless it is cancelled meanwhile.
    pub(crate) fn take(&mut self, id: TimerId, now: Tick, stand_in: E) -> Option<Run<O, E>> {
        let list = self.list.as_mut()?;
        let index = list.iter().position(|alarm| alarm.id == id)?;
        if let Run::Once(_) = list[index].run {
            return Some(list.swap_remove(index).run);
        }
        let alarm = &mut list[index];
        let (due, period) = alarm.exactly;
        // Calls that were missed while the server was away are left out.
        let missed = (now.get() - 1).saturating_mul(TICK).saturating_sub(due) / period;
        let due = due.saturating_add(period.saturating_mul(missed + 1));
        alarm.exactly = (due, period);
        alarm.at = Tick::MIN.saturating_add(due.div_ceil(TICK));
        Some(std::mem::replace(&mut alarm.run, Run::Every(stand_in)))
    }

    /// Puts back what is called again and again.
    pub(crate) fn put_back(&mut self, id: TimerId, every: E) {
        let Some(list) = &mut self.list else { return };
        if let Some(alarm) = list.iter_mut().find(|alarm| alarm.id == id) {
            alarm.run = Run::Every(every);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Alarms, Run, Tick};

    fn tick(at: u64) -> Tick {
        Tick::new(at).expect("not zero")
    }

    #[test]
    fn repeated_timers_do_not_drift_and_leave_out_what_was_missed() {
        let mut alarms = Alarms::<(), u8>::default();
        let third = Duration::from_secs(1) / 3;
        let id = alarms.set(&mut 0, 1, tick(333_335), third, Run::Every(1)).expect("room");
        let mut due = Vec::new();
        for _ in 0..3 {
            let at = alarms.earliest().expect("it repeats");
            assert_eq!(alarms.first_due(at), Some(id));
            assert!(matches!(alarms.take(id, at, 0), Some(Run::Every(1))));
            alarms.put_back(id, 1);
            due.push(at.get());
        }
        assert_eq!(due, [333_335, 666_669, 1_000_002], "a third of a second apart");
        alarms.take(id, tick(3_400_000), 0);
        assert_eq!(alarms.earliest(), Some(tick(3_666_669)), "in step, and not eight times");
    }

    #[test]
    fn a_timer_is_called_in_the_order_of_time_and_not_when_cancelled() {
        let mut alarms = Alarms::<u8, ()>::default();
        let (mut set, zero) = (0, Duration::ZERO);
        let mut add = |alarms: &mut Alarms<u8, ()>, at: u64, what: u8| {
            alarms.set(&mut set, 3, tick(at), zero, Run::Once(what))
        };
        let late = add(&mut alarms, 30, 1).expect("room");
        let first = add(&mut alarms, 20, 2).expect("room");
        let second = add(&mut alarms, 20, 3).expect("room");
        assert!(add(&mut alarms, 10, 4).is_err(), "three at most");
        assert_eq!(alarms.first_due(tick(19)), None);
        assert_eq!(alarms.first_due(tick(99)), Some(first));
        assert!(matches!(alarms.take(first, tick(99), ()), Some(Run::Once(2))));
        assert_eq!(alarms.first_due(tick(99)), Some(second));
        assert!(alarms.cancel(second) && !alarms.cancel(second) && !alarms.cancel(first));
        assert_eq!(alarms.first_due(tick(99)), Some(late));
    }
}

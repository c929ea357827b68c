//! The simulated network: links, what is under way on them, and time that jumps.
//!
//! Both sides act on it: the server through its [driver](super::SimDriver), clients through
//! [`Net`](crate::sim::Net). Whatever takes time is an [`Event`] in one queue, ordered by time and
//! by the order in which it was put there. Nothing else makes anything happen, so a run depends on
//! its seed and on nothing else.

use std::{collections::VecDeque, time::Duration};

use super::{
    SimSocket,
    connecting::{Names, Targets},
    events::{Event, Events},
    faults::Faults,
    link::{End, Link, Reading, State},
    offloading::Jobs,
    rng::Rng,
    sides::{Hold, Side, TELL_ALL},
    torture::Torture,
    trace::{Trace, What},
};
use crate::{
    address::Address,
    conn::buffer::Buffer,
    driver::{Completion, ListenerId},
};

/// A connection's number, in the order in which clients connected.
pub(crate) type LinkId = usize;

/// A simulated listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: Address,
    pub(crate) backlog: VecDeque<LinkId>,
    /// Of each shard.
    pub(crate) holds: Vec<Hold>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    pub(crate) links: Vec<Link>,
    pub(crate) listeners: Vec<Listener>,
    /// Where servers of the script listen.
    pub(crate) targets: Targets,
    pub(crate) names: Names,
    /// Of each shard.
    pub(crate) sides: Vec<Side>,
    /// Which shard has its turn.
    pub(crate) running: usize,
    pub(crate) backlog_max: usize,
    /// The process was away, and its next look brings nothing.
    pub(crate) interrupted: bool,
    pub(crate) torture: Torture,
    /// A send may be done when it returns. In some seeds it never is, as with io_uring.
    pub(crate) prompt: bool,
    /// Links have room again in large steps only. In some seeds they do not, as a kernel does not.
    pub(super) coarse: bool,
    events: Events,
    pub(super) jobs: Jobs,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            seed,
            rng: Rng::new(seed),
            faults: Faults::none(),
            trace: Trace::new(),
            links: Vec::new(),
            listeners: Vec::new(),
            targets: Targets::default(),
            names: Names::default(),
            sides: vec![Side::default()],
            running: 0,
            backlog_max: usize::MAX,
            interrupted: false,
            torture: Torture::default(),
            prompt: !seed.is_multiple_of(4),
            coarse: !seed.is_multiple_of(3),
            events: Events::default(),
            jobs: Jobs::default(),
        }
    }

    pub(crate) fn note(&mut self, link: LinkId, what: What) {
        self.trace.note(self.now, link, what);
    }

    /// Has `event` happen at `at`, behind whatever happens then already.
    pub(crate) fn schedule(&mut self, at: Duration, event: Event) {
        for side in &mut self.sides {
            side.asleep = false;
        }
        self.events.push(at, event);
    }

    /// Has `event` happen after `after`.
    pub(crate) fn schedule_in(&mut self, after: Duration, event: Event) {
        self.schedule(self.now.saturating_add(after), event);
    }

    /// When the next event happens.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.events.next_at()
    }

    /// Lets everything happen that is due.
    pub(crate) fn settle(&mut self) {
        while let Some(event) = self.events.pop(self.now) {
            self.happen(event);
        }
    }

    /// Lets time pass in which the server does nothing, and the network goes on: whatever is due
    /// meanwhile happens at its time.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let until = self.now.saturating_add(duration);
        while let Some(at) = self.next_at()
            && at <= until
        {
            self.now = self.now.max(at);
            self.settle();
        }
        self.now = until;
    }

    /// Stops the process now and then for up to a minute, as SIGSTOP does. Returns whether the look
    /// that follows brings nothing: a kernel that was waited in may only say that it was
    /// interrupted.
    pub(super) fn is_away(&mut self) -> bool {
        let away = self.faults.away;
        if self.rng.chance(away) {
            let millis = 1 + self.rng.below(60_000);
            self.note(0, What::Away(millis));
            self.pass(Duration::from_millis(millis));
            self.interrupted |= self.rng.below(2) == 0;
        }
        std::mem::take(&mut self.interrupted)
    }

    /// How late something is that takes no time as long as nothing goes wrong.
    pub(crate) fn lateness(&mut self) -> Duration {
        if self.rng.chance(self.faults.delay) {
            Duration::from_micros(self.rng.below(200_000))
        } else {
            Duration::ZERO
        }
    }

    /// The server sends bytes that the link has room for.
    pub(crate) fn send_down(&mut self, link: LinkId, bytes: Vec<u8>) {
        self.note(link, What::ServerSends(bytes.len()));
        self.trace.note_bytes(&bytes);
        self.links[link].down_flying += bytes.len();
        let at = self.down_time(link);
        self.schedule(at, Event::Down(link, bytes));
    }

    pub(crate) fn end_down(&mut self, link: LinkId, end: End) {
        let at = self.down_time(link);
        self.schedule(at, Event::DownEnd(link, end));
    }

    fn down_time(&mut self, link: LinkId) -> Duration {
        let shard = self.links[link].shard;
        let late = self.time_of(shard) + self.lateness();
        let clock = &mut self.links[link].down_clock;
        *clock = late.max(*clock);
        *clock
    }

    /// The connection breaks, for both sides.
    pub(crate) fn break_link(&mut self, link: LinkId) {
        self.note(link, What::Breaks);
        self.links[link].gone = true;
        self.links[link].down_end = End::Reset;
        self.links[link].unread.clear();
        self.links[link].lose_input();
        self.happen(Event::UpEnd(link, End::Reset));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(link, listener) => self.arrives(link, listener),
            Event::Reaches(shard, attempt) => self.reaches(shard, attempt),
            Event::Up(link, bytes) => self.up(link, &bytes),
            Event::UpUrgent(link, byte) => {
                if matches!(self.links[link].up_end, End::Open) && !self.links[link].is_closed() {
                    self.links[link].urgent = Some(byte);
                    self.look_at(link);
                }
            }
            Event::UpEnd(link, end) => {
                self.links[link].end_up(end);
                self.look_at(link);
            }
            Event::Down(link, bytes) => self.down(link, &bytes),
            Event::DownEnd(link, end) => {
                let state = &mut self.links[link];
                if state.down_end == End::Open || end == End::Reset {
                    state.down_end = end;
                }
                if end == End::Reset {
                    // What the client had not read is lost to it: the worst a kernel may do.
                    state.unread.clear();
                }
            }
            Event::Look(link) => self.look_at(link),
            Event::Reads(link) => {
                if let Reading::Slow { bytes, every } = self.links[link].reading {
                    self.read(link, bytes);
                    // With nothing to read it waits for the next arrival.
                    if !self.links[link].unread.is_empty() {
                        self.schedule_in(every, Event::Reads(link));
                    }
                }
            }
            Event::Late(shard, completion) => self.sides[shard].done.push_back(completion),
            Event::TellAll(listener) => self.tell_listener(listener, true),
            Event::Alarm => {}
        }
    }

    fn arrives(&mut self, link: LinkId, listener: ListenerId) {
        let full = match self.listeners.get_mut(listener) {
            Some(listener) if listener.is_open() && listener.backlog.len() < self.backlog_max => {
                listener.backlog.push_back(link);
                false
            }
            _ => true,
        };
        if !full && self.sides.len() > 1 {
            self.tell_listener(listener, false);
            self.schedule_in(TELL_ALL, Event::TellAll(listener));
        }
        if full {
            self.links[link].state = State::Closed;
            self.links[link].down_end = End::Reset;
        }
    }

    fn up(&mut self, link: LinkId, bytes: &[u8]) {
        let state = &mut self.links[link];
        if state.is_closed() {
            // Nobody is there to receive it.
            self.end_down(link, End::Reset);
            return;
        }
        if state.up_end == End::Open {
            state.up.extend_from_slice(bytes);
            self.look_at(link);
        }
    }

    fn down(&mut self, link: LinkId, bytes: &[u8]) {
        let state = &mut self.links[link];
        state.down_flying -= bytes.len();
        if state.gone {
            self.happen(Event::UpEnd(link, End::Reset));
            return;
        }
        if state.down_end == End::Reset {
            return;
        }
        let was_empty = state.unread.is_empty();
        state.unread.extend_from_slice(bytes);
        match state.reading {
            Reading::All => self.read(link, usize::MAX),
            Reading::Slow { every, .. } if was_empty => {
                self.schedule_in(every, Event::Reads(link));
            }
            Reading::Slow { .. } | Reading::Stalled => {}
        }
    }

    /// Reports what became of an operation on `link`, now or late, but not before what was
    /// reported about it earlier.
    pub(crate) fn report(&mut self, link: LinkId, completion: Completion<'static, SimSocket>) {
        let at = self.report_time(link);
        self.report_at(self.links[link].shard, at, completion);
    }

    /// When the next report on `link` is made.
    pub(crate) fn report_time(&mut self, link: LinkId) -> Duration {
        let at = (self.now + self.lateness()).max(self.links[link].report_clock);
        self.links[link].report_clock = at;
        at
    }

    pub(crate) fn report_at(
        &mut self,
        shard: usize,
        at: Duration,
        completion: Completion<'static, SimSocket>,
    ) {
        if at <= self.now {
            self.sides[shard].done.push_back(completion);
        } else {
            self.schedule(at, Event::Late(shard, completion));
        }
    }

    /// The server lets go of a link that it had, or had accepted.
    pub(crate) fn close(&mut self, link: LinkId, reset: bool) -> Option<Buffer> {
        self.note(link, What::ServerCloses { reset });
        let state = &mut self.links[link];
        // Unread input turns a close into a reset, as it does in every kernel.
        let reset = reset || state.arrived() > 0;
        state.state = State::Closed;
        state.receiving = false;
        state.up = Vec::new();
        state.up_start = 0;
        let batch = state.sending.take();
        if reset {
            self.end_down(link, End::Reset);
        } else if !self.links[link].shut {
            self.end_down(link, End::Finished);
        }
        batch
    }
}

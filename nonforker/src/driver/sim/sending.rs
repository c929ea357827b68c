//! How a simulated send ends: with some of the bytes on their way, later, or not at all.

use std::time::Duration;

use rustix::io::Errno;

use super::{
    events::Event,
    link::End,
    trace::What,
    world::{LinkId, World},
};
use crate::{
    conn::buffer::Buffer,
    driver::{Completion, Sent, Token},
};

impl World {
    /// Sends, and tells at once what the link took of it, or later: a driver may do either.
    pub(crate) fn send(&mut self, token: Token, link: LinkId, batch: Buffer) -> Option<Sent> {
        assert!(self.links[link].sending.is_none(), "one send in flight per token");
        self.links[link].sending = Some(batch);
        let sent = self.try_send(token, link)?;
        let at = self.report_time(link);
        if at <= self.now && self.prompt {
            return Some(sent);
        }
        self.report_at(self.links[link].shard, at, Completion::Sent { token, sent });
        None
    }

    /// Goes on with the send that is in flight on a link.
    pub(crate) fn go_on_sending(&mut self, token: Token, link: LinkId) {
        if let Some(sent) = self.try_send(token, link) {
            self.report(link, Completion::Sent { token, sent });
        }
    }

    /// Tries the send that is in flight on a link. Returns what it took of it.
    fn try_send(&mut self, token: Token, link: LinkId) -> Option<Sent> {
        let state = &self.links[link];
        let batch = state.sending.as_ref()?;
        let (unsent, room, broken) = (batch.bytes().len(), state.room(), state.up_end);
        if broken == End::Reset || state.shut {
            let errno = if state.shut { Errno::PIPE } else { Errno::CONNRESET };
            self.fail_send(token, link, errno);
        } else if self.torture.strikes() {
            let errno =
                if self.torture.count.is_multiple_of(2) { Errno::NOBUFS } else { Errno::PIPE };
            self.note(link, What::SendFails(errno.raw_os_error()));
            self.fail_send(token, link, errno);
        } else if self.rng.chance(self.faults.reset) {
            self.break_link(link);
            self.fail_send(token, link, Errno::CONNRESET);
        } else if self.rng.chance(self.faults.send_exhausted) {
            let errno = match self.rng.below(2) {
                0 => Errno::NOBUFS,
                _ => Errno::NOMEM,
            };
            self.note(link, What::SendFails(errno.raw_os_error()));
            self.fail_send(token, link, errno);
        } else if room > 0 {
            if self.rng.chance(self.faults.would_block) {
                let after = Duration::from_micros(1 + self.rng.below(10_000));
                self.schedule_in(after, Event::Look(link));
                return None;
            }
            let mut count = unsent.min(room);
            if self.rng.chance(self.faults.short_write) {
                count = self.rng.between(1, count);
            }
            let batch = self.links[link].sending.take()?;
            self.send_down(link, batch.bytes()[..count].to_vec());
            return Some(Sent { batch, result: Ok(count) });
        }
        None
    }

    fn fail_send(&mut self, token: Token, link: LinkId, errno: Errno) {
        if let Some(batch) = self.links[link].sending.take() {
            let sent = Sent { batch, result: Err(errno.into()) };
            self.report(link, Completion::Sent { token, sent });
        }
    }
}

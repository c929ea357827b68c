//! What a connection behind TLS sends: sealed where it leaves, see [`encrypted`](super::encrypted).

use super::{
    Connection, Rare,
    buffer::Buffer,
    encrypted::{Encrypted, Side},
    outbound::Outbound,
    state::State,
};
use crate::tls::{Records, Session, TlsError, record_length};

impl Connection {
    /// What is queued leaves in clear, before anything that is sealed.
    #[cfg(feature = "_rustls")]
    pub(crate) fn release_in_clear(&mut self, output: &mut super::output::Output) {
        let queue = output.take_queue();
        self.outbound.release_in_clear(queue);
        output.put_queue(None, self.elsewhere(), 0);
    }

    /// Whether something is queued in clear that is to be sealed.
    pub(crate) fn has_clear(&self) -> bool {
        self.outbound.first_clear().is_some() && !self.shakes()
    }

    /// Takes out what was sealed before, for more to be appended.
    pub(crate) fn take_sealed(&mut self) -> Option<Buffer> {
        self.outbound.take_sealed()
    }

    /// Puts it back, or sealed bytes: they leave first.
    pub(crate) fn put_sealed(&mut self, sealed: Buffer) {
        self.outbound.put_sealed(sealed);
    }

    /// Seals up to `most` bytes of what is to leave next. Returns how many that were, and a buffer that
    /// is of no use any more.
    pub(crate) fn seal_first(
        &mut self,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Result<(usize, Option<Buffer>), TlsError> {
        let Self { rare, outbound, .. } = self;
        let Some(Rare { encrypted: Some(encrypted), .. }) = rare.as_deref_mut() else {
            return Ok((0, None));
        };
        let Some(clear) = outbound.first_clear() else { return Ok((0, None)) };
        let clear = &clear[..clear.len().min(most)];
        let count = clear.len();
        let sealed = match encrypted.session() {
            Some((session, in_use)) => session.seal(in_use, clear, into),
            None => Err(TlsError::new("there is no session")),
        };
        sealed?;
        Ok((count, outbound.clear_leaves(count)))
    }

    /// Says that we send no more, once everything is sealed, if it is time for that.
    pub(crate) fn seal_end(&mut self, into: &mut Vec<u8>) {
        let is_over = matches!(self.state, State::Draining | State::Finishing)
            || self.finishes() && !self.expects_answers();
        if !is_over || self.outbound.first_clear().is_some() {
            return;
        }
        let Some(encrypted) = self.encrypted_mut() else { return };
        if encrypted.shakes || encrypted.has_failed || encrypted.has_ended {
            return;
        }
        encrypted.has_ended = true;
        if let Some((session, in_use)) = encrypted.session() {
            session.finish(in_use, into);
        }
    }

    /// Whether nothing is to come behind what is sealed.
    pub(crate) fn has_said_end(&self) -> bool {
        self.encrypted().is_some_and(|encrypted| encrypted.has_ended)
    }

    /// Its end is that of `other`: if that was cut off, so is this one, and it does not say that it ends.
    pub(crate) fn ends_like(&mut self, other: &Self) {
        if other.is_truncated()
            && let Some(encrypted) = self.encrypted_mut()
        {
            encrypted.has_ended = true;
        }
    }

    /// Whether what is queued in clear can never be sent: the connection closes, and there is no
    /// session.
    pub(crate) fn clear_is_lost(&self) -> bool {
        let closes = matches!(self.state, State::Draining | State::Finishing);
        self.encrypted().is_some_and(|it| it.has_failed || it.shakes && closes)
    }

    /// Throws away what is queued in clear. Returns the buffer for the pool.
    pub(crate) fn discard_clear(&mut self) -> Option<Buffer> {
        self.outbound.discard_clear()
    }

    /// Whether a batch may be sent, in this state.
    pub(crate) fn sends_records(&self) -> bool {
        self.state.sends() || self.state == State::Arriving
    }
}

impl Encrypted {
    /// The session, unless it has failed; and what it has in use of what is kept: something, if a complete
    /// record is there.
    fn session(&mut self) -> Option<(&mut Session, &mut [u8])> {
        let Self { side: Side::Begun(session), kept, joined, has_failed: false, .. } = self else {
            return None;
        };
        let in_use = kept.bytes_mut().get_mut(..*joined).unwrap_or_default();
        let is_complete = record_length(in_use).is_some_and(|length| in_use.len() >= length);
        Some((session, if is_complete { in_use } else { &mut [] }))
    }
}

impl Outbound {
    /// The next bytes that are to leave and are not sealed.
    fn first_clear(&self) -> Option<&[u8]> {
        let ahead = self.ahead.as_ref().and_then(|ahead| ahead.first());
        ahead.or(self.pending.as_ref()).map(Buffer::bytes)
    }

    /// So many of them leave. Returns their buffer if all do, and it is of further use.
    fn clear_leaves(&mut self, count: usize) -> Option<Buffer> {
        let is_all = self.pending.as_ref().is_some_and(|pending| pending.len() == count);
        if is_all && self.ahead.is_none() {
            return self.pending.take().filter(|buffer| !buffer.is_shared());
        }
        let ahead = self.ahead.get_or_insert_default();
        let left = ahead.leave(count, &mut self.pending);
        self.drop_vacant();
        left.filter(|buffer| !buffer.is_shared())
    }

    fn take_sealed(&mut self) -> Option<Buffer> {
        let sealed = self.ahead.as_mut()?.sealed.take();
        self.drop_vacant();
        sealed
    }

    fn put_sealed(&mut self, sealed: Buffer) {
        self.ahead.get_or_insert_default().sealed = Some(sealed);
    }

    #[cfg(feature = "_rustls")]
    fn release_in_clear(&mut self, pending: Option<Buffer>) {
        debug_assert!(self.pending.is_none(), "what is pending was lent");
        self.pending = pending;
        let Some(ahead) = &mut self.ahead else {
            if let Some(pending) = self.pending.take() {
                self.put_sealed(pending);
            }
            return;
        };
        let mut all = Buffer::with_capacity(ahead.bytes());
        while let Some(segment) = ahead.take_first(&mut self.pending) {
            all.vec().extend_from_slice(segment.bytes());
        }
        ahead.sealed = Some(all).filter(|all| !all.is_empty());
        self.drop_vacant();
    }

    fn discard_clear(&mut self) -> Option<Buffer> {
        if let Some(ahead) = &mut self.ahead {
            ahead.discard_clear();
            self.drop_vacant();
        }
        self.pending.take().filter(|buffer| !buffer.is_shared())
    }
}

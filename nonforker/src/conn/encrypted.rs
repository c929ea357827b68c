//! A connection whose pipe is TLS: what it keeps for that, and what becomes of bytes both ways.
//!
//! ```text
//!  wire ──▶ kept: half a record ──▶ Session ──┬─▶ plaintext ──▶ frames
//!                                             └─▶ sealed ──┐ what TLS itself says
//!  pending, in clear ── seal, when it leaves ──────────────┴▶ sealed ──▶ wire
//! ```
//!
//! Received bytes are decrypted where they lie. Only a record that is not complete is kept, and completed
//! with as many bytes as it lacks.
//!
//! Replies stay in clear until they leave, so that a panic takes them back and a message that may be
//! dropped can be. What is sealed goes before them, in the order in which it was sealed: records are
//! numbered. Replies are sealed before another record is decrypted, since that may make TLS say
//! something, an alert for example, which comes behind them.
//!
//! Invariants, between two turns:
//!
//! - While the handshake is under way, no plaintext is sealed and no frame is handled.
//! - Something is sealed only while a send is in flight, or is to be tried again.

use super::{
    Connection, Rare,
    bars::Bars,
    buffer::Buffer,
    deadlines::Kind,
    inbound::Inbound,
    outbound::Outbound,
    pipe::Pipe,
    state::{Incoming, State},
};
use crate::tls::{HEADER, Records, Session, Tls, TlsError, record_length};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Encrypted {
    side: Side,
    /// The start of a record, or records of which the session waits for the rest of a message.
    kept: Inbound,
    /// The session has not seen what was kept last.
    is_unread: bool,
    /// Frames of the connection wait for the handshake.
    shakes: bool,
    /// The handshake is one of those that are counted.
    is_counted: bool,
    /// Nothing goes on: the session has failed.
    has_failed: bool,
    /// The peer has said that it sends no more.
    has_peer_ended: bool,
    /// The peer has finished without saying so: somebody may have cut its stream off.
    is_truncated: bool,
    /// We have said that we send no more.
    has_ended: bool,
}

/// A session takes some memory, which a client gets only when it sends something.
#[derive(Debug)]
enum Side {
    Waiting(Tls),
    Begun(Session),
}

/// What a step of decrypting led to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    /// All bytes are used or kept, and nothing goes on before more arrives.
    pub(crate) is_blocked: bool,
    /// The peer has said that it sends no more.
    pub(crate) has_ended: bool,
    /// The handshake has just been completed.
    pub(crate) is_secured: bool,
}

impl Encrypted {
    fn new(tls: Tls) -> Self {
        Self {
            side: Side::Waiting(tls),
            kept: Inbound::default(),
            is_unread: false,
            shakes: true,
            is_counted: false,
            has_failed: false,
            has_peer_ended: false,
            is_truncated: false,
            has_ended: false,
        }
    }

    /// How many bytes the last record that is kept lacks: of its header, if that is not there.
    fn lacks(&self) -> usize {
        let mut rest = self.kept.bytes();
        loop {
            match record_length(rest) {
                None => return HEADER - rest.len(),
                Some(length) if length > rest.len() => return length - rest.len(),
                Some(length) => rest = &rest[length..],
            }
        }
    }
}

impl Connection {
    fn encrypted(&self) -> Option<&Encrypted> {
        self.rare.as_ref()?.encrypted.as_deref()
    }

    fn encrypted_mut(&mut self) -> Option<&mut Encrypted> {
        self.rare.as_mut()?.encrypted.as_deref_mut()
    }

    /// Its pipe is TLS, or becomes TLS when its header has come. The handshake counts until
    /// [`is_shaken`](Self::is_shaken).
    pub(crate) fn encrypt(&mut self, tls: Tls) {
        let mut encrypted = Encrypted::new(tls);
        encrypted.is_counted = true;
        self.rare.get_or_insert_default().encrypted = Some(Box::new(encrypted));
        if self.state != State::Arriving {
            self.pipe = Pipe::Tls;
            self.bars.set(Bars::SHAKES, true);
        }
    }

    /// Whether its pipe is TLS.
    #[inline]
    pub(crate) const fn is_encrypted(&self) -> bool {
        matches!(self.pipe, Pipe::Tls)
    }

    /// The pipe behind a header.
    pub(super) fn pipe_behind(&self) -> Pipe {
        if self.encrypted().is_some() { Pipe::Tls } else { Pipe::Plain }
    }

    /// Whether a handshake is under way, or is to come.
    pub(crate) fn shakes(&self) -> bool {
        self.encrypted().is_some_and(|encrypted| encrypted.shakes)
    }

    /// The handshake does not count any more. Returns whether it did.
    pub(crate) fn is_shaken(&mut self) -> bool {
        self.encrypted_mut().is_some_and(|it| std::mem::take(&mut it.is_counted))
    }

    /// Whether its handshake is counted as one that is under way.
    pub(crate) fn is_counted_as_shaking(&self) -> bool {
        self.encrypted().is_some_and(|encrypted| encrypted.is_counted)
    }

    /// What it agreed on with its peer, once it has.
    #[cfg(feature = "_rustls")]
    pub(crate) fn agreed(&self) -> Option<crate::TlsFacts<'_>> {
        let encrypted = self.encrypted()?;
        match &encrypted.side {
            Side::Begun(session) if !encrypted.shakes => Some(crate::TlsFacts(session.agreed())),
            _ => None,
        }
    }

    // What comes in.

    /// Whether what arrives is of no use: the peer has said that nothing comes, or the session failed.
    pub(crate) fn is_deaf(&self) -> bool {
        self.encrypted().is_none_or(|it| it.has_failed || it.has_peer_ended)
    }

    /// Whether a part of a record is kept.
    pub(crate) fn keeps_records(&self) -> bool {
        self.encrypted().is_some_and(|encrypted| !encrypted.kept.is_empty())
    }

    /// Whether records are kept that were not looked at.
    pub(crate) fn has_unread_records(&self) -> bool {
        self.encrypted().is_some_and(|encrypted| encrypted.is_unread)
    }

    /// What was kept before the handshake began is the peer's part of it, and nothing that a codec may
    /// see: somebody else may have put it there.
    pub(crate) fn hand_over_kept(&mut self) {
        if self.bars.has(Bars::SHAKES)
            && let Some(kept) = self.inbound.take()
            && let Some(encrypted) = self.encrypted_mut()
        {
            debug_assert!(encrypted.kept.is_empty(), "there is nothing before it");
            encrypted.kept.give_back(kept, 0);
            encrypted.is_unread = true;
        }
    }

    /// Keeps records for a later turn: until then nothing is received. Returns an outgrown buffer.
    pub(crate) fn keep_records(
        &mut self,
        bytes: &[u8],
        allocate: impl FnOnce(usize) -> Buffer,
    ) -> Option<Buffer> {
        let encrypted = self.encrypted_mut()?;
        let outgrown = encrypted.kept.keep(bytes, allocate);
        encrypted.is_unread = !encrypted.kept.is_empty();
        let is_unread = encrypted.is_unread;
        self.bars.set(Bars::HELD, is_unread);
        outgrown
    }

    /// Decrypts the first record that brings something, of what is kept and of `bytes`, which become
    /// what follows it. Its plaintext is appended to `plain`, what TLS says to `said`. Buffers come from
    /// `allocate` and go to `spares`.
    pub(crate) fn decrypt(
        &mut self,
        bytes: &mut &mut [u8],
        allocate: &mut dyn FnMut(usize) -> Buffer,
        spares: &mut Vec<Buffer>,
        said: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Step, TlsError> {
        if self.shakes() {
            self.bars.set(Bars::HELD, false);
        }
        let Some(encrypted) = self.encrypted_mut() else { return Ok(Step::default()) };
        let Encrypted { side, kept, is_unread, .. } = encrypted;
        if let Side::Waiting(tls) = side {
            *side = Side::Begun(tls.server()?);
        }
        let Side::Begun(session) = side else { return Ok(Step::default()) };
        let mut step = Step::default();
        let took = if kept.is_empty() {
            let took = session.receive(bytes, said, plain)?;
            let rest = std::mem::take(bytes).get_mut(took.used..).unwrap_or_default();
            if took.is_blocked {
                spares.extend(kept.keep(rest, allocate));
            } else {
                *bytes = rest;
            }
            step.is_blocked = took.is_blocked;
            took
        } else {
            if !*is_unread {
                let count = encrypted.lacks().min(bytes.len());
                let (first, rest) = std::mem::take(bytes).split_at_mut(count);
                *bytes = rest;
                spares.extend(encrypted.kept.keep(first, allocate));
                if encrypted.lacks() > 0 && record_length(encrypted.kept.bytes()).is_none() {
                    step.is_blocked = true;
                    return Ok(step);
                }
            }
            let Encrypted { side: Side::Begun(session), kept, is_unread, .. } = encrypted else {
                return Ok(step);
            };
            let Some(mut buffer) = kept.take() else { return Ok(step) };
            let taken = session.receive(buffer.bytes_mut(), said, plain);
            let used = taken.as_ref().map_or(0, |took| took.used);
            spares.extend(kept.give_back(buffer, used));
            let took = taken?;
            *is_unread = !took.is_blocked && !kept.is_empty();
            step.is_blocked = took.is_blocked && bytes.is_empty();
            took
        };
        step.has_ended = took.has_ended;
        encrypted.has_peer_ended |= took.has_ended;
        let Side::Begun(session) = &encrypted.side else { return Ok(step) };
        step.is_secured = encrypted.shakes && !session.shakes();
        Ok(step)
    }

    /// The session has failed. What is in clear is not sent any more.
    pub(crate) fn session_failed(&mut self) {
        if let Some(encrypted) = self.encrypted_mut() {
            encrypted.has_failed = true;
        }
    }

    /// The handshake is done: from now on there are frames.
    pub(crate) fn is_secured(&mut self) {
        if let Some(encrypted) = self.encrypted_mut() {
            encrypted.shakes = false;
        }
        self.bars.set(Bars::SHAKES, false);
    }

    /// The peer has finished. Returns whether its stream may have been cut off: it did not say that it
    /// would.
    pub(crate) fn finished_on_the_wire(&mut self) -> bool {
        let Some(encrypted) = self.encrypted_mut() else { return false };
        let is_cut = !encrypted.has_peer_ended && !encrypted.has_failed;
        encrypted.is_truncated |= is_cut;
        is_cut
    }

    /// Whether the peer's stream may have been cut off.
    pub(crate) fn is_truncated(&self) -> bool {
        self.encrypted().is_some_and(|encrypted| encrypted.is_truncated)
    }

    /// Throws away what is kept of records. Returns the buffer for the pool.
    pub(crate) fn drop_records(&mut self) -> Option<Buffer> {
        let encrypted = self.encrypted_mut()?;
        encrypted.is_unread = false;
        encrypted.kept.take()
    }

    // What goes out.

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
        let mut joined = std::mem::take(&mut encrypted.kept);
        let in_use = if joined_in(&joined) { joined.bytes_mut() } else { &mut [] };
        let sealed = match &mut encrypted.side {
            Side::Begun(session) if !encrypted.has_failed => session.seal(in_use, clear, into),
            _ => Err(TlsError::new("there is no session")),
        };
        encrypted.kept = joined;
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
        let mut kept = std::mem::take(&mut encrypted.kept);
        let in_use = if joined_in(&kept) { kept.bytes_mut() } else { &mut [] };
        if let Side::Begun(session) = &mut encrypted.side {
            session.finish(in_use, into);
        }
        encrypted.kept = kept;
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

    /// Takes what was sent in part, unless the kernel is out of buffers.
    pub(crate) fn next_unsent(&mut self) -> Option<Buffer> {
        match self.deadlines.get(Kind::Retry) {
            Some(_) => None,
            None => self.outbound.take_unsent(),
        }
    }

    /// Whether a batch may be sent, in this state.
    pub(crate) fn sends_records(&self) -> bool {
        self.state.sends() || self.state == State::Arriving
    }

    /// The memory that half records take, in bytes.
    pub(crate) fn kept_of_records(&self) -> usize {
        self.encrypted().map_or(0, |encrypted| encrypted.kept.capacity())
    }

    /// What is wrong between two turns, if anything is.
    pub(crate) fn unsound_records(&self, waits: bool) -> Option<&'static str> {
        let Some(encrypted) = self.encrypted() else {
            let has_none = self.is_encrypted() || self.bars.has(Bars::SHAKES);
            return has_none.then_some("an encrypted connection has no session");
        };
        let is_arriving = self.state == State::Arriving;
        let lives = is_arriving || self.state.handles();
        let checks = [
            (
                self.state.handles() && encrypted.shakes != self.bars.has(Bars::SHAKES),
                "a handshake and its bar do not agree",
            ),
            (
                lives && encrypted.shakes != encrypted.is_counted,
                "a handshake that is under way is not counted, or one that is not",
            ),
            (lives && encrypted.is_unread && !waits, "a handshake is forgotten"),
            (
                encrypted.is_truncated && self.incoming == Incoming::Flows && lives,
                "a stream was cut off and goes on",
            ),
            (self.state.handles() && !self.is_encrypted(), "a session has no records"),
        ];
        checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}

/// Whether a complete record is kept: then the session has it in use.
fn joined_in(kept: &Inbound) -> bool {
    let kept = kept.bytes();
    record_length(kept).is_some_and(|length| kept.len() >= length)
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

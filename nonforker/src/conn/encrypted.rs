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
    Connection,
    bars::Bars,
    buffer::Buffer,
    inbound::Inbound,
    pipe::Pipe,
    state::{Incoming, State},
};
use crate::tls::{HEADER, Records, Session, Start, Tls, TlsError, Towards, record_length};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Encrypted {
    pub(super) side: Side,
    /// The start of a record, or records of which the session waits for the rest of a message.
    pub(super) kept: Inbound,
    /// How many of the first bytes that are kept the session has seen, and has in use.
    pub(super) joined: usize,
    /// The session has not seen what was kept last, or is to say its hello.
    is_unread: bool,
    /// The peer's stream has ended behind what was not seen.
    ends_behind: bool,
    /// Frames of the connection wait for the handshake.
    pub(super) shakes: bool,
    /// The handshake is one of those that are counted.
    is_counted: bool,
    /// Nothing goes on: the session has failed.
    pub(super) has_failed: bool,
    /// The peer has said that it sends no more.
    has_peer_ended: bool,
    /// The peer has finished without saying so: somebody may have cut its stream off.
    is_truncated: bool,
    /// We have said that we send no more.
    pub(super) has_ended: bool,
}

/// A session takes some memory, which a client gets only when it sends something.
#[derive(Debug)]
pub(super) enum Side {
    Waiting(Start),
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
    fn new(start: Start) -> Self {
        Self {
            side: Side::Waiting(start),
            kept: Inbound::default(),
            joined: 0,
            is_unread: false,
            ends_behind: false,
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
    pub(super) fn encrypted(&self) -> Option<&Encrypted> {
        self.rare.as_ref()?.encrypted.as_deref()
    }

    pub(super) fn encrypted_mut(&mut self) -> Option<&mut Encrypted> {
        self.rare.as_mut()?.encrypted.as_deref_mut()
    }

    /// Its pipe is TLS, or becomes TLS when its header has come. The handshake counts until
    /// [`is_shaken`](Self::is_shaken).
    pub(crate) fn encrypt(&mut self, tls: Tls) {
        let mut encrypted = Encrypted::new(Start::Server(tls));
        encrypted.is_counted = true;
        self.rare.get_or_insert_default().encrypted = Some(Box::new(encrypted));
        if self.state != State::Arriving {
            self.pipe = Pipe::Tls;
            self.bars.set(Bars::SHAKES, true);
        }
    }

    /// Its pipe is TLS, and we are the client: the hello is to be said.
    pub(crate) fn encrypt_towards(&mut self, towards: Towards) {
        let mut encrypted = Encrypted::new(Start::Client(towards));
        encrypted.is_unread = true;
        self.rare.get_or_insert_default().encrypted = Some(Box::new(encrypted));
        self.pipe = Pipe::Tls;
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

    /// Whether no other record is to be opened now: frames of those before it wait, and what breaks the rules
    /// of TLS ends them only when they are answered.
    pub(crate) fn defers_records(&self) -> bool {
        let opens =
            self.bars.is_none() || self.bars.has(Bars::RELAYED) || self.bars.has(Bars::SHAKES);
        self.state.handles() && !opens
    }

    /// Nothing but records is held any more, if that is so.
    pub(crate) fn releases_records(&mut self) {
        let is_free = self.inbound.is_empty() || self.bars.has(Bars::RELAYED);
        if self.state.handles() && is_free {
            self.bars.set(Bars::HELD, false);
        }
    }

    /// Whether the end of the stream has come behind records that were not looked at. Then it is noted.
    pub(crate) fn ends_behind_records(&mut self) -> bool {
        let waits = self.state.handles() && !self.shakes() && self.has_unread_records();
        if waits && let Some(encrypted) = self.encrypted_mut() {
            encrypted.ends_behind = true;
        }
        waits
    }

    /// Whether that end is what comes now: once.
    pub(crate) fn takes_end_behind(&mut self) -> bool {
        let is_free = !self.has_unread_records();
        self.encrypted_mut().is_some_and(|it| is_free && std::mem::take(&mut it.ends_behind))
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
        let Encrypted { side, kept, is_unread, joined, .. } = encrypted;
        if let Side::Waiting(start) = side {
            *side = Side::Begun(start.session()?);
        }
        let Side::Begun(session) = side else { return Ok(Step::default()) };
        let mut step = Step::default();
        let took = if kept.is_empty() {
            *is_unread = false;
            let took = session.receive(bytes, said, plain)?;
            let rest = std::mem::take(bytes).get_mut(took.used..).unwrap_or_default();
            if took.is_blocked {
                spares.extend(kept.keep(rest, allocate));
                *joined = kept.bytes().len();
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
            let Encrypted { side: Side::Begun(session), kept, is_unread, joined, .. } = encrypted
            else {
                return Ok(step);
            };
            let Some(mut buffer) = kept.take() else { return Ok(step) };
            let taken = session.receive(buffer.bytes_mut(), said, plain);
            let used = taken.as_ref().map_or(0, |took| took.used);
            spares.extend(kept.give_back(buffer, used));
            *joined = 0;
            let took = taken?;
            if took.is_blocked {
                *joined = kept.bytes().len();
            }
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
        (encrypted.is_unread, encrypted.joined) = (false, 0);
        encrypted.kept.take()
    }

    /// The memory that half records take, in bytes.
    pub(crate) fn kept_of_records(&self) -> usize {
        self.encrypted().map_or(0, |encrypted| encrypted.kept.capacity())
    }

    /// What is wrong between two turns, if anything is. The connection `is_ours` if we made it.
    pub(crate) fn unsound_records(&self, waits: bool, is_ours: bool) -> Option<&'static str> {
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
                lives && !is_ours && encrypted.shakes != encrypted.is_counted,
                "a handshake that is under way is not counted, or one that is not",
            ),
            (
                lives && encrypted.is_unread && !waits && !self.defers_records(),
                "records are forgotten",
            ),
            (
                encrypted.is_truncated && self.incoming == Incoming::Flows && lives,
                "a stream was cut off and goes on",
            ),
            (self.state.handles() && !self.is_encrypted(), "a session has no records"),
        ];
        checks.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}

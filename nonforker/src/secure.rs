//! TLS for who writes a handler or has a handle: what was agreed on, to begin it in the middle of a
//! stream, and to replace certificates.

use std::rc::Rc;

use crate::{
    conn::{bars::Bars, deadlines::Kind},
    context::Conn,
    error::Result,
    handle::Handle,
    handler::Handler,
    tls::{Tls, TlsError, TlsFacts},
};

impl<H: Handler> Conn<'_, H> {
    /// What the connection and its client agreed on, on a connection that is [encrypted](crate::Server::tls):
    /// the version of TLS, the cipher suite, the protocol, the name that the client asked for, and the
    /// certificate that it showed. `None` in clear, and until the handshake is done.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFacts<'_>> {
        self.slot.conn.agreed()
    }

    /// Changes to TLS in the middle of the stream, with what the service was
    /// [given for it](crate::Server::start_tls_with).
    ///
    /// What has been sent so far leaves in clear; what is sent from now on waits until the handshake is
    /// done, and is encrypted. So the answer to the client's command comes before this call. What the
    /// client has sent behind its command is its part of the handshake and nothing else: bytes that somebody
    /// else put there never get to the codec, which begins anew. The session stays: what a client
    /// has said in clear may not have been said by it.
    ///
    /// The handshake has [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). If it fails, the
    /// connection closes with [`CloseReason::Tls`](crate::CloseReason::Tls).
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the service was given nothing for it, if the connection is encrypted already, if it
    /// closes, or while a [ticket](crate::Ticket) of it is open. Nothing changes then.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use nonforker::{Outcome, Server, Tls, codec::Lines};
    ///
    /// # fn main() -> nonforker::Result<()> {
    /// Server::new()
    ///     .serve("127.0.0.1:2525", Lines::new(), |conn, line| -> Outcome {
    ///         if line == b"STARTTLS" {
    ///             conn.send("220 go ahead");
    ///             conn.start_tls()?;
    ///         }
    ///         Ok(())
    ///     })
    ///     .start_tls_with(Tls::from_files("chain.pem", "key.pem")?)
    ///     .run()
    /// # }
    /// ```
    pub fn start_tls(&mut self) -> std::result::Result<(), TlsError> {
        let Self { core, table, slot, member, output } = self;
        let desk = &core.desks[slot.service() as usize];
        let conn = &mut slot.conn;
        let wrong = if conn.is_encrypted() {
            "the connection is encrypted already"
        } else if !conn.state().handles() || conn.finishes() {
            "the connection closes"
        } else if conn.bars().has(Bars::PENDING) {
            "a ticket is open, whose answer would have to leave in clear"
        } else if let Some(tls) = desk.start_tls.clone() {
            if let Some(prototype) = desk.prototype.downcast_ref::<Rc<H::Codec>>() {
                member.codec = H::Codec::clone(prototype);
            }
            conn.release_in_clear(output);
            core.begin_handshake(table, slot, tls);
            let timeout = core.limits.handshake_timeout;
            core.arm(slot, Kind::Handshake, timeout);
            core.mark_dirty(slot);
            core.mark_runnable(slot);
            return Ok(());
        } else {
            "the service was given no certificates: Server::start_tls_with"
        };
        Err(TlsError::new(wrong))
    }
}

impl Handle {
    /// Replaces the certificates of a listener, and whatever else its [`Tls`] says: new ones, before the
    /// old ones cease to be good. A listener is its place in [`Bound::addresses`](crate::Bound::addresses).
    /// If its service begins in clear, this is for all listeners of the service.
    ///
    /// No connection notices. Clients that come from now on are shown the new ones, in every
    /// [shard](crate::Shards). Clients that come back with a ticket need none: tickets stay good, unless
    /// what clients have to show [is another](Tls::client_auth), or one of the two was made
    /// [from a configuration](Tls::from_config), which has its own.
    ///
    /// # Errors
    ///
    /// [`Error::NotBound`](crate::Error::NotBound) before the server is [bound](crate::Server::bind).
    /// [`Error::Tls`](crate::Error::Tls) if there is no such listener, or if it serves in clear: that
    /// is decided at the start.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use nonforker::{Handle, Tls};
    ///
    /// fn renew(handle: &Handle) -> nonforker::Result<()> {
    ///     handle.set_tls(0, Tls::from_files("chain.pem", "key.pem")?)
    /// }
    /// # let _ = renew;
    /// ```
    pub fn set_tls(&self, listener: usize, tls: Tls) -> Result<()> {
        self.group().set_tls(listener, tls)
    }
}

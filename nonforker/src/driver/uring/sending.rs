//! Sending: at once where that goes, which costs no completion; else when the kernel takes some.
//!
//! ```text
//!  send ──▶ now ── nothing told ──▶ Sent
//!            └──── told: would block, or a part ──▶ patiently ──▶ Sent
//! ```
//!
//! A connection of which the last send had to wait is *clogged*: the next one waits from the
//! start, until one goes through in one piece.

use std::io;

use rustix::io::Errno;
use slotmap::KeyData;

use super::{
    Incoming, UringDriver,
    connection::Fact,
    flights::{Bounced, Flight},
};
use crate::driver::{Completion, Driver, Sent, Sink, Token};

impl UringDriver {
    /// Reports the sends that were carried out, or not, when they were handed over.
    pub(super) fn serve_flights(&mut self, sink: &mut dyn Sink<Incoming>) {
        let mut landed = self.ring.flights().landed();
        for Flight { who, batch, .. } in landed.drain(..) {
            let result = Ok(batch.bytes().len());
            self.sent(Token::from(KeyData::from_ffi(who)), Sent { batch, result }, sink);
        }
        self.ring.flights().recycle(landed);
        for Bounced { who, batch, result } in self.ring.flights().bounced() {
            self.ring.tally.bounced += 1;
            let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            self.sent(Token::from(KeyData::from_ffi(who)), Sent { batch, result }, sink);
        }
    }

    /// A send is over. One that would have had to wait is handed over again, to do so.
    pub(super) fn sent(
        &mut self,
        token: Token,
        Sent { batch, mut result }: Sent,
        sink: &mut dyn Sink<Incoming>,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.set(Fact::SENDING, false);
        let is_closing = connection.closing.is_some();
        match &result {
            Ok(0) => result = Err(Errno::IO.into()),
            Ok(count) => connection.set(Fact::CLOGGED, *count < batch.bytes().len()),
            Err(error) if !is_closing && must_wait(error) => {
                connection.set(Fact::CLOGGED, true);
                if let Some(sent) = self.send(token, batch, false) {
                    sink.take(Completion::Sent { token, sent });
                }
                return;
            }
            Err(_) => {}
        }
        let stays = result.is_ok() && !is_closing && connection.is(Fact::RECEIVING);
        sink.take(Completion::Sent { token, sent: Sent { batch, result } });
        if !stays {
            self.mind(token);
            self.release(token);
        }
    }
}

/// Whether a send failed only because it did not wait.
fn must_wait(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::INTR | Errno::CANCELED))
}

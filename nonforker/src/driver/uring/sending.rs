//! Sending: at once if the kernel takes all of it, which costs no completion; else in the background.
//!
//! ```text
//!  send ──▶ now ── no report ──▶ Sent
//!            └──── a report: would block, or a part ──▶ patiently ──▶ Sent
//! ```
//!
//! After a partial send the next one waits in the kernel from the start, until the kernel takes one
//! of them in one piece.

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
    pub(super) fn serve_flights(&mut self, sink: &mut impl Sink<Incoming>) {
        let mut landed = self.ring.flights().landed();
        for Flight { key, batch, .. } in landed.drain(..) {
            let result = Ok(batch.bytes().len());
            self.sent(Token::from(KeyData::from_ffi(key)), Sent { batch, result }, sink);
        }
        self.ring.flights().recycle(landed);
        for Bounced { key, batch, result } in self.ring.flights().bounced() {
            self.ring.tally.bounced += 1;
            let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            self.sent(Token::from(KeyData::from_ffi(key)), Sent { batch, result }, sink);
        }
    }

    /// A send is over. One that would have blocked is submitted again, to wait in the kernel.
    pub(super) fn sent(
        &mut self,
        token: Token,
        Sent { batch, mut result }: Sent,
        sink: &mut impl Sink<Incoming>,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.set(Fact::SENDING, false);
        let is_closing = connection.closing.is_some();
        match &result {
            Ok(0) => result = Err(Errno::IO.into()),
            Ok(count) => connection.set(Fact::PARTIAL, *count < batch.bytes().len()),
            Err(error) if !is_closing && must_wait(error) => {
                connection.set(Fact::PARTIAL, true);
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
            self.check_silence(token);
            self.release(token);
        }
    }
}

/// Whether a send failed only because it did not wait.
fn must_wait(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::INTR | Errno::CANCELED))
}

//! A scripted client.

use std::time::Duration;

use memchr::memmem;

use super::net::Net;
use crate::{
    address::Peer,
    driver::sim::{
        link::{End, Reading},
        world::LinkId,
    },
};

/// How a connection ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "TCP has no third way")]
pub enum Ending {
    /// The server finished sending, behind its last byte.
    Finished,
    /// The connection was reset. Bytes may have been lost.
    Reset,
}

/// A client of the simulated server.
///
/// What it [expects](Self::expect) is waited for in virtual time; whatever else it does takes no
/// time. It reads what arrives until it is made to [stall](Self::stall).
#[derive(Clone, Debug)]
pub struct Client {
    net: Net,
    link: LinkId,
}

impl Client {
    pub(super) const fn new(net: Net, link: LinkId) -> Self {
        Self { net, link }
    }

    /// Its address, as [`Conn::peer`](crate::Conn::peer) tells: on TCP 10.0.0.1 for the
    /// first client, 10.0.0.2 for the next and so on, fd00::1 and so on if the server listens on
    /// IPv6, or what was said when it [connected](Net::connect_from). Ports differ as well.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.net.world().links[self.link].peer.clone()
    }

    /// Sends bytes; none once it has finished sending.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.net.world().send_up(self.link, bytes.as_ref());
    }

    /// Sends an urgent byte, beside the stream; none once it has finished sending.
    pub fn send_urgent(&self, byte: u8) {
        self.net.world().send_urgent(self.link, byte);
    }

    /// Finishes sending, and goes on reading.
    pub fn half_close(&self) {
        self.net.world().end_up(self.link, End::Finished);
    }

    /// Resets the connection.
    pub fn reset(&self) {
        self.net.world().end_up(self.link, End::Reset);
    }

    /// Reads nothing from now on.
    pub fn stall(&self) {
        self.net.world().set_reading(self.link, Reading::Stalled);
    }

    /// Reads at most `bytes` every so often from now on.
    pub fn read_slowly(&self, bytes: usize, every: Duration) {
        // Time must pass between two reads, or there would be no end of them.
        let every = every.max(Duration::from_micros(1));
        self.net.world().set_reading(self.link, Reading::Slow { bytes: bytes.max(1), every });
    }

    /// Reads whatever arrives from now on.
    pub fn read_all(&self) {
        self.net.world().set_reading(self.link, Reading::All);
    }

    /// Sets how many bytes may be under way from the server to this client or wait to be read by
    /// it. Drawn from the seed before: between 4 bytes and 2 MiB.
    pub fn set_window(&self, bytes: usize) {
        self.net.world().links[self.link].window = bytes.max(1);
    }

    /// Waits for these very bytes, and takes them.
    ///
    /// # Panics
    ///
    /// If other bytes come, or the end, or nothing more can come.
    #[track_caller]
    pub fn expect(&self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        self.net.until(|world| {
            let link = &world.links[self.link];
            link.inbox.len() >= expected.len() || link.is_ended()
        });
        let mut world = self.net.world();
        let inbox = &mut world.links[self.link].inbox;
        let got = inbox.drain(..expected.len().min(inbox.len())).collect::<Vec<u8>>();
        drop(world);
        assert!(
            got == expected,
            "client {} expected {}, and got {} ({})",
            self.link,
            show(expected),
            show(&got),
            self.situation(),
        );
    }

    /// Waits until these bytes have come, whatever comes before them, and takes everything up to
    /// their end. No bytes are waited for at no time.
    ///
    /// # Panics
    ///
    /// If the end comes before them, or nothing more can come.
    ///
    /// # Examples
    ///
    /// ```
    /// # use nonforker::{Server, codec::Lines, sim::Simulation};
    /// # let server = || Server::new().serve("127.0.0.1:1", Lines::new(), |conn, line| conn.send(line));
    /// Simulation::new(server).run(|net| {
    ///     let client = net.connect();
    ///     client.send("one\ntwo\nend\nmore\n");
    ///     assert_eq!(client.receive_until("end\n"), b"one\ntwo\nend\n");
    ///     client.expect("more\n");
    /// });
    /// ```
    #[track_caller]
    pub fn receive_until(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let wanted = bytes.as_ref();
        // What was looked through is not looked through again, but for what may begin them.
        let (mut seen, mut found) = (0, None);
        self.net.until(|world| {
            let link = &world.links[self.link];
            let end = memmem::find(&link.inbox[seen..], wanted).map(|at| seen + at + wanted.len());
            seen = link.inbox.len().saturating_sub(wanted.len());
            found = end;
            end.is_some() || link.is_ended()
        });
        let mut world = self.net.world();
        let inbox = &mut world.links[self.link].inbox;
        let got = inbox.drain(..found.unwrap_or(inbox.len())).collect::<Vec<u8>>();
        drop(world);
        assert!(
            found.is_some(),
            "client {} expected {} at last, and got {} ({})",
            self.link,
            show(wanted),
            show(&got),
            self.situation(),
        );
        got
    }

    /// Waits until the server has finished sending, without a byte more.
    ///
    /// # Panics
    ///
    /// If more bytes come, or a reset, or the end never comes.
    #[track_caller]
    pub fn expect_end(&self) {
        let (rest, ending) = self.receive_to_end();
        assert!(
            rest.is_empty() && ending == Some(Ending::Finished),
            "client {} expected the end, and got {} ({})",
            self.link,
            show(&rest),
            self.situation(),
        );
    }

    /// Waits until the connection ends, and takes what came until then. Without an end, nothing
    /// more can come.
    #[must_use]
    pub fn receive_to_end(&self) -> (Vec<u8>, Option<Ending>) {
        self.net.until(|world| world.links[self.link].is_ended());
        (self.received(), self.ending())
    }

    /// Takes what has arrived so far.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        std::mem::take(&mut self.net.world().links[self.link].inbox)
    }

    /// How the connection has ended, if it has.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        let world = self.net.world();
        let link = &world.links[self.link];
        match link.down_end {
            _ if !link.is_ended() => None,
            End::Reset => Some(Ending::Reset),
            End::Open | End::Finished => Some(Ending::Finished),
        }
    }

    fn situation(&self) -> String {
        match self.ending() {
            Some(Ending::Finished) => "the server has finished".to_owned(),
            Some(Ending::Reset) => "the connection was reset".to_owned(),
            None => self.net.why_in_vain(),
        }
    }
}

/// Bytes as a person can read them.
fn show(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 200;
    let shown = &bytes[..bytes.len().min(SHOWN_MAX)];
    let more = if bytes.len() > SHOWN_MAX { ", cut here" } else { "" };
    format!("\"{}\" ({} bytes{more})", shown.escape_ascii(), bytes.len())
}

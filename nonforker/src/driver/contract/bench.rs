//! A driver at work: it is told what to do, and everything it reports is noted.

use std::time::Duration;

use slotmap::SlotMap;

use super::{
    Client, Rig, Target, Transport,
    log::{Log, Track},
};
use crate::{
    address::Address,
    conn::buffer::Buffer,
    driver::{AttemptId, Completion, Destination, Driver, ListenerId, Next, Op, Token},
};

/// For how long something may be waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A wait within which whatever is to come has come.
pub(super) const QUIET: Duration = Duration::from_millis(10);

/// How often a driver may come back before it must fall asleep.
const TURNS_MAX: usize = 20_000;

/// See the [module](self).
pub(super) struct Bench<R: Rig> {
    pub(super) rig: R,
    pub(super) driver: R::Driver,
    pub(super) transport: Transport,
    pub(super) log: Log<<R::Driver as Driver>::Socket>,
    slots: SlotMap<Token, ()>,
}

impl<R: Rig> Bench<R> {
    pub(super) fn new(rig: R, driver: R::Driver, transport: Transport) -> Self {
        let log = Log::new();
        Self { rig, driver, transport, log, slots: SlotMap::with_key() }
    }

    /// Opens a listener that does not accept yet.
    pub(super) fn listen(&mut self) -> (ListenerId, Address) {
        self.listen_for(R::URGENT)
    }

    /// The same, with urgent bytes or without.
    pub(super) fn listen_for(&mut self, urgent: bool) -> (ListenerId, Address) {
        let wanted = self.rig.address();
        let listener = self.log.accepting.len();
        let address = self.driver.listen(listener, &wanted, urgent).expect("the address is free");
        self.log.accepting.push(false);
        (listener, address)
    }

    /// Opens a listener at an address that another one had.
    pub(super) fn listen_at(&mut self, address: &Address) -> ListenerId {
        let listener = self.log.accepting.len();
        let actual = self.driver.listen(listener, address, R::URGENT).expect("it is free again");
        assert_eq!(actual, *address);
        self.log.accepting.push(false);
        listener
    }

    pub(super) fn accept(&mut self, listener: ListenerId, on: bool) {
        self.log.accepting[listener] = on;
        self.driver.submit(Op::Accept { listener, on });
    }

    /// Takes the one who has been accepted longest.
    pub(super) fn adopt(&mut self) -> Token {
        self.until("somebody to be accepted", |bench| !bench.log.arrivals.is_empty());
        let arrival = self.log.arrivals.pop_front().expect("somebody was accepted");
        self.adopt_socket(arrival.socket)
    }

    fn adopt_socket(&mut self, socket: <R::Driver as Driver>::Socket) -> Token {
        let token = self.slots.insert(());
        self.log.tracks.insert(token, Track::default());
        self.driver.submit(Op::Adopt { token, socket });
        token
    }

    /// Begins an attempt to connect.
    pub(super) fn connect(&mut self, attempt: AttemptId, address: Address) {
        self.log.attempts.insert(attempt);
        self.driver.submit(Op::Connect {
            attempt,
            to: Destination::Address(address),
            urgent: R::URGENT,
        });
    }

    pub(super) fn abandon(&mut self, attempt: AttemptId) {
        self.log.attempts.remove(&attempt);
        self.driver.submit(Op::Abandon { attempt });
    }

    /// Takes the connection that was made first.
    pub(super) fn adopt_made(&mut self) -> Token {
        self.until("a connection to be made", |bench| !bench.log.connected.is_empty());
        let made = self.log.connected.pop_front().expect("a connection was made");
        self.adopt_socket(made.socket)
    }

    /// The other end of a connection that was made.
    pub(super) fn accept_at(&mut self, target: &mut R::Target) -> R::Client {
        let mut client = None;
        self.until("the target to be connected to", |_| {
            client = target.accept();
            client.is_some()
        });
        client.expect("it was accepted")
    }

    /// A connection and its peer.
    pub(super) fn open(&mut self) -> (R::Client, Token) {
        let (listener, address) = self.listen();
        self.accept(listener, true);
        let client = self.rig.connect(&address).expect("somebody listens");
        (client, self.adopt())
    }

    /// A connection that does not want urgent bytes.
    pub(super) fn open_without_urgent(&mut self) -> (R::Client, Token) {
        let (listener, address) = self.listen_for(false);
        self.accept(listener, true);
        let client = self.rig.connect(&address).expect("somebody listens");
        (client, self.adopt())
    }

    /// Many connections with their peers, in the order of the peers.
    pub(super) fn open_many(&mut self, count: usize) -> Vec<(R::Client, Token)> {
        let (listener, address) = self.listen();
        self.accept(listener, true);
        let connect = |bench: &mut Self| {
            let client = bench.rig.connect(&address).expect("somebody listens");
            (client, bench.adopt())
        };
        (0..count).map(|_| connect(self)).collect()
    }

    pub(super) fn receive(&mut self, token: Token, on: bool) {
        self.track(token).receive(on);
        self.driver.submit(Op::Receive { token, on });
    }

    pub(super) fn send(&mut self, token: Token, bytes: &[u8]) {
        self.send_batch(token, Buffer::new(bytes.to_vec()), true);
    }

    /// Sends so that a wait may sleep on it.
    pub(super) fn send_unawaited(&mut self, token: Token, bytes: &[u8]) {
        self.send_batch(token, Buffer::new(bytes.to_vec()), false);
    }

    /// Sends again what came back unsent. Returns whether there was any.
    pub(super) fn send_rest(&mut self, token: Token) -> bool {
        let Some(rest) = self.track(token).rest.take() else { return false };
        self.send_batch(token, rest, true);
        true
    }

    fn send_batch(&mut self, token: Token, batch: Buffer, awaited: bool) {
        self.track(token).send(&batch);
        if let Some(sent) = self.driver.send(token, batch, awaited) {
            self.track(token).note_sent(sent);
        }
    }

    /// Sends more and more until the connection takes no more, and a batch stays in flight.
    pub(super) fn clog(&mut self, token: Token) {
        for _ in 0..1000 {
            if !self.send_rest(token) && !self.of(token).is_sending() {
                self.send(token, &[b'x'; 1 << 18]);
            }
            self.settle();
            if self.of(token).is_sending() {
                return;
            }
        }
        panic!("a peer that does not read takes everything");
    }

    pub(super) fn close(&mut self, token: Token, reset: bool) {
        let track = self.track(token);
        track.closing = true;
        track.receive(false);
        self.driver.submit(Op::Close { token, reset });
    }

    /// What became of a token.
    pub(super) fn of(&self, token: Token) -> &Track {
        &self.log.tracks[&token]
    }

    fn track(&mut self, token: Token) -> &mut Track {
        self.log.tracks.get_mut(&token).expect("the token was adopted")
    }

    /// One wait, after which the driver may sleep. Returns how much was reported.
    pub(super) fn wait(&mut self, timeout: Duration) -> usize {
        self.wait_wanting(timeout, Next::Sleep)
    }

    /// One wait, with a sink that answers `next`.
    pub(super) fn wait_wanting(&mut self, timeout: Duration, next: Next) -> usize {
        let before = self.log.reports;
        self.log.begin();
        let log = &mut self.log;
        let waited = self.driver.wait(Some(timeout), &mut |completion: Completion<'_, _>| {
            log.note(completion);
            next
        });
        waited.expect("no peer can make a wait fail");
        assert!(
            self.log.awake || self.log.had_enough,
            "a wait says when it has slept, unless it delivers the rest of the one before"
        );
        self.log.had_enough = next == Next::Enough;
        let (log, slots) = (&self.log, &mut self.slots);
        slots.retain(|token, ()| !log.tracks[&token].closed);
        self.log.reports - before
    }

    /// How long a wait takes that may take up to `timeout`.
    pub(super) fn time_wait(&mut self, timeout: Duration) -> Duration {
        let clock = self.driver.clock();
        let before = clock.time();
        self.wait(timeout);
        clock.time() - before
    }

    /// Waits for something that is expected.
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let clock = self.driver.clock();
        let deadline = clock.time() + PATIENCE;
        while !done(self) {
            assert!(clock.time() < deadline, "waited in vain for {what}");
            self.wait(QUIET);
        }
    }

    /// Waits for something that is at hand, so that the driver must not sleep on it.
    pub(super) fn promptly(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let clock = self.driver.clock();
        while !done(self) {
            let before = clock.time();
            self.wait_wanting(PATIENCE, Next::Return);
            assert!(clock.time() - before < PATIENCE / 2, "slept on {what}");
        }
    }

    /// Waits until nothing is left to be reported, and the driver sleeps.
    pub(super) fn settle(&mut self) {
        let clock = self.driver.clock();
        for _ in 0..TURNS_MAX {
            let before = clock.time();
            if self.wait(QUIET) == 0 && clock.time() - before >= QUIET {
                return;
            }
        }
        panic!("it does not fall asleep");
    }

    /// Has a peer send all of `bytes`, while the driver is at work.
    pub(super) fn send_from(&mut self, client: &mut R::Client, bytes: &[u8]) {
        let mut at = 0;
        self.until("the peer to be rid of its bytes", |_| {
            at += client.send(&bytes[at..]);
            at == bytes.len()
        });
    }
}

impl<R: Rig> Drop for Bench<R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was {}, over {:?}:", R::NAME, self.transport);
            for (token, track) in self.log.tracks.iter().rev().take(5) {
                eprintln!("  {token:?} {track}");
            }
        }
    }
}

//! The driver that tries at once and waits where it would block: epoll and kqueue, through mio.
//!
//! ```text
//!  submit(Send) ──▶ send now ──▶ done ─────────────────────────────┐
//!                        └─ would block ─▶ the next writable edge ─┤
//!                                                                  ▼
//!  wait ──▶ deliver done ──▶ poll, sleeping ──▶ queue the ready ──▶ sink
//! ```
//!
//! A socket is registered once, edge-triggered, for everything. What an edge said is remembered
//! in its [`Entry`], so to turn receiving off and on costs no system call, and neither does
//! backpressure.

mod entry;

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    mem,
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use mio::{Events, Interest, Poll, unix::SourceFd};
use slotmap::{Key, KeyData, SecondaryMap};
use socket2::{SockRef, Socket};

use self::entry::{Edges, Entry};
use super::{
    Clock, Completion, Driver, ListenerId, Next, Op, Options, Sending, Sink, Token, Waker,
    socket::Listener,
};
use crate::{address::Address, conn::buffer::Buffer};

/// Events taken per wait: fewer cost more waits, more cost cache (16: × .8, 4096: × .9).
const EVENTS: usize = 512;

/// Connections taken per listener and wait, so that a flood of them does not starve the rest.
const ACCEPTS: usize = 16;

/// The longest sleep: the kernel counts milliseconds in 31 bits.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

const WAKE: mio::Token = mio::Token(usize::MAX);

#[cfg(any(target_os = "linux", target_os = "android"))]
const EVERYTHING: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const EVERYTHING: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// One listener. `None` once it is closed.
#[derive(Debug)]
struct Accepting {
    listener: Listener,
    on: bool,
    readable: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct PollDriver {
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
    options: Options,
    listeners: Vec<Option<Accepting>>,
    entries: SecondaryMap<Token, Entry>,
    /// Tokens to be looked at in the next wait.
    ready: VecDeque<Token>,
    /// So many of them are left from a wait whose sink had enough: they come before anything new.
    round: usize,
    /// Completions of operations that could be carried out at once.
    done: Vec<Completion<'static, Socket>>,
    scratch: Box<[u8]>,
}

impl PollDriver {
    /// A driver with nothing to wait for yet.
    pub(crate) fn new(options: Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            waker,
            scratch: vec![0; options.read_max].into_boxed_slice(),
            options,
            listeners: Vec::new(),
            entries: SecondaryMap::new(),
            ready: VecDeque::new(),
            round: 0,
            done: Vec::new(),
        })
    }

    fn adopt(&mut self, token: Token, socket: Socket) {
        let fd = socket.as_raw_fd();
        self.entries.insert(token, Entry::new(socket));
        let registered =
            self.poll.registry().register(&mut SourceFd(&fd), mio_token(token), EVERYTHING);
        if let Err(error) = registered {
            self.done.push(Completion::Failed { token, error });
        }
    }

    fn accept(&mut self, listener: ListenerId, on: bool) {
        if let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::as_mut) {
            accepting.on = on;
        }
    }

    fn receive(&mut self, token: Token, on: bool) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.receiving = on;
            if on && entry.edges.has(Edges::READABLE) && !mem::replace(&mut entry.queued, true) {
                self.ready.push_back(token);
            }
        }
    }

    fn close(&mut self, token: Token, reset: bool) {
        let Some(entry) = self.entries.remove(token) else { return };
        if reset {
            // A socket that cannot be told to reset is closed in order.
            let _ = entry.socket.set_linger(Some(Duration::ZERO));
        }
        self.done.push(Completion::Closed { token, unsent: entry.sending });
    }

    /// Passes on what could be done at once. Returns whether `wait` may sleep.
    fn deliver(&mut self, sink: &mut Sink<'_, Socket>) -> Next {
        let mut next = Next::Sleep;
        if self.done.is_empty() {
            return next;
        }
        for completion in self.done.drain(..) {
            if sink(completion) != Next::Sleep {
                next = Next::Return;
            }
        }
        next
    }

    /// Remembers what the edges say and queues whom they are about.
    fn note_edges(&mut self, sink: &mut Sink<'_, Socket>) {
        for event in &self.events {
            if event.token() == WAKE {
                sink(Completion::Woken);
                continue;
            }
            if let Some(listener) = listener_of(event.token()) {
                if let Some(accepting) = self.listeners.get_mut(listener).and_then(Option::as_mut) {
                    accepting.readable = true;
                }
                continue;
            }
            let token = token_of(event.token());
            let Some(entry) = self.entries.get_mut(token) else { continue };
            entry.note(event);
            if !mem::replace(&mut entry.queued, true) {
                self.ready.push_back(token);
            }
        }
    }

    /// Gives everybody of the round one turn, as far as the sink takes it.
    fn serve_round(&mut self, sink: &mut Sink<'_, Socket>) {
        let mut next = Next::Return;
        while self.round > 0 && next != Next::Enough {
            self.round -= 1;
            let Some(token) = self.ready.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(token) else { continue };
            entry.queued = false;
            if entry.edges.take(Edges::URGENT)
                && let Some(byte) = entry.urgent_byte()
            {
                sink(Completion::Urgent { token, byte });
            }
            if let Some(batch) = entry.sending.take() {
                match entry.send(batch) {
                    Ok(Sending::Done { count, batch }) => {
                        sink(Completion::Sent { token, count, batch });
                    }
                    Ok(Sending::InFlight) => {}
                    Err((error, batch)) => {
                        sink(Completion::SendFailed { token, error, batch });
                    }
                }
            }
            if entry.receiving && entry.edges.has(Edges::READABLE) {
                let (completion, again) = entry.receive(token, &mut self.scratch);
                if let Some(completion) = completion {
                    next = sink(completion);
                }
                if again {
                    entry.queued = true;
                    self.ready.push_back(token);
                }
            }
            // Who still sends or receives learns of it by that.
            if !entry.receiving && entry.sending.is_none() && entry.edges.take(Edges::BROKEN) {
                let error = entry.socket.take_error().ok().flatten();
                let error = error.unwrap_or_else(|| ErrorKind::ConnectionReset.into());
                sink(Completion::Failed { token, error });
            }
        }
    }

    fn serve_listeners(&mut self, sink: &mut Sink<'_, Socket>) {
        for (listener, accepting) in self.listeners.iter_mut().enumerate() {
            let Some(accepting) = accepting else { continue };
            for _ in 0..ACCEPTS {
                if !accepting.on || !accepting.readable {
                    break;
                }
                match accepting.listener.accept() {
                    Ok(Some((socket, peer))) => {
                        sink(Completion::Accepted { listener, socket, peer });
                    }
                    Ok(None) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        accepting.readable = false;
                    }
                    Err(error) => {
                        accepting.on = false;
                        sink(Completion::AcceptFailed { listener, error });
                    }
                }
            }
        }
    }

    /// Whether somebody could be served without waiting for an edge.
    fn has_ready(&self) -> bool {
        !self.ready.is_empty()
            || self.listeners.iter().flatten().any(|listener| listener.on && listener.readable)
    }
}

impl Driver for PollDriver {
    type Socket = Socket;

    fn listen(
        &mut self,
        listener: ListenerId,
        address: &Address,
        _urgent: bool,
    ) -> io::Result<Address> {
        let opened = Listener::open(address, &self.options)?;
        let address = opened.address()?;
        self.poll.registry().register(
            &mut SourceFd(&opened.socket.as_raw_fd()),
            mio::Token(listener),
            Interest::READABLE,
        )?;
        debug_assert_eq!(listener, self.listeners.len(), "listeners are opened in order");
        self.listeners.push(Some(Accepting { listener: opened, on: false, readable: true }));
        Ok(address)
    }

    fn submit(&mut self, op: Op<Socket>) {
        match op {
            Op::Accept { listener, on } => self.accept(listener, on),
            Op::Unlisten { listener } => {
                if let Some(listener) = self.listeners.get_mut(listener) {
                    *listener = None;
                }
            }
            Op::Adopt { token, socket } => self.adopt(token, socket),
            Op::Receive { token, on } => self.receive(token, on),
            Op::ShutdownWrite { token } => {
                if let Some(entry) = self.entries.get(token) {
                    // It fails only where the peer has already gone, which reading will tell.
                    let _ = SockRef::from(&entry.socket).shutdown(std::net::Shutdown::Write);
                }
            }
            Op::Close { token, reset } => self.close(token, reset),
        }
    }

    fn send(&mut self, token: Token, batch: Buffer, _awaited: bool) -> Sending {
        let Some(entry) = self.entries.get_mut(token) else { return Sending::InFlight };
        debug_assert!(entry.sending.is_none(), "one send in flight");
        match entry.send(batch) {
            Ok(sending) => sending,
            Err((error, batch)) => {
                self.done.push(Completion::SendFailed { token, error, batch });
                Sending::InFlight
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, sink: &mut Sink<'_, Socket>) -> io::Result<()> {
        let sleepless = self.deliver(sink) != Next::Sleep || self.has_ready();
        if self.round > 0 {
            self.serve_round(sink);
            return Ok(());
        }
        let timeout = if sleepless { Some(Duration::ZERO) } else { timeout };
        match self.poll.poll(&mut self.events, timeout.map(|timeout| timeout.min(SLEEP_MAX))) {
            Ok(()) => {
                sink(Completion::Awake);
                self.note_edges(sink);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                sink(Completion::Awake);
            }
            Err(error) => return Err(error),
        }
        self.round = self.ready.len();
        self.serve_round(sink);
        self.serve_listeners(sink);
        Ok(())
    }

    fn clock(&self) -> Clock {
        Clock::System
    }

    fn waker(&self) -> Waker {
        let waker = Arc::clone(&self.waker);
        // It fails only if the queue is gone, and then nobody waits.
        Waker::new(move || drop(waker.wake()))
    }
}

fn mio_token(token: Token) -> mio::Token {
    let bits = token.data().as_ffi();
    mio::Token(usize::try_from(bits).expect("tokens have as many bits as a pointer"))
}

fn token_of(token: mio::Token) -> Token {
    Token::from(KeyData::from_ffi(token.0 as u64))
}

/// Listeners are the tokens without a generation: those of connections are never 0.
fn listener_of(token: mio::Token) -> Option<ListenerId> {
    (token.0 as u64 >> 32 == 0).then_some(token.0)
}

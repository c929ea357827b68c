//! The driver that tries at once and waits where it would block: epoll and kqueue, which are set up
//! through mio.
//!
//! ```text
//!  submit(Send) ──▶ send now ──▶ done ─────────────────────────────┐
//!                        └─ would block ─▶ the next writable edge ─┤
//!                                                                  ▼
//!  wait ──▶ deliver done ──▶ poll, sleeping ──▶ whom an edge is about ──▶ sink
//!                                          └──▶ who has more ───────────▶ sink
//! ```
//!
//! A socket is registered once, edge-triggered, for everything. What an edge said is remembered
//! in its [`Entry`](entry::Entry), so to turn receiving off and on costs no system call, and
//! neither does backpressure.
//!
//! In which order connections are served, [`turns`](super::turns) says.

mod connecting;
mod entry;
mod reports;
mod shared;
mod sockets;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use mio::{Interest, Poll, unix::SourceFd};
use slotmap::{Key, KeyData};
use socket2::{SockRef, Socket};

use self::{reports::Reports, sockets::Sockets};
use super::{
    Clock, Completion, Driver, ListenerId, ListenerShare, Next, Op, Options, Sent, Sink, Token,
    Waker,
    accepting::Listeners,
    connecting::Attempts,
    socket::{Listener, credentials, unacknowledged, unread},
};
use crate::{
    address::{Address, PeerCredentials},
    conn::buffer::Buffer,
};

const WAKE: mio::Token = mio::Token(usize::MAX);

#[cfg(any(target_os = "linux", target_os = "android"))]
const EVERYTHING: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const EVERYTHING: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Whether the event queue tells of a listener.
#[derive(Debug)]
struct Watch {
    is_on: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct PollDriver {
    poll: Poll,
    /// What the last look found.
    reports: Reports,
    waker: Arc<mio::Waker>,
    options: Options,
    listeners: Listeners<Watch>,
    attempts: Attempts<()>,
    sockets: Sockets,
    /// Completions of operations that could be carried out at once.
    done: Vec<Completion<'static, Socket>>,
}

impl PollDriver {
    /// A driver with nothing to wait for yet.
    pub(crate) fn new(options: Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            reports: Reports::new(),
            waker,
            sockets: Sockets::new(options.read_max),
            listeners: Listeners::new(options.shared),
            attempts: Attempts::new(),
            options,
            done: Vec::new(),
        })
    }

    fn add_listener(&mut self, listener: ListenerId, opened: Listener) -> io::Result<Address> {
        let address = opened.address()?;
        if !self.options.shared {
            self.poll.registry().register(
                &mut SourceFd(&opened.socket.as_raw_fd()),
                mio::Token(listener),
                Interest::READABLE,
            )?;
        }
        self.listeners.add(listener, opened, Watch { is_on: !self.options.shared });
        Ok(address)
    }

    fn turn_accepting(&mut self, listener: ListenerId, on: bool) {
        self.listeners.turn(listener, on);
        if !self.options.shared {
            return;
        }
        let Some(accepting) = self.listeners.get_mut(listener) else { return };
        let fd = accepting.listener.socket.as_raw_fd();
        if on && !accepting.extra.is_on {
            let watched = shared::watch(&self.poll, &accepting.listener.socket, listener);
            accepting.extra.is_on = watched.is_ok();
            if let Err(error) = watched {
                accepting.on = false;
                return self.done.push(Completion::AcceptFailed { listener, error });
            }
        } else if !on && accepting.extra.is_on {
            // What this one is told of, no other shard is.
            accepting.extra.is_on = self.poll.registry().deregister(&mut SourceFd(&fd)).is_err();
        }
        if on {
            self.listeners.note_readable(listener);
        }
    }

    fn unlisten(&mut self, listener: ListenerId) {
        let Some(accepting) = self.listeners.remove(listener) else { return };
        // Where another process holds it too, to close it does not end the reports about it.
        if accepting.extra.is_on {
            let fd = accepting.listener.socket.as_raw_fd();
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        accepting.listener.shut();
    }

    fn adopt(&mut self, token: Token, socket: Socket) {
        let fd = socket.as_raw_fd();
        self.sockets.adopt(token, socket);
        let registered =
            self.poll.registry().register(&mut SourceFd(&fd), mio_token(token), EVERYTHING);
        if let Err(error) = registered {
            self.done.push(Completion::Failed { token, error });
        }
    }

    fn close(&mut self, token: Token, reset: bool) {
        let Some((socket, unsent)) = self.sockets.release(token) else { return };
        if reset {
            // A socket that cannot be told to reset is closed in order.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        if let Some(batch) = unsent {
            self.done.push(Completion::Sent { token, sent: Sent::cancelled(batch) });
        }
        self.done.push(Completion::Closed { token });
    }

    /// Passes on what could be done at once. Returns whether `wait` may sleep.
    fn deliver(&mut self, sink: &mut impl Sink<Socket>) -> Next {
        let mut next = Next::Sleep;
        if self.done.is_empty() {
            return next;
        }
        for completion in self.done.drain(..) {
            if sink.take(completion) != Next::Sleep {
                next = Next::Return;
            }
        }
        next
    }

    /// Looks for edges, sleeping up to `timeout` for the first.
    #[inline]
    fn look(&mut self, timeout: Option<Duration>, sink: &mut impl Sink<Socket>) -> io::Result<()> {
        self.reports.look(&mut self.poll, timeout)?;
        self.sockets.turns.looked(self.reports.len());
        sink.awake();
        Ok(())
    }

    /// Gives those whom the reports are about their turn, as far as the sink takes it.
    #[inline]
    fn serve_reports(&mut self, sink: &mut impl Sink<Socket>) -> Next {
        let mut next = Next::Return;
        let served = self.reports.len() - self.sockets.turns.left();
        for at in served..self.reports.len() {
            let Some(report) = self.reports.get(at) else { break };
            self.sockets.turns.next_report();
            match report.about {
                WAKE => _ = sink.take(Completion::Woken),
                token if is_of_listener(token) => self.listeners.note_readable(token.0),
                token if connecting::is_of_attempt(token) => {
                    connecting::serve(self.poll.registry(), &mut self.attempts, token, sink);
                }
                token => next = self.sockets.note(token_of(token), report.says, sink),
            }
            if next == Next::Enough {
                break;
            }
        }
        next
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
        self.add_listener(listener, Listener::open(address, &self.options)?)
    }

    fn take_over(
        &mut self,
        listener: ListenerId,
        given: OwnedFd,
        _urgent: bool,
    ) -> io::Result<Address> {
        self.add_listener(listener, Listener::take_over(given, &self.options)?)
    }

    fn share_of(&self, listener: ListenerId) -> io::Result<ListenerShare> {
        self.listeners.share_of(listener)
    }

    fn share(
        &mut self,
        listener: ListenerId,
        other: ListenerShare,
        _urgent: bool,
    ) -> io::Result<Address> {
        self.add_listener(listener, other.socket()?)
    }

    fn submit(&mut self, op: Op<Socket>) {
        match op {
            Op::Accept { listener, on } => self.turn_accepting(listener, on),
            Op::Unlisten { listener } => self.unlisten(listener),
            Op::Connect { attempt, to, .. } => self.connect(attempt, &to),
            Op::Abandon { attempt } => self.abandon(attempt),
            Op::Adopt { token, socket } => self.adopt(token, socket),
            Op::Receive { token, on } => self.sockets.receive(token, on),
            Op::ShutdownWrite { token } => {
                if let Some(socket) = self.sockets.socket(token) {
                    // It fails only where the peer has already gone, which reading will tell.
                    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Write);
                }
            }
            Op::Close { token, reset } => self.close(token, reset),
        }
    }

    #[inline]
    fn send(&mut self, token: Token, batch: Buffer, _awaited: bool) -> Option<Sent> {
        let (entry, waiting) = self.sockets.sending(token)?;
        entry.send(token, batch, waiting)
    }

    fn wait(&mut self, timeout: Option<Duration>, sink: &mut impl Sink<Socket>) -> io::Result<()> {
        let had_more = self.sockets.turns.count_more();
        let sleepless =
            self.deliver(sink) != Next::Sleep || had_more > 0 || self.listeners.may_accept();
        if !self.is_behind() {
            self.look(if sleepless { Some(Duration::ZERO) } else { timeout }, sink)?;
        }
        if self.serve_reports(sink) != Next::Enough && had_more > 0 {
            self.sockets.serve_more(had_more, sink);
        }
        self.listeners.serve(nonblocking, sink);
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.sockets.turns.are_behind()
    }

    fn unread(&self, token: Token) -> usize {
        self.sockets.socket(token).map_or(0, unread)
    }

    fn unacknowledged(&self, token: Token) -> Option<usize> {
        self.sockets.socket(token).and_then(unacknowledged)
    }

    fn credentials(&self, token: Token) -> Option<PeerCredentials> {
        self.sockets.socket(token).and_then(credentials)
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

/// Makes an accepted socket one that is tried.
fn nonblocking(socket: Socket, _: &Watch) -> io::Result<Socket> {
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn mio_token(token: Token) -> mio::Token {
    let bits = token.data().as_ffi();
    mio::Token(usize::try_from(bits).expect("tokens have as many bits as a pointer"))
}

fn token_of(token: mio::Token) -> Token {
    Token::from(KeyData::from_ffi(token.0 as u64))
}

/// Listeners are the tokens without a generation: those of connections are never 0.
const fn is_of_listener(token: mio::Token) -> bool {
    token.0 as u64 >> 32 == 0
}

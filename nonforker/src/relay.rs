//! A service that relays: each client is joined with a connection to one of several targets.
//!
//! ```text
//!  client ── open ──▶ a target: the first, or that with the fewest connections ── connect
//!                        ▲                                          │
//!                        │ the next one, or after a while all again │ it fails
//!                        └──────────────────────────────────────────┤
//!  client ◀───── relay_to ────── open (a PROXY header is sent) ◀────┘ it stands
//! ```

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    address::{Address, AddressError, Peer},
    codec::Raw,
    connections::{Connections, Other},
    context::{Conn, ConnId},
    error::{CloseReason, Error},
    handler::{Frame, Handler, Outcome},
    reconnect::Reconnect,
    relay_faults::RelayFaults,
    send_proxy::{ProxyHeader, header},
    server::Server,
    target::{Target, TargetError},
};

/// The first wait before all targets are tried again, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Where the clients of [`Server::relay`] go.
///
/// # Examples
///
/// Two servers behind one port, of which each client goes to the one with fewer connections; while
/// neither takes it, both are tried again for 5 s:
///
/// ```
/// use std::time::Duration;
/// use nonforker::{Relay, Server};
///
/// # fn main() -> nonforker::Result<()> {
/// let relay = Relay::to("10.0.0.1:6379")?.or("10.0.0.2:6379")?.retry(Duration::from_secs(5));
/// let server = Server::new().relay("127.0.0.1:0", relay);
/// # let _ = server;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Relay {
    targets: Vec<Target>,
    balance: Balance,
    retry: Duration,
    header: Option<ProxyHeader>,
    faults: Option<Arc<RelayFaults>>,
}

/// Which of several targets a client of a [`Relay`] goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// The one with the fewest connections of this shard; of several, each in turn.
    #[default]
    Least,
    /// The first one that takes it, in the order in which they were given.
    First,
}

impl Relay {
    /// A relay to one target.
    ///
    /// # Errors
    ///
    /// [`TargetError`] if it is none.
    pub fn to<T>(target: T) -> Result<Self, TargetError>
    where
        T: TryInto<Target, Error: Into<TargetError>>,
    {
        let targets = vec![target.try_into().map_err(Into::into)?];
        Ok(Self::of(targets))
    }

    const fn of(targets: Vec<Target>) -> Self {
        let (balance, retry) = (Balance::Least, Duration::ZERO);
        Self { targets, balance, retry, header: None, faults: None }
    }

    /// One more target.
    ///
    /// # Errors
    ///
    /// [`TargetError`] if it is none.
    pub fn or<T>(mut self, target: T) -> Result<Self, TargetError>
    where
        T: TryInto<Target, Error: Into<TargetError>>,
    {
        self.targets.push(target.try_into().map_err(Into::into)?);
        Ok(self)
    }

    /// Which target a client goes to. Default: [`Balance::Least`]. If that one does not take it, each of
    /// the others is tried once.
    #[must_use]
    pub const fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// For how long all targets are tried again and again if none takes a client. Default: not at all, the
    /// client is closed.
    #[must_use]
    pub const fn retry(mut self, time: Duration) -> Self {
        self.retry = time;
        self
    }

    /// Begins each connection to a target with a header that says who the client is. Its destination is
    /// the address of the listener by which the client came. Default: none.
    #[must_use]
    pub const fn send_proxy(mut self, version: ProxyHeader) -> Self {
        self.header = Some(version);
        self
    }

    /// Does this to what goes through, on purpose: programs can be tested with it. Default: nothing.
    #[must_use]
    pub fn faults(mut self, faults: RelayFaults) -> Self {
        self.faults = (faults != RelayFaults { seed: faults.seed, ..RelayFaults::new() })
            .then(|| Arc::new(faults));
        self
    }
}

impl TryFrom<&str> for Relay {
    type Error = TargetError;

    fn try_from(target: &str) -> Result<Self, TargetError> {
        Self::to(target)
    }
}

impl TryFrom<String> for Relay {
    type Error = TargetError;

    fn try_from(target: String) -> Result<Self, TargetError> {
        Self::to(target)
    }
}

impl From<Target> for Relay {
    fn from(target: Target) -> Self {
        let targets = vec![target];
        Self::of(targets)
    }
}

/// What both sides of a relay know.
struct Shared {
    relay: Relay,
    /// The name of the service that has the connections to targets.
    name: String,
    /// How many connections each target has, and which one was chosen last.
    load: RefCell<(Vec<usize>, usize)>,
    /// How many clients have come.
    clients: Cell<u64>,
}

impl Shared {
    /// The targets in the order in which they are to be tried, the last one first.
    fn order(&self) -> Vec<usize> {
        let count = self.relay.targets.len();
        let mut order: Vec<usize> = (0..count).collect();
        if self.relay.balance == Balance::Least {
            let (counts, last) = &*self.load.borrow();
            order.sort_by_key(|&target| (counts[target], (target + count - last - 1) % count));
        }
        order.reverse();
        order
    }

    fn begins(&self, target: usize) {
        let (counts, last) = &mut *self.load.borrow_mut();
        counts[target] += 1;
        *last = target;
    }

    fn ends(&self, target: usize) {
        self.load.borrow_mut().0[target] -= 1;
    }
}

/// The handler of the clients.
pub(crate) struct Clients(Rc<Shared>);

/// What a client of a relay waits for.
#[derive(Default)]
pub(crate) struct Waiting {
    upstream: Option<ConnId>,
}

/// The handler of the connections to targets.
pub(crate) struct Upstreams(Rc<Shared>);

/// A client on its way to a target.
#[derive(Default)]
pub(crate) struct Way {
    client: Option<ConnId>,
    peer: Option<Peer>,
    /// Where it came to.
    at: Option<SocketAddr>,
    /// How many clients came before this one.
    number: u64,
    target: usize,
    /// What is to be tried if this one fails, the next one last.
    untried: Vec<usize>,
    /// Until when all of them are tried again.
    until: Option<Instant>,
    reconnect: Reconnect,
}

impl Handler for Clients {
    type Codec = Raw;
    type Session = Waiting;

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        // It is received from when there is somebody to send to.
        conn.pause();
        let number = self.0.clients.get();
        self.0.clients.set(number + 1);
        let way = Way {
            number,
            client: Some(conn.id()),
            peer: Some(conn.peer()),
            at: match conn.listener() {
                Some(Address::Tcp(at)) => Some(*at),
                _ => None,
            },
            until: conn.now().checked_add(self.0.relay.retry),
            reconnect: Reconnect::new(WAITS.0, WAITS.1),
            ..Way::default()
        };
        let upstream = set_out(&self.0, &mut conn.others(), way)?;
        conn.session_mut().upstream = upstream;
        Ok(())
    }

    fn frame(&mut self, _conn: &mut Conn<'_, Self>, _bytes: Frame<'_, Self>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        // It has left before a target took it.
        if let Some(upstream) = conn.session_mut().upstream.take() {
            conn.others().give_up(upstream);
        }
    }
}

impl Handler for Upstreams {
    type Codec = Raw;
    type Session = Way;

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let way = std::mem::take(conn.session_mut());
        conn.session_mut().target = way.target;
        if let Some((version, peer)) = self.0.relay.header.zip(way.peer) {
            let header = header(version, &peer, way.at);
            conn.send(&header[..]);
        }
        let joined = way.client.map(|client| {
            with_client(&self.0, &mut conn.others(), client, |client| {
                client.session_mut().upstream = None;
            });
            conn.relay_with(client, self.0.relay.faults.as_ref().map(|faults| (faults, way.number)))
        });
        if !matches!(joined, Some(Ok(()))) {
            // The client has left.
            conn.abort();
        }
        Ok(())
    }

    fn frame(&mut self, _conn: &mut Conn<'_, Self>, _bytes: Frame<'_, Self>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let way = std::mem::take(conn.session_mut());
        self.0.ends(way.target);
        if matches!(reason, CloseReason::ConnectFailed(_)) {
            let _ = go_on(&self.0, &mut conn.others(), way);
        }
    }
}

/// Does something with a client. Returns whether it is there.
fn with_client<H: Handler>(
    shared: &Shared,
    all: &mut Connections<'_, H>,
    client: ConnId,
    act: impl FnOnce(&mut Other<'_, Clients>),
) -> bool {
    let Ok(mut clients) = all.again().service_named::<Clients>(&shared.name) else { return false };
    clients.get(client).map(|mut client| act(&mut client)).is_ok()
}

/// Connects to the first target that a client is to go to.
fn set_out<H: Handler>(
    shared: &Shared,
    all: &mut Connections<'_, H>,
    mut way: Way,
) -> Result<Option<ConnId>, crate::error::ConnectError> {
    let mut order = std::mem::take(&mut way.untried);
    if order.is_empty() {
        order = shared.order();
    }
    let Some(target) = order.pop() else { return Ok(None) };
    (way.untried, way.target) = (order, target);
    shared.begins(target);
    let to = shared.relay.targets[target].of_client(way.peer.as_ref());
    all.connect_named::<Upstreams>(&shared.name, to, way).map(Some).inspect_err(|_| {
        shared.ends(target);
    })
}

/// A target did not take a client: the next one is tried, or all of them again in a while, or the
/// client is closed.
fn go_on(shared: &Rc<Shared>, all: &mut Connections<'_, Upstreams>, mut way: Way) -> Outcome {
    let Some(client) = way.client else { return Ok(()) };
    if !way.untried.is_empty() {
        return try_again(shared, all, way);
    }
    if !with_client(shared, all, client, |_| ()) {
        return Ok(());
    }
    let now = all.now();
    if way.until.is_some_and(|until| until > now) {
        let wait = way.reconnect.next_wait(all);
        let again = Rc::clone(shared);
        let call = move |_: &mut Upstreams, all: &mut Connections<'_, Upstreams>| -> Outcome {
            try_again(&again, all, way)
        };
        if all.after(wait, call).is_ok() {
            return Ok(());
        }
    }
    with_client(shared, all, client, |client| client.close());
    Ok(())
}

fn try_again(shared: &Shared, all: &mut Connections<'_, Upstreams>, way: Way) -> Outcome {
    let Some(client) = way.client else { return Ok(()) };
    if with_client(shared, all, client, |_| ()) {
        let upstream = set_out(shared, all, way)?;
        with_client(shared, all, client, |client| client.session_mut().upstream = upstream);
    }
    Ok(())
}

impl Server {
    /// Relays: each client that connects to `from` is joined with a connection to the target `to`, with
    /// all that [`Conn::relay_to`] says. No handler is needed.
    ///
    /// To a [`Program`](crate::Program), which is then started for each client, it is joined as to any target.
    /// `TCPREMOTEIP`, `TCPREMOTEPORT` and `REMOTE_ADDR` in its environment are the client's address, if that
    /// is TCP. When the program has exited, the client is closed behind what it wrote.
    ///
    /// `to` is a target, or a [`Relay`] with several. A client that no target takes is closed, and a line
    /// at a limited rate says so. What is called for the service given last is then called for that of
    /// the clients.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::Server;
    ///
    /// let server = Server::new().relay("127.0.0.1:0", "redis.example:6379");
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn relay<A, R>(self, from: A, to: R) -> Self
    where
        A: TryInto<Address, Error: Into<AddressError>>,
        R: TryInto<Relay, Error: Into<TargetError>>,
    {
        let from = from.try_into().map_err(Into::into);
        let relay = match to.try_into().map_err(Into::into) {
            Ok(relay) => relay,
            Err(error) => return self.with_mistake(Error::Target(error)),
        };
        let name = format!("relay {}", self.services());
        let load = RefCell::new((vec![0; relay.targets.len()], relay.targets.len() - 1));
        let clients = Cell::new(0);
        let shared = Rc::new(Shared { relay, name: name.clone(), load, clients });
        let mut server = self.service(Raw::new(), Upstreams(Rc::clone(&shared))).name(name.clone());
        server.limits.join_next();
        let server = server.service(Raw::new(), Clients(shared)).name(name);
        match from {
            Ok(address) => server.also_on(address),
            Err(error) => server.with_mistake(Error::Address(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        net::SocketAddr,
    };

    use super::{Balance, ProxyHeader, Relay, Shared, header};
    use crate::address::Peer;

    fn tcp(text: &str) -> SocketAddr {
        text.parse().expect(text)
    }

    #[test]
    fn a_header_says_who_the_client_is() {
        let (v4, v6) = (tcp("192.0.2.1:1000"), tcp("[2001:db8::1]:2000"));
        let at = Some(tcp("127.0.0.1:80"));
        for (peer, text) in [
            (Peer::Tcp(v4), "PROXY TCP4 192.0.2.1 127.0.0.1 1000 80\r\n"),
            (Peer::Tcp(v6), "PROXY TCP6 2001:db8::1 :: 2000 80\r\n"),
            (Peer::Unix, "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(header(ProxyHeader::V1, &peer, at), text.as_bytes());
        }
        for (peer, length) in [(Peer::Tcp(v4), 28), (Peer::Tcp(v6), 52), (Peer::Unix, 16)] {
            assert_eq!(header(ProxyHeader::V2, &peer, at).len(), length, "{peer}");
        }
    }

    #[test]
    fn a_client_goes_where_the_fewest_are_and_then_in_turns() {
        let relay = Relay::to("1.0.0.1:1").expect("a target").or("1.0.0.2:1").expect("a target");
        let relay = relay.or("1.0.0.3:1").expect("a target");
        let shared = |relay| Shared {
            relay,
            name: String::new(),
            load: RefCell::new((vec![0; 3], 2)),
            clients: Cell::new(0),
        };
        let least = shared(relay.clone());
        for chosen in [0, 1, 2, 0, 1] {
            let next = least.order().pop().expect("there are targets");
            assert_eq!(next, chosen);
            least.begins(next);
        }
        least.ends(1);
        assert_eq!(least.order(), [0, 1, 2], "of 2 and 1 that come before 0");
        let first = shared(relay.balance(Balance::First));
        first.begins(0);
        assert_eq!(first.order(), [2, 1, 0]);
    }
}

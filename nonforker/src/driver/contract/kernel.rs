//! The rig for drivers of this system's sockets: peers are sockets of the same process.

use std::{
    fs,
    io::{self, ErrorKind, Read},
    net::Shutdown,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::MsgFlags,
};
use socket2::{Domain, MsgHdr, SockAddr, Socket, Type};

use super::{Client, Heard, Rig, Target, Transport, bench::Bench, skip};
#[cfg(target_os = "linux")]
use crate::driver::uring::UringDriver;
use crate::{
    address::{Address, Peer},
    driver::{Driver, Options, poll::PollDriver, socket::address_of},
};

/// Set in the process of a test that lowers its limits.
const CHILD: &str = "NONFORKER_CONTRACT_CHILD";

/// A way to make a driver of sockets, and to use it.
pub(super) trait SocketDriver: Sized {
    type Driver: Driver;
    const NAME: &'static str;
    /// Whether its listeners want urgent bytes.
    const URGENT: bool;
    /// `None` if this system does not have it.
    fn make(options: Options) -> Option<Self::Driver>;
}

pub(super) struct Poll;

impl SocketDriver for Poll {
    type Driver = PollDriver;
    const NAME: &'static str = "poll";
    const URGENT: bool = true;

    fn make(options: Options) -> Option<PollDriver> {
        Some(PollDriver::new(options).expect("every Unix has it"))
    }
}

#[cfg(target_os = "linux")]
pub(super) struct Uring;

#[cfg(target_os = "linux")]
impl SocketDriver for Uring {
    type Driver = UringDriver;
    const NAME: &'static str = "uring";
    const URGENT: bool = false;

    fn make(options: Options) -> Option<UringDriver> {
        UringDriver::new(options).ok()
    }
}

/// It receives in another way.
#[cfg(target_os = "linux")]
pub(super) struct UringForUrgent;

#[cfg(target_os = "linux")]
impl SocketDriver for UringForUrgent {
    type Driver = UringDriver;
    const NAME: &'static str = "uring, for urgent bytes";
    const URGENT: bool = true;

    fn make(options: Options) -> Option<UringDriver> {
        UringDriver::new(options).ok()
    }
}

/// Its queues are full, and its buffers empty, all the time.
#[cfg(target_os = "linux")]
pub(super) struct TightUring;

#[cfg(target_os = "linux")]
impl SocketDriver for TightUring {
    type Driver = UringDriver;
    const NAME: &'static str = "tight uring";
    const URGENT: bool = false;

    fn make(options: Options) -> Option<UringDriver> {
        UringDriver::tight(options).ok()
    }
}

/// Listeners and peers on the loopback interface, or in a folder of their own.
pub(super) struct Sockets<D> {
    transport: Transport,
    pub(super) folder: PathBuf,
    listeners: usize,
    /// At these addresses nobody listens.
    bound: Vec<Socket>,
    driver: std::marker::PhantomData<D>,
}

impl<D: SocketDriver> Rig for Sockets<D> {
    type Driver = D::Driver;
    type Client = SocketClient;
    type Target = SocketTarget;

    const NAME: &'static str = D::NAME;
    const URGENT: bool = D::URGENT;
    const TRANSPORTS: &'static [Transport] = &[Transport::Tcp, Transport::Unix];

    fn new(transport: Transport, options: Options) -> Option<(Self, D::Driver)> {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let driver = D::make(options)?;
        let number = FOLDERS.fetch_add(1, Relaxed);
        let name = format!("nonforker-{}-{number}", process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a temporary folder can be made");
        let rig = Self {
            transport,
            folder,
            listeners: 0,
            bound: Vec::new(),
            driver: std::marker::PhantomData,
        };
        Some((rig, driver))
    }

    fn address(&mut self) -> Address {
        self.listeners += 1;
        match self.transport {
            Transport::Tcp => Address::Tcp(([127, 0, 0, 1], 0).into()),
            Transport::Unix => Address::Unix(self.folder.join(self.listeners.to_string())),
        }
    }

    fn connect(&mut self, address: &Address) -> io::Result<SocketClient> {
        let (domain, address) = kernel_address(address)?;
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.connect(&address)?;
        if self.transport == Transport::Tcp {
            // Each piece leaves as it is sent.
            socket.set_tcp_nodelay(true)?;
        }
        socket.set_nonblocking(true)?;
        Ok(SocketClient { socket })
    }

    fn target(&mut self, late: bool) -> Option<SocketTarget> {
        // A Unix socket whose backlog is full refuses at once.
        if late && self.transport == Transport::Unix {
            return None;
        }
        let (domain, at) = kernel_address(&self.address()).expect("a short path");
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        socket.bind(&at).expect("the address is free");
        socket.listen(if late { 0 } else { 64 }).expect("it can listen");
        socket.set_nonblocking(true).expect("it need not block");
        let mut target = SocketTarget { socket, before: Vec::new() };
        if late {
            let address = target.socket.local_addr().expect("it is bound");
            for _ in 0..4 {
                let other = Socket::new(domain, Type::STREAM, None).expect("a socket");
                other.set_nonblocking(true).expect("it need not block");
                // It waits in the backlog, or for a place there.
                let _ = other.connect(&address);
                target.before.push(other);
            }
        }
        Some(target)
    }

    fn nowhere(&mut self) -> Address {
        match self.transport {
            // The kernel gives a port to nobody while it is bound.
            Transport::Tcp => {
                let (domain, at) = kernel_address(&self.address()).expect("an address");
                let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
                socket.bind(&at).expect("the address is free");
                let address = socket.local_addr().expect("it is bound").as_socket();
                self.bound.push(socket);
                Address::Tcp(address.expect("it is TCP"))
            }
            Transport::Unix => self.address(),
        }
    }

    fn has_urgent(&self) -> bool {
        let has = self.transport == Transport::Tcp
            || Socket::pair(Domain::UNIX, Type::STREAM, None)
                .is_ok_and(|(socket, _other)| socket.send_out_of_band(b"!").is_ok());
        if !has {
            skip(format_args!("no urgent bytes over {:?} on this system", self.transport));
        }
        has
    }

    fn is_alone() -> bool {
        if std::env::var_os(CHILD).is_some() {
            return true;
        }
        let test = std::thread::current().name().expect("tests have names").to_owned();
        let program = std::env::current_exe().expect("this program is a file");
        let child = Command::new(program).args([&test, "--exact"]).env(CHILD, "").output();
        let child = child.expect("a test can be run by itself");
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{test}: {said}");
        false
    }

    fn without_descriptors(bench: &mut Bench<Self>, body: impl FnOnce(&mut Bench<Self>)) {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
        let lowest = fs::File::open("/dev/null").expect("there are descriptors");
        let limit = u64::try_from(lowest.as_raw_fd()).expect("not negative");
        drop(lowest);
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("a limit can be lowered");
        body(bench);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("it can be raised again");
    }
}

impl<D> Drop for Sockets<D> {
    fn drop(&mut self) {
        // What cannot be removed is in the folder for such things.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn kernel_address(address: &Address) -> io::Result<(Domain, SockAddr)> {
    Ok(match address {
        Address::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        Address::Abstract(name) => (Domain::UNIX, SockAddr::unix(format!("\0{name}"))?),
    })
}

/// A server that is a socket.
pub(super) struct SocketTarget {
    socket: Socket,
    /// Those that fill its backlog.
    before: Vec<Socket>,
}

impl Target for SocketTarget {
    type Client = SocketClient;

    fn address(&self) -> Address {
        address_of(&self.socket).expect("it is bound")
    }

    #[expect(clippy::disallowed_methods, reason = "no server waits for this")]
    fn let_in(&mut self) {
        self.before.clear();
        self.socket.listen(64).expect("its backlog can grow");
        let mut quiet = 0;
        // Those before it come and go within a moment.
        while quiet < 5 {
            quiet = if self.socket.accept().is_ok() { 0 } else { quiet + 1 };
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn accept(&mut self) -> Option<SocketClient> {
        let (socket, _) = self.socket.accept().ok()?;
        socket.set_nonblocking(true).expect("it need not block");
        Some(SocketClient { socket })
    }
}

/// A peer that is a socket.
pub(super) struct SocketClient {
    pub(super) socket: Socket,
}

impl SocketClient {
    /// Sends `bytes`, and a descriptor with them.
    #[cfg(target_os = "linux")]
    pub(super) fn send_descriptor(&mut self, bytes: &[u8]) {
        // As it is in <sys/socket.h>: the length, SOL_SOCKET, SCM_RIGHTS, the descriptor.
        let mut control = (size_of::<usize>() + 3 * size_of::<i32>()).to_ne_bytes().to_vec();
        for number in [1, 1, self.socket.as_raw_fd()] {
            control.extend_from_slice(&number.to_ne_bytes());
        }
        control.resize(control.len().next_multiple_of(size_of::<usize>()), 0);
        let parts = [io::IoSlice::new(bytes)];
        let message = MsgHdr::new().with_buffers(&parts).with_control(&control);
        let sent = self.socket.sendmsg(&message, 0).expect("a descriptor can be passed");
        assert_eq!(sent, bytes.len());
    }
}

impl Client for SocketClient {
    fn send(&mut self, bytes: &[u8]) -> usize {
        #[cfg(not(target_vendor = "apple"))]
        const NO_SIGNAL: i32 = MsgFlags::MSG_NOSIGNAL.bits();
        #[cfg(target_vendor = "apple")]
        const NO_SIGNAL: i32 = 0;
        self.socket.send_with_flags(bytes, NO_SIGNAL).unwrap_or(0)
    }

    fn send_urgent(&mut self, byte: u8) -> bool {
        self.socket.send_out_of_band(&[byte]).is_ok()
    }

    fn receive(&mut self) -> Heard {
        let mut bytes = vec![0; 1 << 16];
        match (&self.socket).read(&mut bytes) {
            Ok(0) => Heard::End,
            Ok(count) => {
                bytes.truncate(count);
                Heard::Bytes(bytes)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Heard::Nothing,
            Err(_) => Heard::Reset,
        }
    }

    fn shutdown_write(&mut self) {
        self.socket.shutdown(Shutdown::Write).expect("the connection is open");
    }

    fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).expect("a socket can linger");
    }

    fn close(self) {}

    fn peer(&self) -> Peer {
        let address = self.socket.local_addr().expect("it is connected");
        address.as_socket().map_or(Peer::Unix, Peer::Tcp)
    }
}

/// A Unix socket's file that nobody answers at any more.
pub(super) fn leave_stale(path: &Path) {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket can be made");
    socket.bind(&SockAddr::unix(path).expect("a short path")).expect("the path is free");
}

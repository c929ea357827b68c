//! How much of what the kernel took for a socket its peer has not acknowledged.
//!
//! No crate asks for it without `unsafe`, and so this file lies where `unsafe` may be, although
//! both real drivers use it. Elsewhere than on Linux and macOS it cannot be known.

use std::os::fd::AsRawFd;

use socket2::Socket;

/// Asks the kernel. `None` if it does not say.
#[expect(unsafe_code, reason = "no crate has a safe name for this request")]
pub(super) fn unacknowledged(socket: &Socket) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    #[cfg(target_os = "linux")]
    // SAFETY: it is the descriptor of a socket, which is borrowed and so is open. For sockets this
    // request stores one `c_int`, and the reference is to one: see tcp(7), unix(7).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    #[cfg(target_vendor = "apple")]
    let result = {
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        let (fd, level, name) = (socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NWRITE);
        let value = (&raw mut bytes).cast();
        // SAFETY: it is the descriptor of a socket, which is borrowed and so is open. `value` points to `length` bytes, and
        // both live until the call returns.
        unsafe { libc::getsockopt(fd, level, name, value, &raw mut length) }
    };
    if result == 0 { usize::try_from(bytes).ok() } else { None }
}

//! The job that all peers in Rust do, apart from their input and output: lines, and what is left.

// Each peer uses what it needs.
#![allow(dead_code, reason = "included by several programs")]

/// The longest line; who sends more is disconnected.
pub const LINE_MAX: usize = 64 * 1024;

/// What is received at a time.
pub const READ_BYTES: usize = 64 * 1024;

/// The port that was asked for.
pub fn address() -> std::net::SocketAddr {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: PORT");
    std::net::SocketAddr::from(([127, 0, 0, 1], port))
}

/// Copies each complete line of `input` to `output`. There is no line end before `from`. Returns how
/// many bytes the lines were.
#[inline]
pub fn echo(input: &[u8], mut from: usize, output: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some(length) = memchr::memchr(b'\n', &input[from..]) {
        from += length + 1;
        output.extend_from_slice(&input[used..from]);
        used = from;
    }
    used
}

/// The beginning of a line that is not complete. It owns memory only while there is one.
#[derive(Debug, Default)]
pub struct Partial(Vec<u8>);

impl Partial {
    /// Takes what has arrived; complete lines go to `output`. Whether the line is not too long.
    #[inline]
    pub fn take(&mut self, input: &[u8], output: &mut Vec<u8>) -> bool {
        if self.0.is_empty() {
            let used = echo(input, 0, output);
            if used < input.len() {
                self.0 = input[used..].to_vec();
            }
        } else {
            let seen = self.0.len();
            self.0.extend_from_slice(input);
            let used = echo(&self.0, seen, output);
            if used == self.0.len() {
                self.0 = Vec::new();
            } else if used > 0 {
                self.0 = self.0[used..].to_vec();
            }
        }
        self.0.len() <= LINE_MAX
    }
}

//! How long a server that echoes takes to answer.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// The 99th percentile of `count` round trips by clients in turn, one every `pause`, in microseconds.
pub(crate) fn p99(address: SocketAddr, clients: usize, count: usize, pause: Duration) -> f64 {
    let connect = || {
        let client = TcpStream::connect(address).expect("it listens");
        client.set_nodelay(true).expect("an option");
        client
    };
    let mut clients: Vec<TcpStream> = (0..clients).map(|_| connect()).collect();
    let round_trip = |nth: usize| {
        thread::sleep(pause);
        let at = nth % clients.len();
        let began = Instant::now();
        clients[at].write_all(b"ping\n").expect("it takes that");
        clients[at].read_exact(&mut [0; 5]).expect("it answers");
        began.elapsed().as_secs_f64() * 1e6
    };
    let mut times: Vec<f64> = (0..count).map(round_trip).collect();
    times.sort_by(f64::total_cmp);
    times[count * 99 / 100]
}

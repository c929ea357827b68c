//! A relay between clients and servers of the script: what each side gets is a beginning of what the
//! other one sent, whatever breaks.

use std::time::Duration;

use nonforker::{
    Relay, Server,
    sim::{Client, Ending, Net, Rng},
};

use super::narrow_for_relays;

/// Where the servers of the script are.
const TARGETS: [&str; 2] = ["10.0.0.1:1", "10.0.0.2:1"];

/// A relay with limits that differ from seed to seed.
pub(super) fn server(rng: &Rng) -> Server {
    let relay = Relay::to(TARGETS[0]).and_then(|relay| relay.or(TARGETS[1]));
    let server = Server::new().limits(narrow_for_relays(rng));
    match relay {
        Ok(relay) => server.relay(super::ADDRESS, relay.retry(Duration::from_secs(rng.below(3)))),
        Err(_) => server,
    }
}

/// The bytes that `of` sends: of no two are they alike for long.
fn bytes(of: usize, count: usize) -> Vec<u8> {
    let mut state = u32::try_from(0x9e37 + of).unwrap_or(u32::MAX);
    let mut next = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(count).collect()
}

/// One end of a relay, and what it sends.
struct End {
    client: Client,
    sends: Vec<u8>,
}

/// Clients come, servers answer, some of them leave; then all that is left has to be what was sent.
pub(super) fn script(net: &Net) {
    let rng = net.rng();
    let listeners = TARGETS.map(|target| net.listen(target));
    let clients: Vec<End> = (0..1 + rng.between(0, 5))
        .map(|of| {
            let sends = [&[of.to_le_bytes()[0]][..], &bytes(of, rng.magnitude(40_000))].concat();
            let client = net.connect();
            client.send(&sends);
            End { client, sends }
        })
        .collect();
    let mut servers: Vec<End> = Vec::new();
    for _ in 0..10 {
        net.wait(Duration::from_millis(rng.below(400)));
        for client in listeners.iter().filter_map(|listener| listener.accepted()) {
            let sends = bytes(100 + servers.len(), 1 + rng.magnitude(40_000));
            client.send(&sends);
            servers.push(End { client, sends });
        }
        let ends = clients.iter().chain(&servers);
        for End { client, .. } in ends {
            match rng.below(40) {
                0 => client.half_close(),
                1 => client.stall(),
                2 => client.read_all(),
                3 if rng.below(4) == 0 => client.reset(),
                _ => {}
            }
        }
        if rng.below(60) == 0 {
            net.drain();
        }
    }
    for End { client, .. } in clients.iter().chain(&servers) {
        client.read_all();
        client.half_close();
    }
    net.wait(Duration::from_secs(60));
    let heard: Vec<(Vec<u8>, Option<Ending>)> =
        servers.iter().map(|end| (end.client.received(), end.client.ending())).collect();
    for (got, _) in &heard {
        let is_of = |client: &&End| got.is_empty() || client.sends.starts_with(got);
        assert!(clients.iter().any(|client| is_of(&client)), "a server got what nobody sent");
    }
    for end in &clients {
        let got = end.client.received();
        let is_of = got.is_empty() || servers.iter().any(|server| server.sends.starts_with(&got));
        assert!(is_of, "a client got what nobody sent: {} bytes", got.len());
    }
}

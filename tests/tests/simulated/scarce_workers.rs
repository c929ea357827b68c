//! Workers while memory is scarce.

use nonforker::{
    Limits, Server, Workers,
    codec::Lines,
    sim::{Client, Net},
};

use crate::crew::{WORKER, quiet, run_on, secs};

/// It holds the most since many clients have asked it, and none of them is to blame.
#[test]
fn a_slow_worker_stays_when_clients_take_the_memory() {
    const LONG: usize = 12_000;
    let server = || {
        let lines = || Lines::with_max(2 * LONG);
        let workers = Workers::at(WORKER, lines()).expect("a target").in_flight(8);
        let limits = Limits::new().memory_budget(Some(200_000)).frame_timeout(None);
        Server::new().limits(limits).workers("127.0.0.1:1", lines(), workers)
    };
    run_on(server, quiet, |net, listener| {
        let worker = listener.accept();
        worker.stall();
        let asking = all_asking(net, 8, &[&[b'a'; LONG][..], b"\n"].concat());
        // Half requests: whose they are hold the most but for the worker, and are in the way.
        let hogs = all_asking(net, 8, &[b'h'; 2 * LONG - 1]);
        net.wait(secs(3));
        let late = net.connect();
        late.send("late\n");
        net.wait(secs(3));
        worker.read_all();
        for _ in 0..=asking.len() {
            let line = worker.receive_until("\n");
            worker.send(line);
        }
        for client in &asking {
            client.expect([&[b'a'; LONG][..], b"\n"].concat());
        }
        late.expect("late\n");
        assert!(hogs.iter().any(|hog| hog.ending().is_some()), "memory was not scarce");
    });
}

fn all_asking(net: &Net, count: usize, request: &[u8]) -> Vec<Client> {
    let clients: Vec<_> = (0..count).map(|_| net.connect()).collect();
    for client in &clients {
        // It takes its reply at once, and so is not in the way.
        client.set_window(1 << 20);
        client.send(request);
    }
    clients
}

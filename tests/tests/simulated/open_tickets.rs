//! What open tickets hold up, and what they take: a drain, memory, and the requests of others.

use std::time::Duration;

use nonforker::{
    Closure, Conn, Gone,
    codec::Lines,
    sim::{Faults, Rng, Simulation},
};

use crate::tickets::{SECOND, later, limited, patient, says, server};

#[test]
fn a_drain_waits_for_answers_up_to_its_deadline() {
    // What a look does not find a drain does not wait for.
    let faults = |rng: &Rng| {
        let Faults { short_read, short_write, fragment, spurious, .. } = Faults::lossless(rng);
        Faults { short_read, short_write, fragment, spurious, ..Faults::none() }
    };
    Simulation::new(server).seeds(0..100).faults(faults).run(|net| {
        let clients = ["defer x\nmore\n", "loose\n", "defer\ndefer\n"].map(|line| says(net, line));
        let later = later();
        net.drain();
        net.wait(2 * SECOND);
        assert!(!net.has_ended());
        for _ in 0..9 {
            if let Some(ticket) = { later.tickets.borrow_mut().pop_front() } {
                ticket.send("answer").expect("it is there");
            }
            net.wait(Duration::from_millis(300));
        }
        clients[0].expect("answer\nx\nmore\n");
        clients[1].expect("answer\n");
        clients[2].expect("answer\nanswer\n");
        clients.iter().for_each(|client| assert_eq!(client.receive_to_end().0, b""));
        net.settle();
        assert_eq!((net.has_ended(), net.cut_off()), (true, 0));
        assert_eq!(later.reasons(), ["the server drained"; 3]);
    });
    let limits = patient().drain_timeout(3 * SECOND);
    Simulation::new(limited(limits)).seeds(0..20).run(|net| {
        let client = says(net, "defer\n");
        net.drain();
        let _ = client.receive_to_end();
        net.settle();
        assert_eq!((net.has_ended(), net.cut_off()), (true, 1), "it was not answered");
        assert_eq!(later().ticket().send("late"), Err(Gone));
    });
}

#[test]
fn what_waits_behind_a_ticket_counts_as_queued() {
    let limits = patient().memory_budget(Some(1 << 20));
    Simulation::new(limited(limits)).seeds(0..20).run(|net| {
        let client = says(net, "defer big\n");
        assert!(net.stats().buffered_bytes >= 100_000);
        let other = says(net, "tell\n");
        later().ticket().send("answer").expect("it is there");
        client.expect("told\nanswer\n");
        client.receive_until("x\n");
        client.send("more\n");
        client.expect("more\n");
        net.settle();
        assert_eq!(net.stats().buffered_bytes, 0);
        drop(other);
    });
}

#[test]
fn while_there_are_no_tickets_those_who_may_need_one_wait_and_nobody_else() {
    let server = || {
        let limits = patient().tickets_max(3);
        let echo = |conn: &mut Conn<'_, Closure<Lines>>, line: &[u8]| conn.send(line);
        server().limits(limits).serve("127.0.0.1:2", Lines::new(), echo)
    };
    Simulation::new(server).faults(Faults::lossless).run(|net| {
        let clients: Vec<_> = (0..6).map(|_| says(net, "defer\nmore\n")).collect();
        let later = later();
        assert_eq!(later.tickets.borrow().len(), 3);
        let echo = net.connect_to(1);
        echo.send("hello\n");
        echo.expect("hello\n");
        let waits = says(net, "no ticket\n");
        assert_eq!(waits.received(), b"");
        for client in &clients[..3] {
            later.ticket().send("answer").expect("it is there");
            client.expect("answer\n");
        }
        net.settle();
        assert_eq!(later.tickets.borrow().len(), 3);
        // That one who waits leaves makes room, too.
        clients[3].reset();
        waits.expect("no\nticket\n");
        while let Some(ticket) = { later.tickets.borrow_mut().pop_front() } {
            let _ = ticket.send("answer");
        }
        clients[..3].iter().for_each(|client| client.expect("more\n"));
        clients[4..].iter().for_each(|client| client.expect("answer\nmore\n"));
    });
}

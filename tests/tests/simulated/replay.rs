//! A run depends on its seed and on nothing else, or the simulation says so.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use nonforker::{
    CloseReason, Closure, Conn, ConnId, Handler, Outcome, Server,
    codec::Lines,
    sim::{Faults, Net, Simulation},
};

use crate::anybody::send_to;

/// Keeps connections in some order.
trait Members: Default + 'static {
    fn put(&mut self, id: ConnId);
    fn take(&mut self, id: ConnId);
    fn each(&self) -> Vec<ConnId>;
}

macro_rules! members {
    ($map:ty) => {
        impl Members for $map {
            fn put(&mut self, id: ConnId) {
                self.insert(id, ());
            }

            fn take(&mut self, id: ConnId) {
                self.remove(&id);
            }

            fn each(&self) -> Vec<ConnId> {
                self.keys().copied().collect()
            }
        }
    };
}

members!(HashMap<ConnId, ()>);
members!(BTreeMap<ConnId, ()>);

/// Says every line to all.
#[derive(Default)]
struct Chat<M>(M);

impl<M: Members> Handler for Chat<M> {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.0.put(conn.id());
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        for id in self.0.each() {
            send_to(conn, id, line)?;
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.0.take(conn.id());
    }
}

/// What a simulation without faults has to say, if it fails.
fn said(server: impl Fn() -> Server + 'static, script: impl Fn(&Net)) -> Option<String> {
    let simulation = Simulation::new(server).faults(|_| Faults::none()).seeds(7..9);
    let panic = catch_unwind(AssertUnwindSafe(|| simulation.run(script))).err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

fn talk(net: &Net) {
    let clients: Vec<_> = (0..10).map(|_| net.connect()).collect();
    net.settle();
    clients[0].send("hello\n");
    clients.iter().for_each(|client| client.expect("hello\n"));
}

fn chat<M: Members>() -> Server {
    Server::new().serve_with("127.0.0.1:1", Lines::new(), Chat::<M>::default())
}

#[test]
fn a_handler_that_goes_through_a_hash_map_is_found_at_once() {
    assert_eq!(said(chat::<BTreeMap<ConnId, ()>>, talk), None);
    let said = said(chat::<HashMap<ConnId, ()>>, talk).expect("orders differ");
    assert!(said.contains("the order of a HashMap"), "{said}");
    let (first, again) = said.split_once("\n  again: ").expect("two runs");
    let (_, first) = first.split_once("\n  first: ").expect("two runs");
    assert_ne!(first, again);
    assert!(again.contains("server sends 6 bytes"), "{said}");
}

#[test]
fn what_a_run_leaves_to_the_next_is_found() {
    let runs = Rc::new(Cell::new(0));
    let counter = Rc::clone(&runs);
    let counts = move || {
        let run = counter.replace(counter.get() + 1);
        let reply = move |conn: &mut Conn<'_, Closure<Lines>>, _: &[u8]| conn.send(run.to_string());
        Server::new().serve("127.0.0.1:1", Lines::new(), reply)
    };
    // As many bytes, and other ones.
    let found = said(counts.clone(), |net| {
        let client = net.connect();
        client.send("which run?\n");
        net.settle();
    });
    let found = found.expect("replies differ");
    assert_eq!(found.matches("client 0     server sends 2 bytes").count(), 2, "{found}");

    runs.set(0);
    let found = said(counts, |_| {
        if runs.get() == 3 {
            // Unlike `panic!` it does not fill the output of the test.
            resume_unwind(Box::new("too often"));
        }
    });
    let found = found.expect("the third run fails");
    assert!(found.ends_with("first: no failure\n  again: too often"), "{found}");
    assert!(found.contains("what one run leaves outside"), "{found}");
}

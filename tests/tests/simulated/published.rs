//! A callback publishes a message and then panics, or takes a ticket; a handler hears that its connection
//! has missed a message.

use nonforker::{
    Limits,
    sim::{Ending, Faults, Simulation},
};

use crate::topics::{board, numbers, publish, quiet, says, server};

#[test]
fn what_a_callback_published_to_itself_is_taken_back_if_it_panics() {
    for text in ["short".to_owned(), "long".repeat(1000)] {
        quiet().run(|net| {
            let (one, two) = (says(net, "oldest:news"), says(net, "oldest:news"));
            one.send(format!("a publish:news={text}\nb publish:news={text} c panic\n"));
            let (received, ending) = one.receive_to_end();
            assert_eq!(received, format!("a\n{text}\n").into_bytes(), "whole callbacks");
            assert_eq!(ending, Some(Ending::Finished));
            two.expect(format!("{text}\n{text}\n"));
        });
    }
}

#[test]
fn what_is_published_waits_for_no_ticket() {
    quiet().run(|net| {
        let (one, two) = (says(net, "close:news"), says(net, "close:news"));
        one.send("before defer behind publish:news=own\n");
        one.expect("before\nown\n");
        two.send("publish:news=hello\n");
        one.expect("hello\n");
        let ticket = board().ticket.take().expect("it was taken");
        ticket.send("answer").expect("it is there");
        one.expect("answer\nbehind\n");
    });
}

#[test]
fn one_that_misses_a_message_is_told_however_little_is_queued() {
    // A message does not fit, although what is queued is no pressure by itself.
    let limits = Limits::new().high_watermark(20_000).low_watermark(10_000).output_cap(0);
    let simulation = Simulation::new(move || server().limits(limits.clone().write_timeout(None)));
    simulation.faults(|_| Faults::none()).seeds(0..20).run(|net| {
        for how in ["oldest:news", "newest:news"] {
            let deaf = says(net, how);
            deaf.set_window(10);
            deaf.stall();
            let publisher = says(net, "x");
            for number in 0..3 {
                publish(&publisher, number, 15_000);
            }
            net.settle();
            assert!(board().relieved.take().is_empty(), "{how}: it takes nothing");
            deaf.read_all();
            net.settle();
            assert_eq!(numbers(&deaf.received(), 15_000), [0], "{how}");
            assert_eq!(board().relieved.take(), [2], "{how}: its handler is told");
            deaf.reset();
        }
    });
}

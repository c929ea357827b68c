//! What is published, and what else a callback does: a panic, and a ticket.

use nonforker::sim::Ending;

use crate::topics::{board, quiet, says};

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

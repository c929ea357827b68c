//! Requests are answered later: in order, once, within bounds, and by nobody who is not asked.

use std::{cell::RefCell, collections::VecDeque, panic::resume_unwind, rc::Rc, time::Duration};

use nonforker::{
    CloseReason, Conn, Gone, Handler, Limits, Outcome, Server, ServiceLimits, Ticket,
    codec::Lines,
    sim::{Client, Faults, Net, Simulation},
};

const ADDRESS: &str = "127.0.0.1:1685";
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) type Tickets = Rc<RefCell<VecDeque<Ticket<Later>>>>;
type Reasons = Rc<RefCell<Vec<String>>>;

/// Does what a line says, and gives its tickets to the script.
#[derive(Clone, Default)]
pub(super) struct Later {
    pub(super) tickets: Tickets,
    reasons: Reasons,
}

impl Later {
    fn defer(&self, conn: &mut Conn<'_, Self>) {
        let ticket = conn.defer();
        self.tickets.borrow_mut().push_back(ticket);
    }

    /// The ticket that was taken first, of those that are left.
    pub(super) fn ticket(&self) -> Ticket<Self> {
        self.tickets.borrow_mut().pop_front().expect("a ticket was taken")
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        self.reasons.take()
    }
}

impl Handler for Later {
    type Codec = Lines;
    /// Whether it says `bye` at the end.
    type Session = bool;

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        for word in std::str::from_utf8(line)?.split(' ') {
            match word {
                "defer" => self.defer(conn),
                "loose" => {
                    let ticket = conn.defer_unordered();
                    self.tickets.borrow_mut().push_back(ticket);
                }
                "drop" => drop(conn.defer()),
                "polite" => *conn.session_mut() = true,
                "close" => conn.close(),
                "abort" => conn.abort(),
                "finish" => conn.finish(),
                "fail" => return Err("a failure".into()),
                "tell" => conn.others().for_each(|other| other.send("told")),
                "big" => conn.send(vec![b'x'; 100_000]),
                "soon" => {
                    conn.after(SECOND, |_, conn| conn.send("timer"))?;
                }
                word => conn.send(word),
            }
        }
        Ok(())
    }

    fn half_closed(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        if *conn.session() {
            conn.send("bye");
        }
        conn.close();
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        assert_eq!(conn.defer().send("too late"), Err(Gone));
        self.reasons.borrow_mut().push(reason.to_string());
    }
}

thread_local! {
    static LATER: RefCell<Later> = RefCell::default();
}

/// The handler of the server that this thread has made last.
pub(super) fn later() -> Later {
    LATER.with_borrow(Clone::clone)
}

/// The clock of a simulation may jump by a minute, so nothing is too late here.
pub(super) fn server() -> Server {
    let later = Later::default();
    LATER.replace(later.clone());
    Server::new().limits(patient()).serve_with(ADDRESS, Lines::new(), later)
}

pub(super) fn patient() -> Limits {
    Limits::new().answer_timeout(None)
}

pub(super) fn limited(limits: Limits) -> impl Fn() -> Server {
    move || server().limits(limits.clone())
}

/// A client that says this, when all of it is handled that can be.
pub(super) fn says(net: &Net, line: &str) -> Client {
    let client = net.connect();
    client.set_window(1 << 20);
    client.send(line);
    net.settle();
    client
}

#[test]
fn answers_leave_in_the_order_in_which_tickets_were_taken() {
    Simulation::new(server).run(|net| {
        let client = says(net, "a defer b defer c defer d\ne\n");
        let later = later();
        let mut tickets: Vec<_> = later.tickets.take().into();
        while !tickets.is_empty() {
            let index = net.rng().between(0, tickets.len() - 1);
            let number = 3 - tickets.len();
            tickets
                .remove(index)
                .then(move |_, conn| conn.send(format!("{number}")))
                .expect("it is there");
            net.settle();
        }
        client.expect_end_of_turns();
    });
}

trait Ends {
    fn expect_end_of_turns(&self);
}

impl Ends for Client {
    /// Whatever order the tickets were answered in, what lies between them lies between them.
    fn expect_end_of_turns(&self) {
        let received = String::from_utf8(self.received()).expect("it is text");
        let words: Vec<&str> = received.split_whitespace().collect();
        let letters: Vec<&str> =
            words.iter().copied().filter(|word| word.parse::<u8>().is_err()).collect();
        assert_eq!(letters, ["a", "b", "c", "d", "e"]);
        let places: Vec<usize> =
            (0..words.len()).filter(|&index| words[index].parse::<u8>().is_ok()).collect();
        assert_eq!(places, [1, 3, 5], "{received}");
    }
}

#[test]
fn one_connection_waits_and_no_other_does() {
    Simulation::new(server).faults(Faults::lossless).run(|net| {
        let slow = says(net, "defer\nmore\nand more\n");
        let quick = says(net, "hello tell\n");
        quick.expect("hello\n");
        // What others push does not wait.
        slow.expect("told\n");
        net.wait(30 * SECOND);
        assert_eq!(slow.received(), b"");
        assert_eq!((net.stats().tickets, net.stats().open_tickets), (1, 1));
        later().ticket().send("answer").expect("it is there");
        slow.expect("answer\nmore\nand\nmore\n");
        assert_eq!(net.stats().open_tickets, 0);
    });
}

#[test]
fn an_answer_may_be_several_replies_or_none_and_may_take_a_ticket_itself() {
    Simulation::new(server).seeds(0..50).run(|net| {
        let client = says(net, "defer one defer two\nthree\n");
        let later = later();
        let (first, second) = (later.ticket(), later.ticket());
        first
            .then(|later, conn| {
                conn.send("begun");
                later.defer(conn);
                conn.send("behind it");
            })
            .expect("it is there");
        net.settle();
        client.expect("begun\n");
        assert_eq!(client.received(), b"");
        later.ticket().send("ended").expect("it is there");
        client.expect("ended\nbehind it\none\n");
        second.then(|_, _| {}).expect("it is there");
        client.expect("two\nthree\n");
    });
}

#[test]
fn answers_without_an_order_leave_as_they_come() {
    Simulation::new(server).seeds(0..50).run(|net| {
        let client = says(net, "loose\nloose\nhello\ndefer\n");
        client.expect("hello\n");
        let later = later();
        let (one, two, three) = (later.ticket(), later.ticket(), later.ticket());
        two.send("two").expect("it is there");
        client.expect("two\n");
        one.then(|later, conn| {
            conn.send("one");
            later.defer(conn);
            conn.send("behind it");
        })
        .expect("it is there");
        client.expect("one\n");
        later.ticket().send("four").expect("it is there");
        net.settle();
        client.half_close();
        three.send("three").expect("it is there");
        client.expect("three\nfour\nbehind it\n");
        client.expect_end();
    });
}

#[test]
fn only_so_many_answers_without_an_order_are_waited_for() {
    Simulation::new(server).seeds(0..10).run(|net| {
        let client = says(net, &"loose\n".repeat(140));
        let later = later();
        assert_eq!(later.tickets.borrow().len(), 128);
        later.ticket().send("one").expect("it is there");
        client.expect("one\n");
        net.settle();
        assert_eq!(later.tickets.borrow().len(), 128, "one more was handled");
        while let Some(ticket) = { later.tickets.borrow_mut().pop_front() } {
            ticket.send("more").expect("it is there");
            net.settle();
        }
        client.expect("more\n".repeat(139));
    });
}

#[test]
fn a_ticket_that_is_dropped_ends_its_connection_and_no_other() {
    Simulation::new(server).seeds(0..50).run(|net| {
        let other = says(net, "defer\n");
        let later = later();
        let ticket = later.ticket();
        let (one, two) = (says(net, "sent drop held\nnever\n"), says(net, "defer defer\n"));
        one.expect("sent\n");
        one.expect_end();
        let kept = later.ticket();
        drop(later.ticket());
        two.expect_end();
        net.settle();
        assert_eq!(later.reasons(), ["a ticket was dropped and not answered"; 2]);
        assert!(kept.is_gone());
        assert_eq!(kept.send("late"), Err(Gone));
        ticket.send("answer").expect("it is there");
        other.expect("answer\n");
    });
}

#[test]
fn an_answer_comes_in_time_or_the_connection_ends() {
    let limits = Limits::new().answer_timeout(Some(5 * SECOND));
    let faults = |_: &_| Faults::none();
    Simulation::new(limited(limits)).seeds(0..50).faults(faults).run(|net| {
        let began = net.now();
        let (late, ordered) = (says(net, "defer\n"), says(net, "loose soon defer\n"));
        let later = later();
        let (first, loose, second) = (later.ticket(), later.ticket(), later.ticket());
        net.wait(4 * SECOND);
        second.send("in time").expect("it is there");
        ordered.expect("in time\ntimer\n");
        late.expect_end();
        ordered.expect_end();
        let took = net.now() - began;
        assert!((5 * SECOND..6 * SECOND).contains(&took), "{took:?}");
        assert_eq!(later.reasons(), ["a request was not answered in time"; 2]);
        assert_eq!((first.send("late"), loose.send("late")), (Err(Gone), Err(Gone)));
    });
}

#[test]
fn a_service_may_wait_longer_for_answers_and_the_limit_may_change() {
    let server = || server().service_limits(ServiceLimits::new().answer_timeout(None));
    Simulation::new(server).seeds(0..5).run(|net| {
        let client = says(net, "defer\n");
        net.wait(3600 * SECOND);
        later().ticket().send("at last").expect("it is there");
        client.expect("at last\n");
    });
    Simulation::new(super::tickets::server).seeds(0..5).faults(|_| Faults::none()).run(|net| {
        let client = says(net, "defer\n");
        net.set_limits(Limits::new().answer_timeout(Some(SECOND))).expect("they are good");
        let began = net.now();
        client.expect_end();
        assert!(net.now() - began < 2 * SECOND);
        drop(later());
    });
}

#[test]
fn what_ends_a_connection_in_order_comes_behind_the_answers() {
    Simulation::new(server).seeds(0..50).run(|net| {
        for (line, half_closes, reason) in [
            ("defer x close lost\nnever\n", false, "closed by the handler"),
            ("loose close\nnever\n", false, "closed by the handler"),
            ("defer x\n", true, "the peer has finished"),
            ("loose\n", true, "the peer has finished"),
            ("polite loose\n", true, "the peer has finished"),
            ("defer finish lost\n", true, "the peer has finished"),
        ] {
            let client = says(net, line);
            if half_closes {
                client.half_close();
            }
            net.wait(SECOND);
            assert_eq!(client.received(), b"", "{line}");
            later().ticket().send("answer").expect("it is there");
            client.expect(match line {
                "polite loose\n" => "answer\nbye\n",
                line if line.contains('x') => "answer\nx\n",
                _ => "answer\n",
            });
            client.expect_end();
            net.settle();
            assert_eq!(later().reasons(), [reason], "{line}");
        }
    });
}

#[test]
fn an_answer_may_close_the_connection_behind_what_was_sent() {
    Simulation::new(server).seeds(0..50).run(|net| {
        let client = says(net, "defer behind\nnever\n");
        later()
            .ticket()
            .then(|_, conn| {
                conn.send("bye");
                conn.close();
                conn.send("lost");
            })
            .expect("it is there");
        client.expect("bye\nbehind\n");
        client.expect_end();
        let client = says(net, "defer one defer two\n");
        let (first, second) = (later().ticket(), later().ticket());
        first
            .then(|_, conn| {
                conn.send("bye");
                conn.close();
                conn.send("lost");
            })
            .expect("it is there");
        client.expect("bye\none\n");
        second.send("answer").expect("it is there");
        client.expect("answer\ntwo\n");
        client.expect_end();
    });
}

#[test]
fn what_breaks_off_a_connection_does_not_wait() {
    Simulation::new(server).seeds(0..50).run(|net| {
        for line in ["defer abort\n", "sent defer held fail\n"] {
            let client = says(net, line);
            net.settle();
            assert_eq!(
                client.received(),
                if line.starts_with("sent") { &b"sent\n"[..] } else { b"" }
            );
            assert_eq!(later().ticket().send("late"), Err(Gone), "{line}");
        }
        let client = says(net, "defer\n");
        client.reset();
        net.settle();
        net.wait(61 * SECOND);
        assert_eq!(later().ticket().send("late"), Err(Gone), "the client has left");
    });
}

#[test]
fn an_answer_that_fails_ends_that_connection() {
    Simulation::new(server).seeds(0..50).run(|net| {
        let (one, two) = (says(net, "defer\n"), says(net, "defer\n"));
        let later = later();
        later
            .ticket()
            .then(|_, conn| {
                conn.send("half");
                resume_unwind(Box::new("no noise"));
                #[expect(unreachable_code, reason = "a closure returns something")]
                ()
            })
            .expect("it is there");
        one.expect_end();
        later.ticket().then(|_, _| -> Outcome { Err("a failure".into()) }).expect("it is there");
        two.expect_end();
        assert_eq!((one.received(), two.received()), (Vec::new(), Vec::new()));
        assert_eq!(net.stats().panics, 1);
    });
}

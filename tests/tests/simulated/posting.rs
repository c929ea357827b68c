//! What a script posts in place of other threads reaches the handler, in order and within bounds.

use std::{panic::resume_unwind, thread, time::Duration};

use nonforker::{
    Closure, Conn, Handler, Limits, NoSuchService, Outcome, PostError, Server,
    codec::Lines,
    sim::{Faults, Simulation},
};

const ADDRESS: &str = "127.0.0.1:1685";

/// Counts what is posted.
#[derive(Default)]
struct Counts(u64);

impl Handler for Counts {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
        conn.send(self.0.to_string());
        Ok(())
    }
}

fn panic_silently() {
    resume_unwind(Box::new("no noise"))
}

fn server() -> Server {
    Server::new().serve_with(ADDRESS, Lines::new(), Counts::default())
}

#[test]
fn what_is_posted_is_called_in_order_and_before_what_comes_later() {
    Simulation::new(server).faults(Faults::lossless).run(|net| {
        let client = net.connect();
        net.settle();
        // Several turns of them.
        let count = net.rng().between(1, 5000);
        for number in 0..count as u64 {
            net.post::<Counts>(move |counts, all| {
                assert_eq!(counts.0, number);
                counts.0 += 1;
                if number.is_multiple_of(1000) {
                    all.for_each(|other| other.send(number.to_string()));
                }
            })
            .expect("there is room");
        }
        for number in (0..count).step_by(1000) {
            client.expect(format!("{number}\n"));
        }
        net.settle();
        client.send("how many?\n");
        client.expect(format!("{count}\n"));
    });
}

#[test]
fn only_so_many_may_wait_and_the_closure_comes_back() {
    let server = || server().limits(Limits::new().remote_max(3));
    Simulation::new(server).seeds(0..10).run(|net| {
        let remote = net.remote::<Counts>().expect("it is the only one");
        let client = net.connect();
        net.settle();
        for _ in 0..3 {
            assert_eq!(remote.post(|counts, _| counts.0 += 1), Ok(()));
        }
        assert_eq!(net.post::<Counts>(|_, _| {}), Err(PostError::Full));
        let refused = remote.try_post(|counts, _| counts.0 += 10).expect_err("it is full");
        assert_eq!(refused.1, PostError::Full);
        net.settle();
        assert_eq!(remote.try_post(refused.0).map_err(|(_, error)| error), Ok(()));
        net.settle();
        client.send("how many?\n");
        client.expect("13\n");
        net.set_limits(Limits::new().remote_max(1)).expect("it may be another one");
        net.settle();
        assert_eq!(remote.post(|counts, _| counts.0 += 1), Ok(()));
        assert_eq!(remote.post(|counts, _| counts.0 += 1), Err(PostError::Full));
    });
}

#[test]
fn a_panic_or_an_error_in_what_was_posted_ends_nobody() {
    Simulation::new(server).seeds(0..20).run(|net| {
        let client = net.connect();
        net.settle();
        let remote = net.remote::<Counts>().expect("it is the only one");
        remote.post(|_, _| panic_silently()).expect("there is room");
        remote.post(|_, _| -> Outcome { Err("a failure".into()) }).expect("there is room");
        remote.post(|counts, _| counts.0 += 1).expect("there is room");
        client.send("how many?\n");
        net.settle();
        assert_eq!((net.stats().panics, net.stats().closed), (1, 0));
        client.send("how many?\n");
        net.settle();
        assert!(client.received().ends_with(b"1\n"));
    });
}

#[test]
fn clients_whose_replies_fill_every_turn_do_not_keep_mail_waiting() {
    let server = || {
        let flood = |conn: &mut Conn<'_, Closure<Lines>>, _: &[u8]| conn.send(vec![b'x'; 70_000]);
        // A line of each client in a turn.
        server().limits(Limits::new().read_per_turn(5)).serve("127.0.0.1:2", Lines::new(), flood)
    };
    Simulation::new(server).seeds(0..2).faults(|_| Faults::none()).run(|net| {
        let reader = net.connect();
        net.settle();
        for _ in 0..3 {
            let client = net.connect_to(1);
            client.set_window(1 << 24);
            client.send("more\n".repeat(40));
        }
        // Replies fill every turn now.
        net.wait(Duration::from_micros(10));
        net.post::<Counts>(|_, all| all.for_each(|other| other.send("posted")))
            .expect("there is room");
        reader.expect("posted\n");
        let frames = net.stats().frames;
        assert!((5..60).contains(&frames), "{frames} of 120 requests were handled before");
    });
}

#[test]
fn a_reply_for_one_reaches_that_one_or_nobody() {
    Simulation::new(server).seeds(0..20).run(|net| {
        let (one, two) = (net.connect(), net.connect());
        net.settle();
        let remote = net.remote::<Counts>().expect("it is the only one");
        let again = remote.clone();
        net.post::<Counts>(move |_, all| {
            for (number, id) in all.ids().into_iter().enumerate() {
                again.send(id, format!("number {number}")).expect("there is room");
            }
        })
        .expect("there is room");
        one.expect("number ");
        two.expect("number ");
        let again = remote.clone();
        net.post::<Counts>(move |_, all| {
            let ids = all.ids();
            all.for_each(|other| other.abort());
            ids.into_iter().for_each(|id| again.send(id, "late").expect("there is room"));
        })
        .expect("there is room");
        net.settle();
        assert!(!one.received().ends_with(b"late\n"));
        net.stop();
        net.settle();
        assert!(net.has_ended());
    });
}

#[test]
fn a_remote_is_found_as_a_service_is() {
    let server = || {
        let echo = |conn: &mut Conn<'_, Closure<Lines>>, line: &[u8]| conn.send(line);
        server().serve("127.0.0.1:2", Lines::new(), echo).serve("127.0.0.1:3", Lines::new(), echo)
    };
    Simulation::new(server).seeds(0..1).run(|net| {
        type Lined = Closure<Lines>;
        assert!(net.remote::<Counts>().is_ok());
        assert_eq!(net.remote::<Lined>().err(), Some(NoSuchService::Ambiguous));
        assert_eq!(
            net.remote::<Closure<nonforker::codec::Raw>>().err(),
            Some(NoSuchService::Unknown)
        );
    });
}

#[test]
fn mail_from_a_thread_of_the_system_is_refused_with_words() {
    Simulation::new(server).seeds(0..1).run(|net| {
        let remote = net.remote::<Counts>().expect("it is the only one");
        let ran = thread::spawn(move || remote.post(|_, _| {})).join();
        let payload = ran.expect_err("a thread is not in the seed");
        let said = payload.downcast_ref::<&str>().copied().map(str::to_owned);
        let said = said.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        assert!(said.contains("mail from another thread"), "{said}");
    });
}

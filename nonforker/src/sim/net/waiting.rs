//! How a script waits: for a time, for something to come, or until nothing goes on.

use std::time::Duration;

use super::{Net, TURNS_MAX};
use crate::driver::sim::{events::Event, world::World};

/// How long a script waits for something, in virtual time, before it says that it never comes.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

impl Net {
    /// Lets `duration` of virtual time pass.
    pub fn wait(&self, duration: Duration) {
        let until = self.now().saturating_add(duration);
        self.world().schedule(until, Event::Alarm);
        while self.now() < until {
            self.turn();
        }
    }

    /// Lets everything happen that is under way, until the next thing to happen is a timer that a
    /// handler has set, the end of a client that says nothing, or nothing: at most for a day.
    ///
    /// So a handler that sets its timer again and again does not keep it, and one that waits for its
    /// timer to answer has not answered yet; and silent clients stay, whatever
    /// [`Limits::unused_timeout`](crate::Limits::unused_timeout) and
    /// [`Limits::idle_timeout`](crate::Limits::idle_timeout) are: [`wait`](Self::wait) for that. Other
    /// deadlines of peers do happen if they come before, and so do reads of slow clients.
    ///
    /// # Examples
    ///
    /// A server with a regular timer is at rest between two calls of it:
    ///
    /// ```
    /// use std::time::Duration;
    /// use nonforker::{Conn, Handler, Outcome, Server, codec::Lines, sim::Simulation};
    ///
    /// struct Ticks;
    ///
    /// impl Handler for Ticks {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///
    ///     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
    ///         conn.send(line);
    ///         self.timer(conn)
    ///     }
    /// }
    ///
    /// impl Ticks {
    ///     fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
    ///         conn.after(Duration::from_secs(1), Self::timer)?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let server = || Server::new().serve_with("127.0.0.1:1685", Lines::new(), Ticks);
    /// Simulation::new(server).run(|net| {
    ///     let client = net.connect();
    ///     client.set_window(100);
    ///     client.send("hello\n");
    ///     net.settle();
    ///     assert_eq!(client.received(), b"hello\n");
    /// });
    /// ```
    pub fn settle(&self) {
        let until = self.now().saturating_add(PATIENCE);
        for _ in 0..TURNS_MAX {
            if self.is_settled() || self.now() >= until || !self.turn() {
                return;
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.world().is_quiet() && self.0.engines.iter().all(|engine| engine.borrow().rests())
    }

    /// Goes on until `reached`. Returns whether it was.
    pub(in crate::sim) fn until(&self, mut reached: impl FnMut(&World) -> bool) -> bool {
        let began = self.now();
        let patience = began.saturating_add(PATIENCE);
        self.0.restless.set(None);
        for _ in 0..self.0.turns_max.get() {
            if reached(&self.world()) {
                return true;
            }
            if self.world().is_asleep() || self.now() > patience || !self.turn() {
                return reached(&self.world());
            }
        }
        self.0.restless.set(Some(self.now() - began));
        false
    }

    /// Why the script has waited in vain.
    pub(in crate::sim) fn why_in_vain(&self) -> String {
        let (restless, turns) = (self.0.restless.get(), self.0.turns_max.get());
        match restless {
            Some(time) => format!("the server had {turns} turns within {time:.0?} and no rest"),
            None if self.has_ended() => "the server has ended".to_owned(),
            None if self.world().is_asleep() => {
                "the server waits for somebody, nothing is under way".to_owned()
            }
            None => "a day has passed".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{panic::catch_unwind, time::Duration};

    use crate::{Conn, Handler, Limits, Outcome, Server, codec::Lines, sim::Simulation};

    /// Its timer comes again and again, so often.
    struct Ticks(Duration);

    impl Handler for Ticks {
        type Codec = Lines;
        type Session = ();

        fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
            self.timer(conn)
        }

        fn frame(&mut self, conn: &mut Conn<'_, Self>, _line: &[u8]) -> Outcome {
            conn.close();
            Ok(())
        }
    }

    impl Ticks {
        fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
            conn.after(self.0, Self::timer)?;
            Ok(())
        }
    }

    #[test]
    fn it_is_said_why_something_was_waited_for_in_vain() {
        let (often, seldom) = (Duration::from_millis(1), Duration::from_secs(3600));
        for (every, turns_max, sent, expected) in [
            (often, 20_000, "", "and no rest)"),
            (seldom, 20_000, "", "a day has passed)"),
            (seldom, 20_000, "close\n", "the server has finished)"),
        ] {
            let ran = catch_unwind(|| {
                let server = move || {
                    let limits = Limits::new().unused_timeout(None);
                    Server::new().limits(limits).serve_with(
                        "127.0.0.1:1",
                        Lines::new(),
                        Ticks(every),
                    )
                };
                Simulation::new(server).seeds(1..2).run(|net| {
                    net.0.turns_max.set(turns_max);
                    let client = net.connect();
                    client.send(sent);
                    client.expect("never\n");
                });
            });
            let panic = ran.expect_err("it never comes");
            let said = panic.downcast_ref::<String>().map_or("", String::as_str);
            assert!(said.ends_with(expected), "{said} {expected}");
        }
    }
}

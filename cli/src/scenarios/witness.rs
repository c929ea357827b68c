//! A handler that checks its callbacks: each comes once, in order, and none after `closed`.

use std::{collections::BTreeMap, panic::resume_unwind, rc::Rc, thread, time::Duration};

use nonforker::{CloseReason, Conn, ConnId, Handler, Outcome, Urgent, codec::Lines};

/// The last callback that a handler got for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Open,
    End,
    Closed,
}

/// Does something else for each length of a line, and checks the order of its callbacks.
#[derive(Default)]
pub(super) struct Witness {
    told: BTreeMap<ConnId, Told>,
    /// Every session holds one.
    live: Rc<()>,
    wrong: Option<String>,
}

impl Witness {
    /// Notes that `id` is `now`, after it was one of `before`.
    fn hears(&mut self, what: &str, id: ConnId, before: &[Option<Told>], now: Option<Told>) {
        let was = self.told.get(&id).copied();
        if !before.contains(&was) {
            let wrong = || format!("{what} was called for a connection that is {was:?}");
            self.wrong.get_or_insert_with(wrong);
        }
        if let Some(now) = now {
            self.told.insert(id, now);
        }
    }
}

const OPEN: Option<Told> = Some(Told::Open);
const END: Option<Told> = Some(Told::End);

impl Witness {
    fn urgent(&mut self, conn: &mut Conn<'_, Self>, _byte: u8) -> Outcome {
        self.hears("urgent", conn.id(), &[OPEN, END], None);
        Ok(())
    }
}

impl Handler for Witness {
    type Codec = Lines;
    type Session = Option<Rc<()>>;
    const URGENT: Option<Urgent<Self>> = Some(Self::urgent);

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.hears("open", conn.id(), &[None], OPEN);
        *conn.session_mut() = Some(Rc::clone(&self.live));
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        self.hears("frame", conn.id(), &[OPEN], None);
        match line.len() % 40 {
            7 => resume_unwind(Box::new("a panic without the noise")),
            11 => return Err("a failure".into()),
            13 => conn.close(),
            17 => conn.abort(),
            19 => {
                conn.pause();
                conn.after(Duration::from_millis(5), Self::timer)?;
            }
            _ => conn.send(line),
        }
        Ok(())
    }

    fn relieved(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.hears("relieved", conn.id(), &[OPEN, END], None);
        Ok(())
    }

    fn half_closed(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.hears("half_closed", conn.id(), &[OPEN], END);
        conn.after(Duration::from_millis(5), Self::timer)?;
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.hears("closed", conn.id(), &[OPEN, END], Some(Told::Closed));
    }
}

impl Witness {
    fn timer(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.hears("timer", conn.id(), &[OPEN, END], None);
        match self.told.get(&conn.id()) {
            Some(Told::End) => conn.close(),
            _ => conn.resume(),
        }
        Ok(())
    }
}

/// The server is gone: now `closed` must have been called for each connection.
impl Drop for Witness {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        assert_eq!(self.wrong, None);
        let open = self.told.values().filter(|told| **told != Told::Closed).count();
        assert_eq!(open, 0, "connections of which the handler never heard that they closed");
        assert_eq!(Rc::strong_count(&self.live), 1, "sessions are left");
    }
}

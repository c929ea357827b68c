//! A handler that echoes, obeys a few commands, and tells the test what it was called with.

use std::{
    io::Write,
    sync::mpsc::{Receiver, Sender, channel},
    thread::sleep,
    time::Duration,
};

use nonforker::{
    CloseReason, Conn, ConnId, Handler, NotConnected, Outcome, TimerId, Urgent,
    codec::{Encode, FrameError, Lines},
};

/// What it remembers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Session {
    index: usize,
    /// It goes on after the peer has finished.
    stays: bool,
    timer: Option<TimerId>,
}

type Peer<'a, 'c> = &'a mut Conn<'c, Probe>;

/// See the [module](self). Connections are called by the order in which they came.
///
/// | line | reply |
/// |---|---|
/// | `close` | `bye`, then it closes |
/// | `abort` | a reset |
/// | `fail` | `sorry`, then an error |
/// | `panic` | none: `lost` is taken back |
/// | `big N` | N bytes in one line |
/// | `pause`, `resume K` | `paused`, `resumed` |
/// | `to K TEXT` | `ok` and K gets TEXT, or `not connected` |
/// | `push K N BYTES` | `ok` and K gets N lines |
/// | `timer MS`, `untimer` | `ok`, later `timer` |
/// | `stay` | `ok`, and `more`, `and more` after the peer has finished |
/// | `sleep MS` | `slept` |
/// | anything else | the same |
pub(crate) struct Probe {
    tell: Sender<String>,
    ids: Vec<ConnId>,
}

impl Probe {
    /// A probe, and what it will tell.
    pub(crate) fn new() -> (Self, Receiver<String>) {
        let (tell, told) = channel();
        (Self { tell, ids: Vec::new() }, told)
    }

    fn tell(&self, what: String) {
        // A test that has heard enough does not listen any more.
        let _ = self.tell.send(what);
    }

    fn obey(&mut self, conn: Peer<'_, '_>, command: &str, rest: &str) -> Outcome {
        let (first, last) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = || first.parse::<usize>().map_err(|_| format!("not a number: {first}"));
        let milliseconds = || Ok::<_, String>(Duration::from_millis(number()? as u64));
        match command {
            "close" => {
                conn.send("bye");
                conn.close();
            }
            "abort" => conn.abort(),
            "fail" => {
                conn.send("sorry");
                return Err("told to".into());
            }
            "panic" => {
                conn.send("lost");
                panic!("told to");
            }
            "big" => conn.send(vec![b'x'; number()?]),
            "pause" => {
                conn.send("paused");
                conn.pause();
            }
            "resume" => {
                conn.others().get(self.ids[number()?])?.resume();
                conn.send("resumed");
            }
            "to" => match send_to(conn, self.ids[number()?], last) {
                Ok(()) => conn.send("ok"),
                Err(error) => conn.send(error.to_string()),
            },
            "push" => {
                let (count, bytes) = last.split_once(' ').ok_or("push K N BYTES")?;
                let line = vec![b'p'; bytes.parse()?];
                for _ in 0..count.parse()? {
                    // It may close in the middle, which is what some tests want.
                    let _ = send_to(conn, self.ids[number()?], &line);
                }
                conn.send("ok");
            }
            "timer" => {
                if let Some(former) = conn.session_mut().timer.take() {
                    conn.cancel(former);
                }
                let timer = conn.after(milliseconds()?, Self::timer)?;
                conn.session_mut().timer = Some(timer);
                conn.send("ok");
            }
            "untimer" => {
                let timer = conn.session_mut().timer.take().ok_or("there is no timer")?;
                conn.cancel(timer);
                conn.send("ok");
            }
            "stay" => {
                conn.session_mut().stays = true;
                conn.send("ok");
            }
            "sleep" => {
                sleep(milliseconds()?);
                conn.send("slept");
            }
            _ => unreachable!("commands are listed in frame"),
        }
        Ok(())
    }
}

/// Sends to any connection, the calling one included.
pub(crate) fn send_to<H: Handler, R>(
    conn: &mut Conn<'_, H>,
    id: ConnId,
    reply: R,
) -> Result<(), NotConnected>
where
    H::Codec: Encode<R>,
{
    if id == conn.id() {
        conn.send(reply);
    } else {
        conn.others().get(id)?.send(reply);
    }
    Ok(())
}

impl Probe {
    fn urgent(&mut self, conn: Peer<'_, '_>, byte: u8) -> Outcome {
        self.tell(format!("urgent {} {}", conn.session().index, char::from(byte)));
        Ok(())
    }
}

impl Handler for Probe {
    type Codec = Lines;
    type Session = Session;
    const URGENT: Option<Urgent<Self>> = Some(Self::urgent);

    fn open(&mut self, conn: Peer<'_, '_>) -> Outcome {
        conn.session_mut().index = self.ids.len();
        self.ids.push(conn.id());
        self.tell(format!("open {}", conn.session().index));
        Ok(())
    }

    fn frame(&mut self, conn: Peer<'_, '_>, line: &[u8]) -> Outcome {
        const COMMANDS: &[&str] = &[
            "close", "abort", "fail", "panic", "big", "pause", "resume", "to", "push", "timer",
            "untimer", "stay", "sleep",
        ];
        if let Ok(text) = std::str::from_utf8(line) {
            let (command, rest) = text.split_once(' ').unwrap_or((text, ""));
            if COMMANDS.contains(&command) {
                return self.obey(conn, command, rest);
            }
        }
        conn.send(line);
        Ok(())
    }

    fn relieved(&mut self, conn: Peer<'_, '_>) -> Outcome {
        self.tell(format!("relieved {}", conn.session().index));
        Ok(())
    }

    fn half_closed(&mut self, conn: Peer<'_, '_>) -> Outcome {
        self.tell(format!("half_closed {}", conn.session().index));
        if conn.session().stays {
            writeln!(conn, "more")?;
            conn.after(Duration::from_millis(50), Self::timer)?;
        } else {
            conn.close();
        }
        Ok(())
    }

    fn rejected(&mut self, conn: Peer<'_, '_>, error: &FrameError) {
        conn.send(format!("rejected: {error}"));
    }

    fn closed(&mut self, conn: Peer<'_, '_>, reason: &CloseReason) {
        self.tell(format!("closed {}: {reason}", conn.session().index));
    }
}

impl Probe {
    fn timer(&mut self, conn: Peer<'_, '_>) -> Outcome {
        self.tell(format!("timer {}", conn.session().index));
        if conn.session().stays {
            conn.send("and more");
            conn.close();
        } else {
            conn.send("timer");
        }
        Ok(())
    }
}

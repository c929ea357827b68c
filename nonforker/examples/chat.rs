//! A chat: the first line is your name, `/join ROOM` changes the room, the rest is said in it.

use std::collections::BTreeMap;

use nonforker::{CloseReason, Conn, ConnId, Handler, Outcome, Server, codec::Lines};

/// Who is in which room. Nothing else runs while a callback does, so this needs no lock.
#[derive(Debug, Default)]
pub struct Chat(BTreeMap<String, Vec<ConnId>>);

impl Chat {
    fn say(&self, user: &mut Conn<'_, Self>, room: &str, text: &str) {
        for &id in self.0.get(room).into_iter().flatten() {
            if id == user.id() {
                user.send(text);
            } else if let Ok(mut other) = user.others().get(id) {
                other.send(text);
            } // Else it has just left, and misses nothing.
        }
    }

    fn enter(&mut self, user: &mut Conn<'_, Self>, name: String, room: String) {
        self.0.entry(room.clone()).or_default().push(user.id());
        self.say(user, &room, &format!("* {name} joined {room}"));
        *user.session_mut() = Some((name, room));
    }

    fn leave(&mut self, user: &mut Conn<'_, Self>) {
        let Some((name, room)) = user.session_mut().take() else { return };
        self.0.entry(room.clone()).or_default().retain(|&member| member != user.id());
        self.say(user, &room, &format!("* {name} left {room}"));
    }
}

impl Handler for Chat {
    type Codec = Lines;
    type Session = Option<(String, String)>; // name and room

    fn frame(&mut self, user: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let line = String::from_utf8_lossy(line).trim().to_owned();
        match (user.session().clone(), line.strip_prefix("/join ")) {
            (None, _) => self.enter(user, line, "lobby".into()),
            (Some((name, _)), Some(room)) => {
                self.leave(user);
                self.enter(user, name, room.into());
            }
            (Some((name, room)), None) => self.say(user, &room, &format!("{name}: {line}")),
        }
        Ok(())
    }

    fn closed(&mut self, user: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.leave(user);
    }
}

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    Server::new().serve_with(address, Lines::new(), Chat::default()).drain_on_signals().run()
}

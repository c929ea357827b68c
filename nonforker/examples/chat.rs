//! A chat: a name first, then `/join ROOM` or what you say. The first one may also `/kick NAME`.

use nonforker::{CloseReason, Conn, ConnId, Handler, Outcome, Overflow, Server, codec::Lines};
use std::collections::BTreeMap;

/// Everybody by name. A room is a topic. Nothing else runs while a callback does: there is no lock.
#[derive(Debug, Default)]
pub struct Chat {
    users: BTreeMap<String, ConnId>,
    moderator: Option<ConnId>,
}

fn enter(user: &mut Conn<'_, Chat>, name: String, room: String) -> Outcome {
    user.subscribe(&room, Overflow::Close)?;
    user.publish(&room, format!("* {name} joined {room}"))?;
    *user.session_mut() = Some((name, room));
    Ok(())
}

impl Handler for Chat {
    type Codec = Lines;
    type Session = Option<(String, String)>; // name and room
    fn frame(&mut self, user: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let line = String::from_utf8_lossy(line).trim().to_owned();
        let Some((name, room)) = user.session().clone() else {
            if self.users.contains_key(&line) {
                user.send(format!("* {line} is taken"));
                return Ok(());
            }
            self.moderator.get_or_insert_with(|| user.id());
            self.users.insert(line.clone(), user.id());
            return enter(user, line, "lobby".into());
        };
        if let Some(next) = line.strip_prefix("/join ") {
            user.unsubscribe(&room);
            user.publish(&room, format!("* {name} left {room}"))?;
            return enter(user, name, next.into());
        }
        match line.strip_prefix("/kick ").map(|kicked| self.users.get(kicked)) {
            None => _ = user.publish(&room, format!("{name}: {line}"))?,
            Some(Some(&id)) if self.moderator == Some(user.id()) => {
                let _ = user.others().get(id).map(|mut other| other.close()); // Or it leaves just now.
            }
            Some(_) => user.send("* you cannot"),
        }
        Ok(())
    }

    fn closed(&mut self, user: &mut Conn<'_, Self>, _: &CloseReason) {
        let Some((name, room)) = user.session_mut().take() else { return };
        self.moderator.take_if(|moderator| *moderator == user.id());
        self.users.remove(&name);
        let _ = user.publish(&room, format!("* {name} left {room}"));
    }
}

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    Server::new().serve_with(address, Lines::new(), Chat::default()).drain_on_signals().run()
}

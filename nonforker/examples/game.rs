//! A game: `north`, `south`, `east` and `west` move you, and all see where everybody is, twenty times
//! a second. A client that is too slow for that misses the oldest pictures.

use std::{collections::BTreeMap, time::Duration};

use nonforker::{CloseReason, Conn, ConnId, Connections, Handler, Outcome, Overflow};
use nonforker::{Server, codec::Lines};

/// Where everybody is.
#[derive(Debug, Default)]
pub struct Game(BTreeMap<ConnId, (i64, i64)>);

impl Game {
    fn tick(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        let places = self.0.iter().map(|(id, (x, y))| format!(" {id}:{x},{y}"));
        all.publish("world", format!("at{}", places.collect::<String>()))?;
        Ok(())
    }
}

impl Handler for Game {
    type Codec = Lines;
    type Session = ();

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        all.every(Duration::from_millis(50), Self::tick)?;
        Ok(())
    }

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        self.0.insert(conn.id(), (0, 0));
        conn.subscribe("world", Overflow::DropOldest)?;
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let (x, y) = self.0.entry(conn.id()).or_default();
        match line {
            b"north" => *y += 1,
            b"south" => *y -= 1,
            b"east" => *x += 1,
            b"west" => *x -= 1,
            _ => conn.send("? north, south, east or west"),
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.0.remove(&conn.id());
    }
}

fn main() -> nonforker::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1685".into());
    Server::new().serve_with(address, Lines::new(), Game::default()).drain_on_signals().run()
}

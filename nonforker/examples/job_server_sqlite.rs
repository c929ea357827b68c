//! Requests that ask a database: `add TEXT` keeps a note in SQLite and is answered with its number,
//! `get NUMBER` with the note. The loop never waits for the disk.

use std::sync::{Arc, Mutex, PoisonError};

use nonforker::{Server, codec::Lines};
use rusqlite::{Connection, OptionalExtension, Result};

/// Asks the database, in a thread of the pool.
fn ask(database: &Connection, line: &str) -> Result<String> {
    match line.split_once(' ') {
        Some(("add", text)) => {
            database.execute("INSERT INTO notes (text) VALUES (?1)", [text])?;
            Ok(database.last_insert_rowid().to_string())
        }
        Some(("get", number)) => {
            let sql = "SELECT text FROM notes WHERE number = ?1";
            let text = database.query_row(sql, [number], |row| row.get(0)).optional()?;
            Ok(text.unwrap_or_else(|| "none".to_owned()))
        }
        _ => Ok("error: add TEXT, or get NUMBER".to_owned()),
    }
}

/// A server whose notes are in this file, or only in memory if it is `:memory:`.
///
/// # Errors
///
/// What SQLite says of the file.
pub fn server(address: &str, file: &str) -> Result<Server> {
    let database = Connection::open(file)?;
    let sql = "CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY, text TEXT NOT NULL)";
    database.execute(sql, [])?;
    // SQLite writes one thing at a time: one connection to it is as fast as many.
    let database = Arc::new(Mutex::new(database));
    Ok(Server::new().serve(address, Lines::new(), move |conn, line| {
        let (database, line) = (Arc::clone(&database), String::from_utf8_lossy(line).into_owned());
        conn.offload(
            move || ask(&database.lock().unwrap_or_else(PoisonError::into_inner), &line),
            |_, conn, answer| {
                conn.send(answer.unwrap_or_else(|error| format!("error: {error}")));
            },
        );
    }))
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:1685".into());
    let file = arguments.next().unwrap_or_else(|| ":memory:".into());
    Ok(server(&address, &file)?.drain_on_signals().run()?)
}

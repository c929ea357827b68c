//! A mail server of few words: a client begins in clear, and may say `STARTTLS`.
//!
//! Run it as `tls_echo`, and then: `openssl s_client -starttls smtp -connect 127.0.0.1:1687`.
//!
//! Mail is only taken when the connection is encrypted. What a client said before is forgotten: somebody
//! else may have said it. What comes behind `STARTTLS` in the same segment never gets here: it is a part of
//! the handshake, or its end.

use nonforker::{Conn, Handler, Outcome, Server, Tls, codec::Lines};

struct Mail;

impl Handler for Mail {
    type Codec = Lines;
    /// Who said hello.
    type Session = Option<String>;

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.send("220 example.org");
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let line = String::from_utf8_lossy(line).into_owned();
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (command.to_ascii_uppercase().as_str(), conn.tls().is_some()) {
            ("EHLO", is_encrypted) => {
                *conn.session_mut() = Some(rest.to_owned());
                conn.send(if is_encrypted { "250 example.org" } else { "250-example.org" });
                if !is_encrypted {
                    conn.send("250 STARTTLS");
                }
            }
            ("STARTTLS", false) => {
                conn.send("220 go ahead");
                *conn.session_mut() = None;
                conn.start_tls()?;
            }
            ("MAIL", false) => conn.send("530 say STARTTLS first"),
            ("MAIL", true) if conn.session().is_some() => conn.send("250 ok"),
            ("QUIT", _) => {
                conn.send("221 bye");
                conn.close();
            }
            _ => conn.send("503 not now"),
        }
        Ok(())
    }
}

fn main() -> nonforker::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:1687".into());
    let certificate = arguments.next().unwrap_or_else(|| "cert.pem".into());
    let key = arguments.next().unwrap_or_else(|| "key.pem".into());
    let tls = Tls::from_files(certificate, key)?;
    let server = Server::new().serve_with(address, Lines::new().crlf(), Mail);
    server.start_tls_with(tls).drain_on_signals().run()
}

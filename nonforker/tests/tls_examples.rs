//! The examples with TLS run and do what they say, over a Unix socket.

#![cfg(feature = "_rustls")]
#![expect(clippy::disallowed_methods, reason = "a client in a test may wait")]

mod own_certificate;

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

const PATIENCE: Duration = Duration::from_secs(10);

/// An example that runs until the test ends, and its files.
struct Example {
    child: Child,
    folder: PathBuf,
    config: Arc<ClientConfig>,
}

impl Example {
    fn start(name: &str) -> Self {
        let mut binary = env::current_exe().expect("a test has a path");
        binary.pop();
        binary.pop();
        let binary = binary.join("examples").join(name);
        let folder = env::temp_dir().join(format!("nonforker-{name}-{}", std::process::id()));
        let config = own_certificate::make(&folder);
        let address = format!("unix:{}", folder.join("socket").display());
        let files = [folder.join("cert.pem"), folder.join("key.pem")];
        let child = Command::new(binary).arg(address).args(files).spawn();
        let child = child.expect("`cargo test` builds it, without --test or --all-targets");
        Self { child, folder, config: Arc::new(config) }
    }

    fn connect(&self) -> UnixStream {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = UnixStream::connect(self.folder.join("socket")) {
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                return stream;
            }
            assert!(Instant::now() < until, "it listens");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn encrypt(&self, stream: UnixStream) -> BufReader<StreamOwned<ClientConnection, UnixStream>> {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(&self.config), name).expect("good");
        BufReader::new(StreamOwned::new(client, stream))
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line comes");
    line
}

#[test]
fn tls_echo_echoes_and_says_what_was_agreed_on() {
    let example = Example::start("tls_echo");
    let mut client = example.encrypt(example.connect());
    client.get_mut().write_all(b"hello\nwho am i\n").expect("it is taken");
    assert_eq!(line(&mut client), "hello\n");
    let expected = "a client of localhost, over TLSv1.3 with TLS_AES_128_GCM_SHA256\n";
    assert_eq!(line(&mut client), expected);
}

#[test]
fn starttls_takes_mail_only_when_it_is_encrypted() {
    let example = Example::start("starttls");
    let mut clear = BufReader::new(example.connect());
    assert_eq!(line(&mut clear), "220 example.org\r\n");
    for (command, reply) in [
        ("EHLO me", "250-example.org\r\n250 STARTTLS\r\n"),
        ("MAIL FROM:<a@b>", "530 say STARTTLS first\r\n"),
        ("STARTTLS", "220 go ahead\r\n"),
    ] {
        clear.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("it is taken");
        let said: String = reply.lines().map(|_| line(&mut clear)).collect();
        assert_eq!(said, reply, "{command}");
    }
    let mut client = example.encrypt(clear.into_inner());
    for (command, reply) in [
        ("MAIL FROM:<a@b>", "503 not now\r\n"),
        ("EHLO me", "250 example.org\r\n"),
        ("MAIL FROM:<a@b>", "250 ok\r\n"),
        ("QUIT", "221 bye\r\n"),
    ] {
        client.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("it is taken");
        assert_eq!(line(&mut client), reply, "{command}");
    }
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("a close_notify comes");
    assert!(rest.is_empty());
}

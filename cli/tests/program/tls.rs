//! The flags for TLS, with the program of OpenSSL on the other side: clients, servers, and both.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::{
    errors::assert_complains,
    support::{PATIENCE, Process, Scratch, Server, command, is_there, run, run_with, until},
};

/// Certificates in files: of an authority, and of those that it signed.
struct Files(Scratch);

impl Files {
    /// None where there is no openssl.
    fn new() -> Option<Self> {
        if !is_there("openssl") {
            eprintln!("skipped: there is no openssl");
            return None;
        }
        let files = Self(Scratch::new());
        for authority in ["ca", "other-ca"] {
            files.make(authority, &format!("/CN={authority}"), &[]);
        }
        files.sign("server", "localhost", "DNS:localhost,IP:127.0.0.1");
        files.sign("second", "second.test", "DNS:second.test");
        files.sign("client", "client", "DNS:client");
        Some(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn make(&self, name: &str, subject: &str, more: &[&str]) {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "30", "-subj", subject])
            .arg("-keyout")
            .arg(self.path(&format!("{name}-key.pem")))
            .arg("-out")
            .arg(self.path(&format!("{name}.pem")))
            .args(more)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn sign(&self, name: &str, subject: &str, names: &str) {
        let [ca, key] = ["ca.pem", "ca-key.pem"].map(|name| self.path(name).display().to_string());
        let names = format!("subjectAltName={names}");
        let more = ["-CA", &ca, "-CAkey", &key, "-addext", &names];
        let more = [&more[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat();
        self.make(name, &format!("/CN={subject}"), &more);
    }

    /// Flags, of which each word with an `@` is the path of a file of this name.
    fn flags(&self, text: &str) -> String {
        let path = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).display().to_string(),
            None => word.to_owned(),
        };
        text.split_whitespace().map(path).collect::<Vec<_>>().join(" ")
    }

    /// What a client of OpenSSL says that sends this, by the authority and with more flags.
    fn client(&self, address: &str, input: &str, more: &str) -> String {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", address, "-verify_return_error", "-ign_eof"]);
        client.arg("-CAfile").arg(self.path("ca.pem"));
        let output = run_with(client.args(self.flags(more).split_whitespace()), input.as_bytes());
        output.stdout + &output.stderr
    }
}

const SERVER: &str = "--tls-cert @server.pem --tls-key @server-key.pem --idle-timeout 1s";

#[test]
fn what_is_wrong_with_a_flag_or_a_file_is_one_line_and_the_status_2() {
    let Some(files) = Files::new() else { return };
    fs::write(files.path("empty.pem"), "no certificate").expect("a file");
    for (flags, part, hint) in [
        ("--tls-cert @server.pem", "--tls-key", "they go in pairs"),
        ("--tls-key @server-key.pem", "--tls-key", "it needs --tls-cert"),
        ("--tls-alpn h2", "--tls-alpn", "it needs --tls-cert"),
        ("--tls-client-auth optional", "--tls-client-auth", "it needs --tls-cert"),
        (
            "--tls-cert @server.pem --tls-key @server-key.pem --tls-client-auth optional",
            "--tls-client-auth",
            "it needs --tls-client-ca",
        ),
        (
            "--tls-cert @server.pem --tls-key @server-key.pem --tls-cert @second.pem",
            "--tls-key",
            "certificates: 2, keys: 1",
        ),
        (
            "--tls-cert @missing.pem --tls-key @server-key.pem",
            "missing.pem",
            "--tls-cert, --tls-key: cannot read",
        ),
        (
            "--tls-cert @server.pem --tls-key @missing.pem",
            "missing.pem",
            "--tls-cert, --tls-key: cannot read",
        ),
        ("--tls-cert @empty.pem --tls-key @server-key.pem", "empty.pem", "no certificate"),
        ("--tls-cert @server.pem --tls-key @second-key.pem", "second-key.pem", "does not belong"),
        (
            "--tls-cert @server.pem --tls-key @server-key.pem --tls-client-ca @missing.pem",
            "missing.pem",
            "--tls-client-ca: cannot read",
        ),
        ("relay --to 127.0.0.1:1 --to-ca @ca.pem", "--to-ca", "it needs --to-tls"),
        ("relay --to 127.0.0.1:1 --to-name x", "--to-name", "it needs --to-tls"),
        ("relay --to tls://localhost:1 --to-cert @client.pem", "--to-cert", "it needs --to-key"),
        (
            "relay --to tls://localhost:1 --to-ca @missing.pem",
            "missing.pem",
            "--to-ca: cannot read",
        ),
        ("relay --to tls://localhost:1 --to-ca @empty.pem", "empty.pem", "no certificate"),
        ("relay --to-tls --to unix:/x --to-ca @ca.pem", "--to: ", "--to-name"),
        ("relay --to tls://localhost", "--to", "the port is missing"),
        ("relay --to 127.0.0.1:1 --cut 101%", "--cut", "write a percentage"),
        ("relay --to 127.0.0.1:1 --cut 1", "--cut", "write a percentage"),
        ("relay --to 127.0.0.1:1 --cut 60% --stall 50%", "--cut", "more than 100%"),
        ("relay --to 127.0.0.1:1 --latency 5", "--latency", "50ms..200ms"),
        ("relay --to 127.0.0.1:1 --latency 9ms..5ms", "--latency", "the lesser one"),
        ("relay --to 127.0.0.1:1 --bandwidth 0/s", "--bandwidth", "10KiB/s"),
        ("relay --to 127.0.0.1:1 --slice 0..3", "--slice", "1..7"),
    ] {
        let listen = if flags.starts_with("relay") { "" } else { "--listen 127.0.0.1:0 " };
        let output = run(&mut command(&files.flags(&format!("{listen}{flags}"))));
        assert_complains(&output, 2, &[part, hint]);
    }
}

#[test]
fn clients_are_served_by_name_protocol_and_certificate() {
    let Some(files) = Files::new() else { return };
    for driver in ["poll", "uring"] {
        let flags = format!(
            "--driver {driver} {SERVER} --tls-cert @second.pem --tls-key @second-key.pem \
             --tls-alpn lines/1 --tls-alpn h2 --tls-client-ca @ca.pem --log debug"
        );
        let server = Server::start(&files.flags(&flags));
        let own = "-cert @client.pem -key @client-key.pem";
        let said = files.client(
            &server.addresses[0],
            "hello\n",
            &format!("{own} -servername second.test -alpn h2"),
        );
        assert!(said.contains("hello"), "{said}");
        assert!(said.contains("CN = second.test"), "{said}");
        assert!(said.contains("ALPN protocol: h2"), "{said}");
        let said = files.client(&server.addresses[0], "hello\n", own);
        assert!(said.contains("CN = localhost"), "{said}");
        let said = files.client(&server.addresses[0], "hello\n", "");
        assert!(said.contains("certificate required"), "{said}");
        let said = files.client(&server.addresses[0], "hello\n", &format!("{own} -alpn other"));
        assert!(said.contains("no application protocol"), "{said}");
        server.end();
    }
}

#[test]
fn certificates_are_replaced_at_a_sighup_and_a_broken_file_changes_nothing() {
    let Some(files) = Files::new() else { return };
    let server = Server::start(&files.flags(SERVER));
    let shown = || files.client(&server.addresses[0], "hello\n", "-servername localhost");
    assert!(shown().contains("CN = localhost"));
    let good = fs::read(files.path("server.pem")).expect("a file");
    fs::write(files.path("server.pem"), "broken").expect("a file");
    server.process.signal(Signal::SIGHUP);
    server.await_log("the certificates stay as they are");
    assert!(server.log().contains("server.pem"), "{}", server.log());
    let said = shown();
    assert!(said.contains("CN = localhost") && said.contains("hello"), "{said}");
    // Another certificate for the same key.
    fs::write(files.path("server.pem"), good).expect("a file");
    files.sign("server", "renewed", "DNS:localhost,IP:127.0.0.1");
    server.process.signal(Signal::SIGHUP);
    server.await_log("certificates were replaced");
    until("the new one is shown", || shown().contains("CN = renewed"));
    server.end();
}

/// A server of OpenSSL that shows this certificate and answers each line backwards, and its address.
fn backwards(files: &Files, certificate: &str) -> (Process, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let child = Command::new("openssl")
        .args(["s_server", "-rev", "-quiet", "-accept", &address])
        .arg("-cert")
        .arg(files.path(&format!("{certificate}.pem")))
        .arg("-key")
        .arg(files.path(&format!("{certificate}-key.pem")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let process = Process(child.expect("openssl starts"));
    until("openssl listens", || TcpStream::connect(&address).is_ok());
    (process, address)
}

#[test]
fn a_relay_encrypts_towards_its_server_verifies_it_and_takes_off_tls_of_clients() {
    let Some(files) = Files::new() else { return };
    let (_behind, address) = backwards(&files, "server");
    let (_authority, authority) = backwards(&files, "ca");
    let port = address.rsplit_once(':').expect("it has a port").1;
    let plain = Server::start("--idle-timeout 1s");
    for driver in ["poll", "uring"] {
        let relay = |flags: &str| {
            let line = format!("relay --listen 127.0.0.1:0 --driver {driver} {flags}");
            Server::from(&mut command(&files.flags(&line)), 1)
        };
        // In clear here, encrypted there: by name, by address, with another name.
        for to in [
            format!("--to tls://localhost:{port} --to-ca @ca.pem"),
            format!("--to {address} --to-tls --to-ca @ca.pem"),
            format!("--to {address} --to-tls --to-ca @ca.pem --to-name localhost"),
        ] {
            let server = relay(&to);
            let mut client = server.connect();
            client.write_all(b"abc\n").expect("it takes it");
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap_or_else(|_| panic!("{to}: {}", server.log()));
            assert_eq!(&answer, b"cba\n", "{to}");
            drop(client);
            server.end();
        }
        // A server whose authority is unknown, one with another name, and one that shows an authority's.
        for (to, why) in [
            (
                format!("--to tls://localhost:{port} --to-ca @other-ca.pem"),
                "no authority that is trusted",
            ),
            (format!("--to tls://localhost:{port}"), "no authority that is trusted"),
            (format!("--to {authority} --to-tls --to-ca @ca.pem"), "not a server's"),
            (
                format!("--to {address} --to-tls --to-ca @ca.pem --to-name second.test"),
                "not valid for name \"second.test\"",
            ),
        ] {
            let server = relay(&to);
            assert_eq!(server.ask(b"abc\n"), b"", "{to}");
            server.await_log(why);
            assert!(server.log().contains("cannot connect"), "{}", server.log());
            server.end();
        }
        // Encrypted here, in clear there; and encrypted on both sides.
        let server = relay(&format!("--to {} {SERVER}", plain.addresses[0]));
        let said = files.client(&server.addresses[0], "hello\n", "");
        assert!(said.contains("hello") && said.contains("CN = localhost"), "{said}");
        server.end();
        let to = format!("--to tls://localhost:{port} --to-ca @ca.pem --slice 1..3 {SERVER}");
        let server = relay(&to);
        let said = files.client(&server.addresses[0], "hello\n", "");
        assert!(said.contains("olleh"), "{said}");
        server.end();
    }
    plain.end();
}

#[test]
fn a_relay_has_the_faults_that_it_is_asked_for_and_the_same_ones_again() {
    let behind = Server::start("--codec raw");
    let ends = |flags: &str| -> Vec<usize> {
        let line = format!("relay --listen 127.0.0.1:0 --to {} {flags}", behind.addresses[0]);
        let server = Server::from(&mut command(&line), 1);
        let ends = (0..30)
            .map(|_| {
                let mut stream = server.connect();
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                // One that is struck may be closed already.
                let _ = stream.write_all(&[b'x'; 6000]);
                let _ = stream.shutdown(Shutdown::Write);
                let mut got = Vec::new();
                let _ = stream.read_to_end(&mut got);
                got.len()
            })
            .collect();
        server.end();
        ends
    };
    assert!(ends("").iter().all(|&got| got == 6000));
    let first = ends("--cut 50% --seed 3");
    let whole = first.iter().filter(|&&got| got == 6000).count();
    assert!((5..=25).contains(&whole), "{first:?}");
    let again = ends("--cut 50% --seed 3");
    let is_whole = |ends: &[usize]| ends.iter().map(|&got| got == 6000).collect::<Vec<_>>();
    assert_eq!(is_whole(&first), is_whole(&again), "{first:?} {again:?}");
    assert_ne!(is_whole(&first), is_whole(&ends("--cut 50% --seed 4")));
    assert!(ends("--cut 100%").iter().all(|&got| got < 6000));
    assert!(ends("--latency 1ms..5ms --slice 100..900").iter().all(|&got| got == 6000));
}

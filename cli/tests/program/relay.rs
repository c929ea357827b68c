//! `nonforker relay`, between real clients and real servers.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    errors::assert_complains,
    support::{Process, Scratch, Server, command, is_there, run, until},
};

fn relay(flags: &str) -> Server {
    Server::from(&mut command(&format!("relay --listen 127.0.0.1:0 {flags}")), 1)
}

/// An address at which nobody listens just now.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").to_string()
}

fn to_the_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn bytes_and_ends_go_through_to_a_server_that_socat_runs() {
    if !is_there("socat") {
        eprintln!("skipped: there is no socat");
        return;
    }
    let scratch = Scratch::new();
    let (port, path) = (free_address(), scratch.path("cat.sock"));
    let port = port.rsplit_once(':').expect("it has a port").1.to_owned();
    let tcp = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork");
    let unix = format!("UNIX-LISTEN:{},fork", path.display());
    let _servers = [tcp, unix].map(|listen| {
        let child = Command::new("socat").args([&listen, "EXEC:cat"]).stderr(Stdio::null()).spawn();
        Process(child.expect("socat starts"))
    });
    until("socat listens", || {
        path.exists() && TcpStream::connect(format!("127.0.0.1:{port}")).is_ok()
    });
    for driver in ["poll", "uring"] {
        for target in [format!("localhost:{port}"), format!("unix:{}", path.display())] {
            let server = relay(&format!("--to {target} --driver {driver}"));
            let text = b"one\ntwo\0three".repeat(10_000);
            let client = server.connect();
            let (mut writer, sent) = (client.try_clone().expect("a socket"), text.clone());
            let sender = thread::spawn(move || {
                writer.write_all(&sent).expect("it takes it");
                writer.shutdown(Shutdown::Write).expect("it is connected");
            });
            // cat ends when its input does: both ends go through.
            let got = to_the_end(&client);
            sender.join().expect("all is sent");
            assert!(got == text, "{} bytes by way of {target}", got.len());
            server.end();
        }
    }
}

#[test]
fn a_real_proxy_reads_our_header_and_tells_the_server_behind() {
    if !is_there("haproxy") {
        eprintln!("skipped: there is no haproxy");
        return;
    }
    let behind = Server::from(
        &mut command("--listen 127.0.0.1:0 --proxy-protocol --proxy-from 127.0.0.0/8 --log debug"),
        1,
    );
    let (front, scratch) = (free_address(), Scratch::new());
    let config = scratch.write(
        "haproxy.cfg",
        &format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
             listen tried\n bind {front} accept-proxy\n server tried {} send-proxy\n",
            behind.addresses[0]
        ),
    );
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-q", "-f"]).arg(&config).stderr(Stdio::null());
    let _haproxy = Process(haproxy.spawn().expect("haproxy starts"));
    until("haproxy listens", || TcpStream::connect(&front).is_ok());
    for version in ["v1", "v2"] {
        let server = relay(&format!("--to {front} --send-proxy {version}"));
        let mut client = server.connect();
        let own = client.local_addr().expect("it is connected");
        client.write_all(b"through\n").expect("it takes it");
        client.shutdown(Shutdown::Write).expect("it is connected");
        assert_eq!(to_the_end(&client), b"through\n", "{version}");
        behind.await_log(&own.to_string());
    }
}

#[test]
fn a_server_that_is_not_there_ends_the_client_and_is_named() {
    let nowhere = free_address();
    let server = relay(&format!("--to {nowhere} --to nobody.invalid:1"));
    let mut client = server.connect();
    let _ = client.write_all(b"hello\n");
    assert_eq!(to_the_end(&client), b"");
    server
        .await_log(&format!("cannot connect: Connection refused (os error 111) target={nowhere}"));
    server.end();
}

#[test]
fn clients_wait_for_a_server_that_is_restarted() {
    let later = free_address();
    let server = relay(&format!("--to {later} --connect-retry 10s"));
    let mut client = server.connect();
    client.write_all(b"hello\n").expect("it takes it");
    thread::sleep(Duration::from_millis(300));
    let listener = TcpListener::bind(&later).expect("it is free");
    let (mut behind, _) = listener.accept().expect("it connects");
    let mut got = [0; 6];
    behind.read_exact(&mut got).expect("it comes");
    assert_eq!(&got, b"hello\n");
    drop((behind, client));
    server.end();
}

#[test]
fn sigterm_passes_on_what_was_sent_and_waits_for_the_answer_or_cuts_off() {
    for answers in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("it is bound");
        let mut server = relay(&format!("--to {target} --drain-timeout 2s"));
        let mut client = server.connect();
        client.write_all(b"question").expect("it takes it");
        let (mut behind, _) = listener.accept().expect("it connects");
        let mut got = [0; 8];
        behind.read_exact(&mut got).expect("it comes");
        server.process.signal(Signal::SIGTERM);
        assert_eq!(to_the_end(&behind), b"", "the end of the client is passed on");
        if answers {
            behind.write_all(b"answer").expect("it takes it");
            drop(behind);
            assert_eq!(to_the_end(&client), b"answer");
            drop(client);
        }
        assert_eq!(server.status(), i32::from(!answers), "{}", server.log());
    }
}

#[test]
fn a_file_has_the_settings_of_a_relay() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("it is bound");
    let scratch = Scratch::new();
    let text = format!("listen = \"127.0.0.1:0\"\nto = [\"{target}\"]\nconnect-timeout = \"3s\"\n");
    let file = scratch.write("relay.toml", &text);
    let server = Server::from(&mut command(&format!("relay --config {}", file.display())), 1);
    let mut client = server.connect();
    client.write_all(b"x").expect("it takes it");
    let (mut behind, _) = listener.accept().expect("it connects");
    behind.read_exact(&mut [0]).expect("it comes");
    drop((client, behind));
    server.end();

    fs::write(&file, "to = \"nowhere\"\n").expect("a file");
    assert_complains(
        &run(&mut command(&format!("relay --config {}", file.display()))),
        2,
        &["to: "],
    );
    fs::write(&file, "codec = \"lines\"\n").expect("a file");
    assert_complains(
        &run(&mut command(&format!("relay --config {}", file.display()))),
        2,
        &["unknown key \"codec\""],
    );
}

#[test]
fn what_cannot_be_relayed_is_said() {
    for (flags, part) in [
        ("relay", "--to: it is missing"),
        ("relay --to localhost", "the port is missing"),
        ("relay --to tls://unix:/x", "from 1 to 65535"),
        ("relay --to localhost:1 --connect-timeout 101years", "connect-timeout"),
        ("relay --to localhost:1 --balance most", "--balance"),
        ("relay --to localhost:1 --send-proxy v3", "--send-proxy"),
        ("relay --to localhost:1 --listen 127.0.0.1:1 --listen 127.0.0.1:1", "given twice"),
        ("relay --to localhost:1 --codec lines", "--codec"),
    ] {
        assert_complains(&run(&mut command(flags)), 2, &[part]);
    }
}

#[test]
fn help_names_the_flags_of_a_relay() {
    let output = run(&mut command("relay --help"));
    let help = output.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for (flag, default) in [
        ("--listen", "127.0.0.1:1685"),
        ("--to", ""),
        ("--balance", "least"),
        ("--connect-timeout", "10s"),
        ("--connect-retry", "off"),
        ("--send-proxy", ""),
        ("--to-ca", "those of the system"),
        ("--to-name", "that in --to"),
        ("--seed", "0"),
        ("--proxy-protocol", ""),
        ("--max-connections", ""),
        ("--drain-timeout", "10s"),
        ("--driver", "auto"),
    ] {
        let at = help.find(&format!("{flag} ")).expect(flag);
        assert!(help[at..].contains(default), "{flag}");
    }
}

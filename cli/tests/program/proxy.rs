//! Behind a proxy: a real haproxy tells who its clients are.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::support::{Process, Server, command, is_there};

/// A haproxy that passes connections on with headers of this kind. Nothing where there is none.
fn haproxy(send_proxy: &str, backend: &str) -> Option<(Process, String)> {
    if !is_there("haproxy") {
        eprintln!("skipped: there is no haproxy");
        return None;
    }
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
    let front = format!("127.0.0.1:{port}");
    let text = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
         listen tried\n bind {front}\n server tried {backend} {send_proxy}\n"
    );
    let config = std::env::temp_dir().join(format!("nonforker-{}-{port}.cfg", std::process::id()));
    fs::write(&config, text).expect("a temporary file");
    let child = Command::new("haproxy")
        .args(["-db", "-q", "-f"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .expect("haproxy starts");
    let process = Process(child);
    for _ in 0..100 {
        if TcpStream::connect(&front).is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let _ = fs::remove_file(config);
    Some((process, front))
}

#[test]
fn requests_come_through_a_real_proxy_with_either_header() {
    for driver in ["poll", "uring"] {
        for send_proxy in ["send-proxy", "send-proxy-v2"] {
            let flags = format!(
                "--listen 127.0.0.1:0 --driver {driver} --proxy-protocol --proxy-from 127.0.0.0/8 \
                 --max-connections-per-ip 2 --log debug"
            );
            let server = Server::from(&mut command(&flags), 1);
            let Some((_proxy, front)) = haproxy(send_proxy, &server.addresses[0]) else { return };
            let mut client = TcpStream::connect(&front).expect("haproxy listens");
            let own = client.local_addr().expect("it is connected");
            client.write_all(b"through\n").expect("it takes it");
            let mut line = String::new();
            let mut reader = BufReader::new(client.try_clone().expect("a socket"));
            reader.read_line(&mut line).expect("an answer");
            assert_eq!(line, "through\n", "{send_proxy} over {driver}");
            drop((client, reader));
            let log = server.end();
            assert!(log.contains(&own.to_string()), "the real client is named: {log}");
        }
    }
}

#[test]
fn without_a_header_nobody_is_served() {
    let flags = "--listen 127.0.0.1:0 --proxy-protocol --proxy-from 127.0.0.1 --log info";
    let server = Server::from(&mut command(flags), 1);
    let mut client = server.connect();
    client.write_all(b"hello\n").expect("it is sent");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    let log = server.end();
    assert!(log.contains("does not begin with a PROXY header"), "{log}");
}

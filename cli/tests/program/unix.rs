//! Unix sockets: who may connect, and whose file is removed.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Stdio,
};

use nix::sys::signal::Signal::SIGTERM;

use crate::support::{Scratch, Server, assert_echoes, command, connect_unix, run};

fn start(path: &Path, flags: &str) -> Server {
    Server::from(&mut command(&format!("--listen unix:{} {flags}", path.display())), 1)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_socket_is_announced_private_and_removed_at_the_end() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let server = start(&path, "");
    assert_eq!(server.addresses, [format!("unix:{}", path.display())]);
    assert_eq!(mode(&path), 0o600);
    assert_echoes(connect_unix(&path));
    server.end();
    assert!(!path.exists(), "it was removed");

    for (text, bits) in [("0660", 0o660), ("666", 0o666)] {
        let server = start(&path, &format!("--unix-mode {text}"));
        assert_eq!(mode(&path), bits);
        assert_echoes(connect_unix(&path));
        server.end();
    }
}

#[test]
fn a_stale_socket_is_replaced() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "it is left behind");
    let server = start(&path, "");
    assert_echoes(connect_unix(&path));

    // As after a crash.
    server.process.signal(nix::sys::signal::Signal::SIGKILL);
    drop(server);
    assert!(path.exists(), "it is left behind");
    start(&path, "").end();
    assert!(!path.exists());
}

#[test]
fn a_socket_that_is_served_is_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let first = start(&path, "");
    let second = run(&mut command(&format!("--listen unix:{}", path.display())));
    assert_eq!((second.status, second.stdout.as_str()), (1, ""));
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
    assert_echoes(connect_unix(&path));
    first.end();
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let scratch = Scratch::new();
    let path = scratch.write("precious", "years of work");
    let output = run(&mut command(&format!("--listen unix:{}", path.display())));
    assert_eq!(output.status, 1);
    assert!(output.stderr.starts_with("nonforker: cannot listen on unix:"), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), "years of work");

    // Nor one that took the place of ours.
    let path = scratch.path("x.sock");
    let mut server = start(&path, "");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine now").unwrap();
    server.process.signal(SIGTERM);
    assert_eq!(server.status(), 0);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine now");
}

#[test]
fn a_server_that_cannot_start_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let path = scratch.path("x.sock");
    let mut command = command(&format!("--listen unix:{} --listen 192.0.2.1:1", path.display()));
    assert_eq!(run(command.stdin(Stdio::null())).status, 1);
    assert!(!path.exists());
}

#[test]
#[cfg(target_os = "linux")]
fn a_socket_may_have_a_name_and_no_file() {
    use std::process::Command;

    use crate::support::{is_there, run_with};

    let address = format!("unix:@nonforker-{}", std::process::id());
    let server = Server::from(&mut command(&format!("--listen {address}")), 1);
    assert_eq!(server.addresses, [address.as_str()]);
    let name = address.trim_start_matches("unix:@");
    if is_there("socat") {
        let mut socat = Command::new("socat");
        socat.args(["-t30", "-", &format!("ABSTRACT-CONNECT:{name}")]);
        assert_eq!(run_with(&mut socat, b"one\ntwo\n").stdout, "one\ntwo\n");
    }
    if is_there("nc") {
        // What the program says to try, to a person.
        let mut nc = Command::new("nc");
        nc.args(["-N", "-U", &format!("@{name}")]);
        assert_eq!(run_with(&mut nc, b"one\ntwo\n").stdout, "one\ntwo\n");
    }
    let bench = format!("bench {address} -c 2 -d 200ms");
    let output = run(&mut command(&bench));
    assert_eq!(output.status, 0, "{}", output.stderr);
    let second = run(&mut command(&format!("--listen {address}")));
    assert_eq!(second.status, 1, "{}", second.stderr);
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
    server.end();
}

//! `nonforker bench` against servers that are wrong: it finds out, says what, and ends.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::bench::{bench, number, report};

/// A server that treats each connection, by its number, as `serve` says. It lives as long as the
/// test program.
pub(crate) fn server(serve: impl Fn(usize, TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for (nth, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let serve = serve.clone();
            thread::spawn(move || serve(nth, stream));
        }
    });
    address
}

/// Echoes, and has `spoil` look at each piece first: with how many bytes came before it. It ends
/// the connection by returning false.
pub(crate) fn echo(mut stream: TcpStream, mut spoil: impl FnMut(usize, &mut Vec<u8>) -> bool) {
    let (mut buffer, mut sum) = ([0; 4096], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let mut piece = buffer[..count].to_vec();
        if !spoil(sum, &mut piece) || stream.write_all(&piece).is_err() {
            return;
        }
        sum += count;
    }
}

fn assert_ends(address: &str, flags: &str, part: &str) {
    let output = bench(address, flags);
    assert_eq!(output.status, 1, "{flags}: {}", output.stdout);
    assert!(output.stderr.contains(part), "{flags}: {}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{flags}: {}", output.stderr);
}

/// Changes the byte at this place of the stream.
fn spoil_at(place: usize) -> impl FnMut(usize, &mut Vec<u8>) -> bool {
    move |before, piece| {
        if let Some(byte) = place.checked_sub(before).and_then(|at| piece.get_mut(at)) {
            *byte ^= 1;
        }
        true
    }
}

#[test]
fn one_wrong_byte_is_found_wherever_it_is() {
    for place in [0, 63, 64, 5000, 100_003] {
        let address = server(move |_, stream| echo(stream, spoil_at(place)));
        for flags in ["-c 1 -d 30s", "-c 1 -p 7 -d 30s", "-c 1 --rate 100000 -d 30s"] {
            let output = bench(&address, &format!("{flags} --warm-up 0s"));
            assert_eq!(output.status, 1, "{flags}");
            let part = format!("connection 0: wrong reply: byte {place} is ");
            assert!(output.stderr.contains(&part), "{flags}: {}", output.stderr);
        }
    }
}

#[test]
fn replies_to_somebody_else_are_wrong() {
    // Each connection gets what the other has sent.
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (one, _) = listener.accept().unwrap();
            let (other, _) = listener.accept().unwrap();
            let pairs = [(one.try_clone(), other.try_clone()), (Ok(other), Ok(one))];
            for (from, to) in pairs {
                let (mut from, mut to) = (from.unwrap(), to.unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        });
        address
    };
    assert_ends(&address, "-c 2", "wrong reply: byte ");
}

#[test]
fn one_bad_connection_does_not_end_the_others() {
    let address = server(|nth, stream| match nth {
        2 => echo(stream, |before, piece| {
            piece[0] = if before > 0 { b'?' } else { piece[0] };
            true
        }),
        _ => echo(stream, |_, _| true),
    });
    let (report, status) = report(&address, "-c 4");
    assert_eq!(status, 1);
    assert_eq!(number(&report, "/errors/wrong"), 1.0, "{report:#}");
    assert_eq!(number(&report, "/connections_open"), 3.0, "{report:#}");
    assert!(number(&report, "/messages") > 0.0, "{report:#}");
    let first = report["errors"]["first"].as_str().unwrap();
    assert!(first.starts_with("connection 2: wrong reply"), "{first}");
}

#[test]
fn more_bytes_than_were_asked_for_are_wrong() {
    let address = server(|_, stream| {
        echo(stream, |before, piece| {
            piece.extend_from_slice(if before > 1000 { b"more" } else { b"" });
            true
        });
    });
    assert_ends(&address, "-c 2 --warm-up 0s -d 30s", "more bytes than were asked for");
    let greeting = server(|_, mut stream| {
        let _ = stream.write_all(b"welcome\n");
        echo(stream, |_, _| true);
    });
    assert_ends(&greeting, "-c 2", "wrong reply: byte 0");
    assert_ends(&greeting, "-c 2 --no-verify --warm-up 0s -d 30s", "more bytes than were asked");
}

#[test]
fn a_server_that_closes_is_said() {
    let address = server(|_, stream| echo(stream, |before, _| before < 1000));
    assert_ends(&address, "-c 3 --warm-up 0s -d 30s", "3 connections failed; the first: ");
    let at_once = server(|_, stream| drop(stream));
    assert_ends(&at_once, "-c 3 -d 30s", "connection ");
}

#[test]
fn a_server_that_never_answers_is_given_up_on() {
    let address = server(|_, stream| {
        thread::sleep(Duration::from_secs(3600));
        drop(stream);
    });
    for flags in ["-d 30s", "-d 30s --rate 100", "-p 9 -d 30s", "--mode idle --exchange 1"] {
        assert_ends(&address, &format!("-c 2 --timeout 200ms {flags}"), "no reply in time");
    }
    // Not for as long as it takes to give up on it.
    for flags in ["", "--rate 100", "-p 9", "--mode broadcast", "--never-reading 1"] {
        let flags = format!("-c 2 -d 300ms --warm-up 100ms {flags}");
        assert_ends(&address, &flags, "not one reply came in 300ms");
    }
}

#[test]
fn a_server_that_takes_one_byte_at_a_time_is_only_slow() {
    let address = server(|_, mut stream| {
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            if stream.write_all(&byte).is_err() {
                return;
            }
        }
    });
    let (report, status) = report(&address, "-c 3 -p 100");
    assert!(status == 0 && number(&report, "/messages") > 0.0, "{report:#}");
}

#[test]
fn a_pause_of_the_server_is_charged_to_all_that_were_due_in_it() {
    let address = server(|_, stream| {
        echo(stream, |before, _| {
            if before == 0 {
                thread::sleep(Duration::from_millis(700));
            }
            true
        });
    });
    let (report, status) = report(&address, "-c 1 --rate 200 --warm-up 0s -d 1s");
    assert_eq!(status, 0, "{report:#}");
    // Two of three requests were due in the pause, and half of those in the first half of it.
    assert!(number(&report, "/latency_us/max") >= 600_000.0, "{report:#}");
    assert!(number(&report, "/latency_us/p90") >= 300_000.0, "{report:#}");
    assert!(number(&report, "/latency_us/count") >= 199.0, "{report:#}");
}

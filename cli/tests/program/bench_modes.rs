//! `nonforker bench` in its other modes: open loop, bad company, idle, broadcast.

use std::{sync::mpsc, thread};

use nix::sys::signal::Signal::SIGTERM;
use nonforker::{CloseReason, Conn, ConnId, Handle, Handler, Outcome, codec::Lines};
use serde_json::Value;

use crate::{
    bench::{assert_each_has_a_latency, bench, number, report},
    support::Server,
};

#[test]
fn a_rate_is_kept_and_not_exceeded() {
    let server = Server::start("");
    let (report, status) = report(&server.addresses[0], "-c 5 --rate 400 -d 1s");
    assert_eq!(status, 0);
    let (messages, seconds) = (number(&report, "/messages"), number(&report, "/seconds"));
    // A machine may be busy, and what was late before the window comes in it.
    assert!((200.0..=400.0 * seconds + 60.0).contains(&messages), "{report:#}");
    assert_eq!(number(&report, "/target_rate"), 400.0);
    assert!(number(&report, "/latency_us/count") >= messages, "{report:#}");
    assert_eq!(number(&report, "/unanswered"), 0.0, "{report:#}");
}

#[test]
fn a_rate_that_is_too_high_is_said() {
    let server = Server::start("");
    let flags = "-c 2 --rate 500_000_000 --no-verify";
    let (report, status) = report(&server.addresses[0], flags);
    assert_eq!(status, 0, "{report:#}");
    assert_eq!(report["target_reached"], Value::Bool(false));
    assert!(number(&report, "/unanswered") > 0.0, "{report:#}");
    let output = bench(&server.addresses[0], flags);
    assert!(output.stdout.contains("the wanted rate was not reached"), "{}", output.stdout);
}

#[test]
fn to_wait_without_sleeping_changes_nothing_else() {
    let server = Server::start("");
    for flags in ["--spin -c 1", "--spin -c 2 --rate 100 --never-reading 1"] {
        let (report, status) = report(&server.addresses[0], flags);
        assert_eq!((status, &report["spin"]), (0, &Value::Bool(true)));
        assert!(number(&report, "/messages") > 0.0, "{report:#}");
    }
}

#[test]
fn clients_that_never_read_do_not_stop_the_others() {
    let server = Server::start("");
    let (report, status) = report(&server.addresses[0], "-c 4 --never-reading 2 --trickling 1");
    assert_eq!(status, 0);
    assert!(number(&report, "/messages") > 0.0, "{report:#}");
    assert!(number(&report, "/slow/bytes_sent") > 64.0 * 1024.0, "{report:#}");
    assert_eq!(number(&report, "/slow/closed_by_server"), 0.0, "{report:#}");
}

#[test]
fn bad_company_alone_is_a_run_too_and_may_be_closed() {
    let server = Server::start("--frame-timeout 100ms --write-timeout 100ms");
    let flags = "-c 0 --trickling 2 --never-reading 1 --trickle-interval 10ms -d 30s";
    let (report, status) = report(&server.addresses[0], flags);
    assert_eq!(status, 0, "to be closed is what they are there for: {report:#}");
    assert_eq!(number(&report, "/slow/closed_by_server"), 3.0, "{report:#}");
    assert!(number(&report, "/seconds") < 30.0, "it ends when all are closed: {report:#}");
    assert_eq!(report["latency_us"], Value::Null);
}

#[test]
fn a_flood_is_counted_by_itself() {
    let server = Server::start("");
    let flags = "-c 4 --flooding 2 --flood-in-flight 500";
    let (report, status) = report(&server.addresses[0], flags);
    assert_eq!(status, 0);
    assert!(number(&report, "/messages") > 0.0, "{report:#}");
    assert!(number(&report, "/flooding/messages") >= 500.0, "{report:#}");
    assert_each_has_a_latency(&report, 4.0);
    assert_eq!(number(&report, "/errors/wrong"), 0.0, "{report:#}");
}

#[test]
fn idle_connections_are_held_and_weighed() {
    let server = Server::start("");
    let pid = server.process.0.id();
    let flags = format!("--mode idle -c 300 --exchange 2 -s 1KiB --pid {pid}");
    let (report, status) = report(&server.addresses[0], &flags);
    assert_eq!(status, 0);
    assert_eq!(number(&report, "/connections_open"), 300.0);
    assert_eq!(number(&report, "/idle/exchanged"), 2.0);
    if cfg!(target_os = "linux") {
        let grown = number(&report, "/server/rss_end") - number(&report, "/server/rss_start");
        let each = number(&report, "/idle/rss_per_connection");
        assert!((each * 300.0 - grown).abs() < 1.0, "{report:#}");
    }
    server.process.signal(SIGTERM);
    server.await_log("connections=300 requests=600");
}

#[test]
fn idle_connections_that_are_closed_are_failures() {
    let server = Server::start("--idle-timeout 100ms");
    let (report, status) = report(&server.addresses[0], "--mode idle -c 3 -d 30s");
    assert_eq!(status, 1);
    assert_eq!(number(&report, "/errors/closed"), 3.0, "{report:#}");
    assert_eq!(number(&report, "/connections_open"), 0.0, "{report:#}");
}

/// Says every line to everybody but, perhaps, one.
struct Loudspeaker {
    all: Vec<ConnId>,
    /// The number of a connection that is accepted and gets nothing.
    forgets: Option<usize>,
    seen: usize,
}

impl Handler for Loudspeaker {
    type Codec = Lines;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        if self.forgets != Some(self.seen) {
            self.all.push(conn.id());
        }
        self.seen += 1;
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        for &id in &self.all {
            match conn.others().get(id) {
                Ok(mut other) => other.send(line),
                Err(_) => conn.send(line),
            }
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.all.retain(|&other| other != conn.id());
    }
}

/// Runs one on a thread.
fn loudspeaker(forgets: Option<usize>) -> (String, Handle) {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let handler = Loudspeaker { all: Vec::new(), forgets, seen: 0 };
        let server = nonforker::Server::new()
            .serve_with("127.0.0.1:0", Lines::new(), handler)
            .bind()
            .unwrap();
        sender.send((server.addresses()[0].to_string(), server.handle())).unwrap();
        server.run().unwrap();
    });
    receiver.recv().unwrap()
}

#[test]
fn a_broadcast_counts_deliveries() {
    let (address, handle) = loudspeaker(None);
    for flags in ["-c 20", "-c 7 -p 5 -s 200"] {
        let (report, status) = report(&address, &format!("--mode broadcast {flags}"));
        assert_eq!((status, &report["mode"]), (0, &"broadcast".into()));
        assert!(number(&report, "/messages") >= number(&report, "/connections"), "{report:#}");
        assert_eq!(number(&report, "/errors/wrong"), 0.0, "{report:#}");
        assert_each_has_a_latency(&report, 35.0);
    }
    handle.stop();
}

#[test]
fn a_broadcast_that_forgets_somebody_is_found_out() {
    let (address, handle) = loudspeaker(Some(3));
    let (stuck, status) = report(&address, "--mode broadcast -c 5 --warm-up 0s -d 300ms");
    assert_eq!((status, number(&stuck, "/errors/timeout")), (1, 1.0), "also in the end: {stuck:#}");
    handle.stop();
    let (address, handle) = loudspeaker(Some(3));
    let (report, status) = report(&address, "--mode broadcast -c 5 --timeout 200ms -d 2s");
    assert_eq!(status, 1);
    assert_eq!(number(&report, "/errors/timeout"), 1.0, "{report:#}");
    assert!(report["errors"]["first"].as_str().unwrap().contains("connection 3: no reply in time"));
    assert!(number(&report, "/messages") > 0.0, "the others go on: {report:#}");
    handle.stop();
}

#[test]
fn it_loads_over_tls_and_a_server_in_clear_is_none_for_that() {
    let simulated = concat!(env!("CARGO_MANIFEST_DIR"), "/../nonforker/src/sim");
    let flags = format!("--tls-cert {simulated}/certificate.pem --tls-key {simulated}/key.pem");
    let server = Server::start(&flags);
    for flags in ["--tls -c 4 -s 50000 -p 3", "--tls -c 2 --mode idle --exchange 1"] {
        let (report, status) = report(&server.addresses[0], flags);
        assert_eq!(status, 0, "{report:#}");
        assert_eq!(number(&report, "/errors/wrong"), 0.0, "{report:#}");
        assert_eq!(report["tls"], Value::Bool(true));
    }
    let (report, status) = report(&server.addresses[0], "--tls -c 2 --never-reading 1");
    assert!(number(&report, "/messages") >= 2.0, "{report:#}");
    assert_eq!(status, 0, "{report:#}");
    assert!(number(&report, "/slow/bytes_sent") > 64.0 * 1024.0, "{report:#}");
    drop(server);
    let in_clear = Server::start("");
    let output = bench(&in_clear.addresses[0], "--tls -c 1 --timeout 1s");
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("cannot connect"), "{}", output.stderr);
}

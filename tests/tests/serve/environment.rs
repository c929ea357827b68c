//! What the process and the kernel do to a server: signals, above all.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use nonforker::{Server, codec::Lines};

use crate::harness::{ANY, is_in_its_own_process, on_every_driver, wait_until};

fn echo(server: Server) -> Server {
    server.serve(ANY, Lines::new(), |conn, line| conn.send(line))
}

#[test]
fn a_write_to_a_client_that_is_gone_raises_no_signal() {
    use signal_hook::{consts::SIGPIPE, flag};

    if !is_in_its_own_process("environment::a_write_to_a_client_that_is_gone_raises_no_signal") {
        return;
    }
    let raised = Arc::new(AtomicBool::new(false));
    // In place of the default, which ends the process, and of Rust's, which ignores it.
    flag::register(SIGPIPE, Arc::clone(&raised)).expect("a handler can be installed");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    std::io::Write::write_all(&mut writer, b"x").expect_err("nobody reads");
    assert!(raised.swap(false, Relaxed), "the test sees the signal when there is one");
    drop(writer);

    on_every_driver(|case| {
        let folder = std::env::temp_dir().join(format!("nonforker-{}-pipe", std::process::id()));
        let unix = format!("unix:{}", folder.display());
        let server = case.start(|server| {
            server
                .serve(ANY, Lines::new(), |conn, line| {
                    thread::sleep(Duration::from_millis(2));
                    conn.send(line);
                })
                .also_on(unix)
        });
        for round in 0..60 {
            let address = &server.addresses()[round % 2];
            let client = crate::client::Client::connect(address);
            client.send("one\ntwo\nthree\n");
            if round % 4 < 2 { client.reset() } else { drop(client) }
        }
        // Who was reset before it was accepted may not be counted.
        server.settles();
        server.holds(0);
        assert!(server.stats().frames > 60, "{:?}", server.stats());
    });
    assert!(!raised.load(Relaxed), "SIGPIPE was raised");
}

#[test]
fn a_storm_of_signals_disturbs_nothing() {
    use signal_hook::{consts::SIGUSR1, flag};

    const TGKILL: u32 = 234;
    const COUNT: u32 = 2000;

    if !is_in_its_own_process("environment::a_storm_of_signals_disturbs_nothing") {
        return;
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        eprintln!("SKIPPED: the test does not know how to signal one thread here");
        return;
    }
    let raised = Arc::new(AtomicBool::new(false));
    flag::register(SIGUSR1, Arc::clone(&raised)).expect("a handler can be installed");
    on_every_driver(|case| {
        let server = case.start(echo);
        let Some((process, thread)) = server.process_and_thread() else {
            eprintln!("SKIPPED: this system does not name threads");
            return;
        };
        // To the very thread of the server, asleep or not.
        let script = format!(
            "for (1..{COUNT}) {{ syscall({TGKILL}, {process}, {thread}, {SIGUSR1}); \
             select(undef, undef, undef, 0.0002) }}"
        );
        let storm = Command::new("perl").args(["-e", &script]).stdin(Stdio::null()).spawn();
        let Ok(mut storm) = storm else {
            eprintln!("SKIPPED: there is no perl");
            return;
        };
        wait_until("signals arrive", || raised.load(Relaxed));
        let mut client = server.connect();
        let stream = b"a line in the storm\n".repeat(50_000);
        while storm.try_wait().expect("a child").is_none() {
            assert_eq!(client.ask("hello"), "hello");
            assert!(server.connect().exchange(&stream) == stream, "other bytes came back");
        }
        assert_eq!(client.ask("calm again"), "calm again");
    });
}

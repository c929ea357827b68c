//! Cases that need this system: threads, files and descriptors.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Client, OPTIONS, Rig, Transport,
    bench::Bench,
    kernel::{self, SocketDriver, Sockets},
};
use crate::{
    address::Address,
    driver::{Driver, Op},
};

type On<D> = Bench<Sockets<D>>;

pub(super) fn another_thread_ends_a_wait<D: SocketDriver>(bench: &mut On<D>) {
    for _ in 0..10 {
        let waker = bench.driver.waker();
        let thread = std::thread::spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "so that the other thread is asleep")]
            std::thread::sleep(Duration::from_millis(3));
            waker.wake();
        });
        let before = bench.log.wakes;
        bench.promptly("the other thread", |bench| bench.log.wakes > before);
        thread.join().expect("it only wakes");
    }
}

/// Runs `case` where there are Unix sockets, with a path that is free.
fn over_unix<D: SocketDriver>(bench: &mut On<D>, case: impl FnOnce(&mut On<D>, PathBuf)) {
    if bench.transport == Transport::Unix {
        let path = bench.rig.folder.join("socket");
        case(bench, path);
    }
}

fn listen(driver: &mut impl Driver, path: &Path) -> io::Result<Address> {
    driver.listen(0, &Address::Unix(path.to_owned()), true)
}

pub(super) fn a_unix_socket_has_the_mode_it_is_given<D: SocketDriver>(bench: &mut On<D>) {
    over_unix(bench, |bench, path| {
        listen(&mut bench.driver, &path).expect("the path is free");
        let mode = fs::symlink_metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, OPTIONS.unix_mode, "{mode:o}");
    });
}

pub(super) fn a_stale_unix_socket_is_replaced<D: SocketDriver>(bench: &mut On<D>) {
    over_unix(bench, |bench, path| {
        kernel::leave_stale(&path);
        let address = listen(&mut bench.driver, &path).expect("nobody answers there");
        bench.rig.connect(&address).expect("now somebody does");
    });
}

pub(super) fn a_unix_socket_in_use_is_left_alone<D: SocketDriver>(bench: &mut On<D>) {
    over_unix(bench, |bench, path| {
        let address = listen(&mut bench.driver, &path).expect("the path is free");
        let mut second = D::make(OPTIONS).expect("there is one already");
        let error = listen(&mut second, &path).expect_err("somebody answers there");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(second);
        bench.rig.connect(&address).expect("somebody still does");
    });
}

pub(super) fn a_file_that_is_no_socket_is_left_alone<D: SocketDriver>(bench: &mut On<D>) {
    over_unix(bench, |bench, path| {
        fs::write(&path, "precious").expect("the path is free");
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&path, &link).expect("the path is free");
        let missing = path.with_extension("missing");
        std::os::unix::fs::symlink("nowhere", &missing).expect("the path is free");
        for path in [&path, &link, &missing] {
            listen(&mut bench.driver, path).expect_err("there is a file");
        }
        assert_eq!(fs::read(&path).expect("it is there"), b"precious");
        assert!(fs::read_link(&link).is_ok() && fs::read_link(&missing).is_ok());
    });
}

pub(super) fn a_unix_socket_may_have_a_name_and_no_file<D: SocketDriver>(bench: &mut On<D>) {
    over_unix(bench, |bench, path| {
        if !cfg!(target_os = "linux") {
            return;
        }
        // As long as can be.
        let name = format!("{:x<107}", path.display());
        let address = Address::Abstract(name.clone());
        let listening = bench.driver.listen(0, &address, true).expect("the name is free");
        assert_eq!(listening, address);
        assert!(!path.exists(), "it is a name, and not a file");
        bench.rig.connect(&address).expect("somebody listens");
        let mut second = D::make(OPTIONS).expect("there is one already");
        let error = second.listen(0, &address, true).expect_err("the name is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        bench.driver.submit(Op::Unlisten { listener: 0 });
        // A driver may take a moment to let go.
        bench.settle();
        bench.rig.connect(&address).err().expect("nobody listens any more");
    });
}

pub(super) fn a_unix_socket_goes_with_its_listener<D: SocketDriver>(bench: &mut On<D>) {
    over_unix(bench, |bench, path| {
        listen(&mut bench.driver, &path).expect("the path is free");
        bench.driver.submit(Op::Unlisten { listener: 0 });
        // A driver may take a moment to let go.
        bench.settle();
        assert!(!path.exists(), "it was closed");

        let mut second = D::make(OPTIONS).expect("there is one already");
        listen(&mut second, &path).expect("the path is free again");
        drop(second);
        assert!(!path.exists(), "its driver is gone");
    });
}

pub(super) fn a_unix_socket_that_is_not_ours_any_more_stays<D: SocketDriver>(bench: &mut On<D>) {
    over_unix(bench, |bench, path| {
        listen(&mut bench.driver, &path).expect("the path is free");
        fs::remove_file(&path).expect("anybody may do this");
        let mut successor = D::make(OPTIONS).expect("there is one already");
        let address = listen(&mut successor, &path).expect("the path is free again");
        bench.driver.submit(Op::Unlisten { listener: 0 });
        bench.settle();
        bench.rig.connect(&address).expect("the successor's file is there");

        fs::remove_file(&path).expect("anybody may do this");
        fs::write(&path, "precious").expect("the path is free again");
        drop(successor);
        assert_eq!(fs::read(&path).expect("it is there"), b"precious");
    });
}

/// A read stops short behind a descriptor that was passed, although more has arrived.
pub(super) fn a_passed_descriptor_does_not_cut_the_stream<D: SocketDriver>(bench: &mut On<D>) {
    if !cfg!(target_os = "linux") || bench.transport != Transport::Unix {
        return;
    }
    let (mut client, token) = bench.open();
    bench.settle();
    assert_eq!(client.send(b"before "), 7);
    client.send_descriptor(b"with ");
    assert_eq!(client.send(b"behind"), 6);
    bench.receive(token, true);
    bench.promptly("the rest", |bench| bench.of(token).received == b"before with behind");
    bench.settle();
}

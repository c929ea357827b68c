//! Listeners that somebody else opened.

use std::{
    error::Error as _,
    fs::{self, File},
    net::{TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
};

use nonforker::{Address, Conn, Error, Handler, Outcome, Server, codec::Lines};

use crate::{
    client::Client,
    harness::{ANY, on_every_driver},
};

/// Tells each client who it is.
#[derive(Clone, Copy)]
struct Who;

impl Handler for Who {
    type Codec = Lines;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
        let peer = conn.peer();
        let ip = peer.ip().map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
        conn.send(format!("{} is {ip}", String::from_utf8_lossy(line)));
        Ok(())
    }
}

#[test]
fn a_tcp_listener_that_was_given_is_served_beside_others() {
    on_every_driver(|case| {
        // The standard library's block, and the server must not.
        let [one, two] = [(); 2].map(|()| TcpListener::bind(ANY).expect("a free port"));
        let given = [&one, &two].map(|listener| listener.local_addr().expect("it is bound"));
        let server = case.start(move |server| {
            server.serve_on(one, Lines::new(), Who).also_on(ANY).also_on_listener(two)
        });
        let addresses = server.addresses();
        assert_eq!([&addresses[0], &addresses[2]], given.map(Address::Tcp).each_ref());
        for address in addresses {
            let mut client = Client::connect(address);
            assert_eq!(client.ask("I"), "I is 127.0.0.1");
        }
    });
}

#[test]
fn a_client_of_both_families_has_the_address_it_has_elsewhere() {
    on_every_driver(|case| {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().expect("it is bound").port();
        let server = case.start(move |server| server.serve_on(listener, Lines::new(), Who));
        for ip in ["127.0.0.1", "[::1]"] {
            let address = format!("{ip}:{port}").parse().expect("an address");
            let mut client = Client::connect(&address);
            assert_eq!(client.ask("I"), format!("I is {}", ip.trim_matches(['[', ']'])));
        }
        drop(server);
    });
}

#[test]
fn the_file_of_a_unix_listener_stays_as_it_is() {
    on_every_driver(|case| {
        let folder = std::env::temp_dir().join(format!("nonforker-given-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).expect("the path is free");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
        let server = case.start(move |server| server.serve_on(listener, Lines::new(), Who));
        assert_eq!(*server.address(), Address::Unix(path.clone()));
        assert_eq!(server.connect().ask("I"), "I is unix");
        drop(server);
        let mode = fs::metadata(&path).expect("the file is still there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        fs::remove_dir_all(&folder).expect("the folder is ours");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_unix_listener_with_a_name_is_served() {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    on_every_driver(|case| {
        let name = format!("nonforker-given-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("the name is free");
        let server = case.start(move |server| server.serve_on(listener, Lines::new(), Who));
        assert_eq!(*server.address(), Address::Abstract(name));
        assert_eq!(server.connect().ask("I"), "I is unix");
    });
}

#[test]
fn another_process_that_holds_a_listener_goes_on_with_it() {
    on_every_driver(|case| {
        let held = TcpListener::bind(ANY).expect("a free port");
        let mut waiting = None;
        for round in 0..3 {
            let given = held.try_clone().expect("a descriptor is free");
            let server = case.start(move |server| server.serve_on(given, Lines::new(), Who));
            if let Some(mut client) = waiting.take() {
                let client: &mut Client = &mut client;
                assert_eq!(client.line(), "I is 127.0.0.1", "round {round}");
            }
            let mut client = server.connect();
            assert_eq!(client.ask("I"), "I is 127.0.0.1", "round {round}");
            drop(client);
            let address = server.address().clone();
            drop(server);
            // There is no server now, and the kernel takes clients all the same.
            let client = Client::connect(&address);
            client.send("I\n");
            waiting = Some(client);
        }
    });
}

#[test]
fn what_does_not_listen_is_refused() {
    on_every_driver(|case| {
        let (stream, _peer) = UnixStream::pair().expect("two sockets");
        let datagrams = UdpSocket::bind(ANY).expect("a free port");
        let file = File::open("/dev/null").expect("it is there");
        for given in [OwnedFd::from(stream), OwnedFd::from(datagrams), OwnedFd::from(file)] {
            let bound = case.server().serve_on(given, Lines::new(), Who).bind();
            let error = bound.expect_err("it does not listen");
            assert!(matches!(error, Error::GivenListener(_)), "{error}");
            assert!(error.source().is_some(), "it says why");
        }
        let unused =
            Server::new().serve_on(TcpListener::bind(ANY).expect("a port"), Lines::new(), Who);
        assert!(format!("{unused:?}").contains("Given"));
    });
}

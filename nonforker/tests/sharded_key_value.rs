//! The sharded store on the simulated network: what GET must return, on whatever shard a client is.

#![expect(unreachable_pub, reason = "the example is a program of its own")]

#[path = "../examples/sharded_key_value.rs"]
#[expect(dead_code, reason = "its `main` is not called here")]
mod example;

use nonforker::{
    Server,
    codec::Resp,
    sim::{Client, Faults, Simulation},
};

fn server() -> Server {
    Server::new().serve_with("127.0.0.1:1685", Resp::new(), example::Store::default())
}

#[test]
fn replies_come_in_order_whichever_shards_have_the_keys() {
    Simulation::new(server).shards(3).seeds(0..200).run(|net| {
        let clients: Vec<_> = (0..9).map(|_| net.connect()).collect();
        for (number, client) in clients.iter().enumerate() {
            for key in 0..8 {
                client
                    .send(format!("set {number}.{key} v{number}.{key}\r\nget {number}.{key}\r\n"));
            }
            client.send("fly\r\nget none\r\n");
        }
        for (number, client) in clients.iter().enumerate() {
            for key in 0..8 {
                client.expect(format!("$2\r\nOK\r\n$4\r\nv{number}.{key}\r\n"));
            }
            client.expect("-ERR it is GET key, or SET key value\r\n$-1\r\n");
        }
        // Every client finds what the others have stored.
        for client in &clients {
            client.send("get 0.1\r\nget 8.7\r\nget 4.4\r\n");
        }
        for client in &clients {
            client.expect("$4\r\nv0.1\r\n$4\r\nv8.7\r\n$4\r\nv4.4\r\n");
        }
    });
}

#[test]
fn a_client_that_leaves_while_its_command_travels_harms_nobody() {
    Simulation::new(server).shards(2).seeds(0..200).faults(Faults::swarm).run(|net| {
        let clients: Vec<_> = (0..6).map(|_| net.connect()).collect();
        for client in &clients {
            client.send("set a 1\r\nset b 2\r\nset c 3\r\nget a\r\n");
        }
        clients[..3].iter().for_each(Client::reset);
        for client in &clients[3..] {
            client.half_close();
            let all = b"$2\r\nOK\r\n$2\r\nOK\r\n$2\r\nOK\r\n$1\r\n1\r\n";
            assert!(all.starts_with(&client.receive_to_end().0));
        }
    });
}

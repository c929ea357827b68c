//! Newline echo, by hand over message-io. It reads all there is, hands it over in pieces of up to
//! 64 KiB, and writes until all is written.

#[path = "../../lines.rs"]
mod lines;

use std::{collections::HashMap, io};

use message_io::{
    network::{NetEvent, Transport},
    node,
};

fn main() -> io::Result<()> {
    let (handler, listener) = node::split::<()>();
    handler.network().listen(Transport::Tcp, lines::address())?;
    let mut partials: HashMap<_, lines::Partial> = HashMap::new();
    let mut output = Vec::new();
    listener.for_each(move |event| match event.network() {
        NetEvent::Accepted(endpoint, _) => {
            partials.insert(endpoint, lines::Partial::default());
        }
        NetEvent::Message(endpoint, bytes) => {
            let Some(partial) = partials.get_mut(&endpoint) else { return };
            if !partial.take(bytes, &mut output) {
                handler.network().remove(endpoint.resource_id());
            } else if !output.is_empty() {
                handler.network().send(endpoint, &output);
            }
            output.clear();
        }
        NetEvent::Disconnected(endpoint) => {
            partials.remove(&endpoint);
        }
        NetEvent::Connected(..) => {}
    });
    Ok(())
}

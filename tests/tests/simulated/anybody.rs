//! Sending to any connection of a service, the calling one included.

use nonforker::{Conn, ConnId, Handler, NotConnected, codec::Encode};

pub(crate) fn send_to<H: Handler, R>(
    conn: &mut Conn<'_, H>,
    id: ConnId,
    reply: R,
) -> Result<(), NotConnected>
where
    H::Codec: Encode<R>,
{
    if id == conn.id() {
        conn.send(reply);
    } else {
        conn.others().get(id)?.send(reply);
    }
    Ok(())
}

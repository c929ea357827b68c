//! The handler of the clients of workers.

use std::{cell::RefCell, rc::Rc};

use super::{BytesCodec, conns::WorkerConns, pool::Pool};
use crate::{
    connections::Connections,
    context::{Conn, ConnId},
    error::CloseReason,
    handler::{Frame, Handler, Outcome},
    remote::Remote,
    ticket::Ticket,
};

/// See the [module](self). On shards without workers its pool is not used.
pub(crate) struct WorkerClients<W: BytesCodec, C: BytesCodec> {
    pub(super) pool: Rc<RefCell<Pool<W, C>>>,
}

impl<W: BytesCodec, C: BytesCodec> Handler for WorkerClients<W, C> {
    type Codec = C;
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, Self>, payload: Frame<'_, Self>) -> Outcome {
        let (client, ticket) = (conn.id(), conn.defer_unordered());
        if client.shard() > 0 {
            return self.post(conn, client, ticket, payload);
        }
        let mut pool = self.pool.borrow_mut();
        if pool.ask(client, ticket, payload) {
            conn.pause();
        }
        let name = pool.name.clone();
        drop(pool);
        let mut workers = conn.service_named::<WorkerConns<W, C>>(&name)?;
        WorkerConns::go_on(&self.pool, &mut workers);
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        let client = conn.id();
        if client.shard() == 0 {
            self.pool.borrow_mut().forget(client);
            return;
        }
        if let Some(workers) = self.workers(&mut conn.others()) {
            // If that cannot be posted, what it has asked is answered for nobody.
            let _ = workers.post(move |workers, _| workers.pool.borrow_mut().forget(client));
        }
    }
}

impl<W: BytesCodec, C: BytesCodec> WorkerClients<W, C> {
    /// The service of the workers, where it has them.
    fn workers(&self, all: &mut Connections<'_, Self>) -> Option<Remote<WorkerConns<W, C>>> {
        let name = self.pool.borrow().name.clone();
        let workers = all.again().service_named::<WorkerConns<W, C>>(&name).ok()?;
        workers.remote().shard(0)
    }

    /// Posts a request to the shard that has the workers.
    fn post(
        &self,
        conn: &mut Conn<'_, Self>,
        client: ConnId,
        ticket: Ticket<Self>,
        payload: &[u8],
    ) -> Outcome {
        let Some(workers) = self.workers(&mut conn.others()) else { return Ok(()) };
        let payload = payload.to_vec();
        let ask = move |workers: &mut WorkerConns<W, C>, all: &mut Connections<'_, _>| {
            let is_full = workers.pool.borrow_mut().ask(client, ticket, &payload);
            if is_full {
                workers.hold(client, all, true);
            }
            WorkerConns::go_on(&workers.pool, all);
        };
        Ok(workers.post(ask)?)
    }
}

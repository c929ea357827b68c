//! The handler of the clients of workers.

use std::{cell::RefCell, rc::Rc, time::Duration};

use super::{
    BytesCodec,
    channel::{Channel, ToClients, ToWorkers},
    conns::WorkerConns,
    pool::Pool,
};
use crate::{
    connections::Connections,
    context::Conn,
    error::CloseReason,
    handler::{Frame, Handler, NotYet, Outcome},
};

/// How long a shard waits whose message finds another one's mailbox full.
pub(super) const RETRY: Duration = Duration::from_millis(1);

/// See the [module](self). On shards without workers, of its pool only the gate is used.
pub(crate) struct WorkerClients<W: BytesCodec, C: BytesCodec> {
    pub(super) pool: Rc<RefCell<Pool<W, C>>>,
    /// What is to be said to the shard that has the workers.
    pub(super) to_workers: Channel<ToWorkers<Self>>,
    is_retried: bool,
}

impl<W: BytesCodec, C: BytesCodec> Handler for WorkerClients<W, C> {
    type Codec = C;
    type Session = ();

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        if !self.pool.borrow().is_tagged() {
            return Ok(());
        }
        let (client, peer) = (conn.id(), conn.peer());
        if client.shard() > 0 {
            self.say(conn, ToWorkers::Open { client, peer });
        } else if self.pool.borrow().is_over {
            conn.close();
        } else {
            self.pool.borrow_mut().open(client, &peer);
            self.go_on(conn);
        }
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, payload: Frame<'_, Self>) -> Outcome {
        let client = conn.id();
        let mut pool = self.pool.borrow_mut();
        if !pool.gate.admits(client, payload.len()) {
            conn.pause();
            return Err(NotYet.into());
        }
        match (pool.is_tagged(), client.shard()) {
            (true, 0) => pool.data(client, payload)?,
            (false, 0) => pool.ask(client, conn.defer_unordered(), payload),
            (is_tagged, _) => {
                drop(pool);
                let payload = payload.to_vec();
                let message = match is_tagged {
                    true => ToWorkers::Data { client, payload },
                    false => ToWorkers::Ask { client, ticket: conn.defer_unordered(), payload },
                };
                self.say(conn, message);
                return Ok(());
            }
        }
        drop(pool);
        self.go_on(conn);
        Ok(())
    }

    fn half_closed(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let client = conn.id();
        if !self.pool.borrow().is_tagged() {
            conn.close();
        } else if client.shard() > 0 {
            self.say(conn, ToWorkers::End { client });
        } else {
            self.pool.borrow_mut().end(client, conn.now());
            self.go_on(conn);
        }
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let (client, why) = (conn.id(), reason.into());
        self.pool.borrow_mut().gate.forget(client);
        if client.shard() > 0 {
            self.let_go_on(&mut conn.others());
            self.say(conn, ToWorkers::Gone { client, why });
        } else {
            self.pool.borrow_mut().gone(client, why);
            self.go_on(conn);
        }
    }
}

impl<W: BytesCodec, C: BytesCodec> WorkerClients<W, C> {
    pub(super) fn new(pool: Rc<RefCell<Pool<W, C>>>) -> Self {
        Self { pool, to_workers: Channel::new(), is_retried: false }
    }

    /// Has the workers of this shard do what there is to do.
    fn go_on(&self, conn: &mut Conn<'_, Self>) {
        let name = self.pool.borrow().name.clone();
        if let Ok(mut workers) = conn.service_named::<WorkerConns<W, C>>(&name) {
            WorkerConns::go_on(&self.pool, &mut workers);
        }
    }

    /// Says something to the shard that has the workers.
    fn say(&mut self, conn: &mut Conn<'_, Self>, message: ToWorkers<Self>) {
        self.to_workers.push(message, 0);
        self.post(&mut conn.others());
    }

    fn post(&mut self, all: &mut Connections<'_, Self>) {
        let name = self.pool.borrow().name.clone();
        let Ok(workers) = all.again().service_named::<WorkerConns<W, C>>(&name) else { return };
        let Some(there) = workers.remote().shard(0) else { return };
        let posted = self.to_workers.post(&there, WorkerConns::take, WorkerConns::taken);
        all.core.owes_mail = !posted;
        if !posted && !self.is_retried {
            let again = |clients: &mut Self, all: &mut Connections<'_, Self>| {
                clients.is_retried = false;
                clients.post(all);
            };
            self.is_retried = all.after(RETRY, again).is_ok();
        }
    }

    /// Something is said to a client of this shard.
    pub(super) fn take(&mut self, message: ToClients, all: &mut Connections<'_, Self>) {
        match message {
            ToClients::Left(left) => self.pool.borrow_mut().gate.left(left),
            message => message.arrive(all),
        }
    }

    /// Lets clients of this shard go on for which there is a place.
    pub(super) fn let_go_on(&mut self, all: &mut Connections<'_, Self>) {
        self.pool.borrow_mut().release(all);
    }
}

impl ToClients {
    /// Does to a client what it says.
    pub(super) fn arrive<W: BytesCodec, C: BytesCodec>(
        self,
        clients: &mut Connections<'_, WorkerClients<W, C>>,
    ) {
        let id = match &self {
            Self::Left(_) => return,
            Self::Send { client, .. }
            | Self::Close { client }
            | Self::Refuse { client, .. }
            | Self::Overflows { client } => *client,
        };
        let Ok(mut client) = clients.get(id) else { return };
        match self {
            Self::Left(_) => {}
            Self::Send { framed, .. } => client.push_framed(&framed),
            Self::Close { .. } => client.close(),
            Self::Refuse { why, .. } => client.fail(why),
            Self::Overflows { .. } => client.overflow(),
        }
    }
}

impl<W: BytesCodec, C: BytesCodec> Pool<W, C> {
    /// Lets clients of this shard go on for which there is a place.
    pub(super) fn release(&mut self, clients: &mut Connections<'_, WorkerClients<W, C>>) {
        while let Some(client) = self.gate.release() {
            match clients.get(client) {
                Ok(mut client) => client.resume(),
                // It is about to leave, and asks no more.
                Err(_) => self.gate.forget(client),
            }
        }
    }
}

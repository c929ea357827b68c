//! The handler of the connections to workers.

use std::{cell::RefCell, rc::Rc};

use super::{
    BytesCodec,
    clients::WorkerClients,
    pool::{Ended, Pool},
};
use crate::{
    connections::Connections,
    context::{Conn, ConnId},
    error::{CloseReason, Error},
    handler::{Frame, Handler, Outcome},
};

/// See the [module](self).
pub(crate) struct WorkerConns<W: BytesCodec, C: BytesCodec> {
    pub(super) pool: Rc<RefCell<Pool<W, C>>>,
}

/// Which worker it is.
#[derive(Default)]
pub(crate) struct WorkerNumber(usize);

impl<W: BytesCodec, C: BytesCodec> Handler for WorkerConns<W, C> {
    type Codec = W;
    type Session = WorkerNumber;

    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        let count = self.pool.borrow().settings.count;
        if all.core.shard == 0 {
            (0..count).try_for_each(|worker| self.start(worker, all))?;
        }
        Ok(())
    }

    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let (worker, id, now) = (conn.session().0, conn.id(), conn.now());
        tracing::info!(worker, "a worker has started");
        self.pool.borrow_mut().begins(worker, id, now);
        self.go_on_with(conn);
        Ok(())
    }

    fn frame(&mut self, conn: &mut Conn<'_, Self>, payload: Frame<'_, Self>) -> Outcome {
        let (worker, now) = (conn.session().0, conn.now());
        if !self.pool.borrow_mut().replied(worker, payload, now) {
            conn.core.unasked(conn.slot, worker);
        }
        self.go_on_with(conn);
        Ok(())
    }

    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let (worker, now) = (conn.session().0, conn.now());
        let mut all = conn.others();
        let drains = all.core.shared.request.is_made();
        let ends = matches!(reason, CloseReason::Drained | CloseReason::Stopped);
        let ended = self.pool.borrow_mut().ended(worker, now);
        if ends || drains && matches!(reason, CloseReason::ConnectFailed(_)) {
            self.pool.borrow_mut().gives_up();
            return;
        }
        all.core.worker_ended(worker, reason);
        let has_begun = self.pool.borrow().has_begun;
        if ended == Ended::GiveUp || !has_begun {
            self.give_up(reason, &mut all);
        } else if !self.pool.borrow().is_over {
            let wait = self.pool.borrow_mut().reconnect(worker).next_wait(&mut all);
            let again = move |workers: &mut Self, all: &mut Connections<'_, Self>| -> Outcome {
                workers.start(worker, all)
            };
            if let Err(error) = all.after(wait, again) {
                tracing::error!(worker, "a worker cannot be started again: {error}");
            }
        }
        Self::go_on(&self.pool, &mut all);
    }
}

impl<W: BytesCodec, C: BytesCodec> WorkerConns<W, C> {
    fn start(&self, worker: usize, all: &mut Connections<'_, Self>) -> Outcome {
        let pool = self.pool.borrow();
        let target = pool.settings.target.of_worker(worker);
        all.connect_named::<Self>(&pool.name, target, WorkerNumber(worker))?;
        Ok(())
    }

    /// The server ends, since its workers do.
    fn give_up(&self, reason: &CloseReason, all: &mut Connections<'_, Self>) {
        let mut pool = self.pool.borrow_mut();
        if pool.is_over {
            return;
        }
        pool.gives_up();
        let worker = pool.settings.target.to_string();
        let reason = pool.settings.target.last_words().unwrap_or_else(|| reason.to_string());
        all.core.group.failure.note(Error::WorkersFailed { worker, reason });
        all.core.group.drain();
    }

    /// In a callback of a worker.
    fn go_on_with(&self, conn: &mut Conn<'_, Self>) {
        let (id, now) = (conn.id(), conn.now());
        self.pool.borrow_mut().feed(now, |worker, bytes| {
            if worker == id {
                conn.pass_on(bytes);
            } else if let Ok(mut other) = conn.others().get(worker) {
                other.pass_on(bytes);
            }
        });
        Self::go_on(&self.pool, &mut conn.others());
    }

    /// Has workers do what there is to do, clients go on that need not be held back any more, and sees to
    /// it that a worker that is late is noticed.
    pub(super) fn go_on(pool: &Rc<RefCell<Pool<W, C>>>, all: &mut Connections<'_, Self>) {
        let mut at_work = pool.borrow_mut();
        let now = all.now();
        at_work.feed(now, |worker, bytes| {
            if let Ok(mut worker) = all.get(worker) {
                worker.pass_on(bytes);
            }
        });
        if !at_work.held.is_empty() {
            for client in at_work.released() {
                hold(&at_work.name, client, all, false);
            }
        }
        if !at_work.is_watched
            && let (_, Some(next)) = at_work.late(now)
        {
            let watch = |workers: &mut Self, all: &mut Connections<'_, Self>| workers.look(all);
            at_work.is_watched = all.after(next.saturating_duration_since(now), watch).is_ok();
        }
    }

    /// Ends the workers that are late.
    fn look(&self, all: &mut Connections<'_, Self>) {
        self.pool.borrow_mut().is_watched = false;
        let (late, _) = self.pool.borrow().late(all.now());
        for worker in late {
            if let Ok(mut worker) = all.get(worker) {
                tracing::warn!(worker = worker.session().0, "a worker has not answered in time");
                worker.abort();
            }
        }
        Self::go_on(&self.pool, all);
    }

    pub(super) fn hold(&self, client: ConnId, all: &mut Connections<'_, Self>, holds: bool) {
        hold(&self.pool.borrow().name, client, all, holds);
    }
}

/// Holds a client back, or lets it go on, on whichever shard it is.
fn hold<W: BytesCodec, C: BytesCodec>(
    name: &str,
    client: ConnId,
    all: &mut Connections<'_, WorkerConns<W, C>>,
    holds: bool,
) {
    let Ok(mut clients) = all.again().service_named::<WorkerClients<W, C>>(name) else { return };
    let act = move |clients: &mut Connections<'_, WorkerClients<W, C>>| {
        if let Ok(mut client) = clients.get(client) {
            if holds { client.pause() } else { client.resume() }
        }
    };
    if client.shard() > 0 {
        let there = clients.remote().shard(client.shard());
        let _ = there.map(|there| {
            there.post(move |_: &mut _, clients: &mut Connections<'_, _>| act(clients))
        });
    } else {
        act(&mut clients);
    }
}

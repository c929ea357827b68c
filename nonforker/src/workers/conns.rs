//! The handler of the connections to workers.

use std::{cell::RefCell, rc::Rc};

use super::{
    BytesCodec,
    channel::ToWorkers,
    clients::{RETRY, WorkerClients},
    pool::{Ended, GIVEN_MAX, Pool},
    tagged::Heard,
};
use crate::{
    connections::{Connections, Other},
    context::Conn,
    engine::failures::WorkerSays,
    error::{CloseReason, ConnectError, Error},
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
        let (count, shards) = (self.pool.borrow().settings.count, all.core.group.shards());
        let bytes_max = all.core.limits.budget().0 / 16 / shards;
        self.pool.borrow_mut().begin(all.shard(), shards, bytes_max);
        if all.core.shard == 0 {
            all.core.serves_others = shards > 1;
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
        let mut pool = self.pool.borrow_mut();
        let said = if !pool.is_tagged() {
            (!pool.replied(worker, payload, now)).then_some(WorkerSays::Unasked)
        } else {
            match pool.heard(worker, payload) {
                Heard::Line => None,
                Heard::UnknownId => Some(WorkerSays::UnknownId),
                Heard::BadLine => Some(WorkerSays::BadLine(payload)),
            }
        };
        drop(pool);
        if let Some(said) = said {
            conn.core.worker_says(conn.slot, worker, said);
        }
        self.go_on_with(conn);
        Ok(())
    }

    fn draining(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        // All clients are gone, and it reads so, also if it has much to read.
        let (id, now) = (conn.id(), conn.now());
        self.pool.borrow_mut().feed(now, |worker, bytes| {
            if worker == id && !bytes.is_empty() {
                conn.pass_on(bytes);
            }
            worker == id
        });
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
        all.core.worker_ended(worker, &why_ended(reason));
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

/// What the end of a worker's connection says of the worker.
fn why_ended(reason: &CloseReason) -> String {
    match reason {
        CloseReason::PeerFinished => "it has closed its output".to_owned(),
        CloseReason::ConnectFailed(error) => format!("it cannot be started: {error}"),
        CloseReason::Broken(error) => format!("its output has ended: {error}"),
        CloseReason::Aborted => "it was replaced".to_owned(),
        CloseReason::Rejected(error) => format!("its reply is refused: {error}"),
        CloseReason::WriteTimeout => "it has not read what it was sent in time".to_owned(),
        _ => reason.to_string(),
    }
}

impl<W: BytesCodec, C: BytesCodec> WorkerConns<W, C> {
    fn start(&self, worker: usize, all: &mut Connections<'_, Self>) -> Outcome {
        let pool = self.pool.borrow();
        let target = pool.settings.target.of_worker(worker);
        match all.connect_named::<Self>(&pool.name, target, WorkerNumber(worker)) {
            // Nobody needs it any more.
            Err(ConnectError::Ending) => Ok(()),
            started => Ok(started.map(drop)?),
        }
    }

    /// The server ends, since its workers do.
    fn give_up(&self, reason: &CloseReason, all: &mut Connections<'_, Self>) {
        let mut pool = self.pool.borrow_mut();
        if pool.is_over {
            return;
        }
        pool.gives_up();
        let worker = pool.settings.target.to_string();
        let reason = pool.settings.target.last_words().unwrap_or_else(|| why_ended(reason));
        all.core.group.failure.note(Error::WorkersFailed { worker, reason });
        all.core.group.drain();
    }

    /// In a callback of a worker.
    fn go_on_with(&self, conn: &mut Conn<'_, Self>) {
        let (id, now) = (conn.id(), conn.now());
        self.pool.borrow_mut().feed(now, |worker, bytes| {
            if worker != id {
                return match conn.others().get(worker) {
                    Ok(mut other) => pass_on(&mut other, bytes),
                    Err(_) => false,
                };
            }
            if !bytes.is_empty() {
                conn.pass_on(bytes);
            }
            conn.queued() < GIVEN_MAX
        });
        Self::go_on(&self.pool, &mut conn.others());
    }

    /// Has workers do what there is to do, tells clients what there is to tell, lets them go on that need
    /// not be held back any more, and sees to it that what is late is noticed.
    pub(super) fn go_on(pool: &Rc<RefCell<Pool<W, C>>>, all: &mut Connections<'_, Self>) {
        let mut at_work = pool.borrow_mut();
        let now = all.now();
        at_work.feed(now, |worker, bytes| match all.get(worker) {
            Ok(mut worker) => pass_on(&mut worker, bytes),
            Err(_) => false,
        });
        at_work.settle();
        let is_full = at_work.is_any_full() || !Self::post(&at_work, all);
        let name = at_work.name.clone();
        if let Ok(mut clients) = all.again().service_named::<WorkerClients<W, C>>(&name) {
            while let Some(message) = at_work.here.pop_front() {
                message.arrive(&mut clients);
            }
            at_work.release(&mut clients);
        }
        if is_full && !at_work.is_retried {
            let retry = |workers: &mut Self, all: &mut Connections<'_, Self>| {
                workers.pool.borrow_mut().is_retried = false;
                Self::go_on(&workers.pool, all);
            };
            at_work.is_retried = all.after(RETRY, retry).is_ok();
        }
        if !at_work.is_watched
            && let Some(next) = at_work.due()
        {
            let watch = |workers: &mut Self, all: &mut Connections<'_, Self>| workers.look(all);
            at_work.is_watched = all.after(next.saturating_duration_since(now), watch).is_ok();
        }
    }

    /// Posts to other shards what is said to their clients. Returns whether all is on its way.
    fn post(pool: &Pool<W, C>, all: &mut Connections<'_, Self>) -> bool {
        if pool.elsewhere.len() < 2 {
            return true;
        }
        let clients = all.again().service_named::<WorkerClients<W, C>>(&pool.name);
        let Ok(clients) = clients.map(|clients| clients.remote()) else { return true };
        let others = pool.elsewhere.iter().enumerate().skip(1);
        others.fold(true, |all, (shard, channel)| {
            let there = clients.shard(shard);
            let take = WorkerClients::take;
            let posted =
                there.is_none_or(|there| channel.post(&there, take, WorkerClients::let_go_on));
            all && posted
        })
    }

    /// Another shard says something about one of its clients.
    pub(super) fn take(
        &mut self,
        message: ToWorkers<WorkerClients<W, C>>,
        all: &mut Connections<'_, Self>,
    ) {
        let mut pool = self.pool.borrow_mut();
        match message {
            ToWorkers::Ask { client, ticket, payload } => pool.ask(client, ticket, &payload),
            ToWorkers::Open { client, peer } => pool.open(client, &peer),
            ToWorkers::Data { client, payload } => {
                if let Err(why) = pool.data(client, &payload) {
                    pool.refuse(client, why);
                }
            }
            ToWorkers::End { client } => pool.end(client, all.now()),
            ToWorkers::Gone { client, why } => pool.gone(client, why),
        }
    }

    /// All that it had to say is taken.
    pub(super) fn taken(&mut self, all: &mut Connections<'_, Self>) {
        Self::go_on(&self.pool, all);
    }

    /// Ends the workers that are late, and clients that have ended.
    fn look(&self, all: &mut Connections<'_, Self>) {
        let mut pool = self.pool.borrow_mut();
        pool.is_watched = false;
        pool.end_late(all.now());
        let late = pool.late(all.now());
        drop(pool);
        for worker in late {
            if let Ok(mut worker) = all.get(worker) {
                tracing::warn!(worker = worker.session().0, "a worker has not answered in time");
                worker.abort();
            }
        }
        Self::go_on(&self.pool, all);
    }
}

/// Writes to a worker. Returns whether it takes more.
fn pass_on<W: BytesCodec, C: BytesCodec>(
    worker: &mut Other<'_, WorkerConns<W, C>>,
    bytes: &[u8],
) -> bool {
    if !bytes.is_empty() {
        worker.pass_on(bytes);
    }
    worker.queued() < GIVEN_MAX
}

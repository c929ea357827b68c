//! The right and the duty to answer one request later.

use std::{any::Any, fmt, marker::PhantomData, sync::Arc};

use crate::{
    codec::Encode,
    conn::{
        output::Origin,
        tickets::{Fate, TicketId},
    },
    context::Conn,
    driver::Token,
    engine::{
        mail::{Letter, Mailbox},
        service::Scope,
        tickets::{Answer, Answered},
    },
    error::Gone,
    handler::{Handler, IntoOutcome},
    service::call,
};

/// The right and the duty to answer one request of one connection later, from any thread: see
/// [`Conn::defer`].
///
/// It is answered once: [`send`](Self::send) and [`then`](Self::then) take it.
///
/// ```compile_fail
/// # use nonforker::{Ticket, Closure, codec::Lines};
/// # fn answer(ticket: Ticket<Closure<Lines>>) -> Result<(), nonforker::Gone> {
/// ticket.send("one")?;
/// ticket.send("two")?; // error: use of moved value
/// # Ok(())
/// # }
/// ```
///
/// A ticket that is dropped closes its connection with
/// [`CloseReason::Unanswered`](crate::CloseReason::Unanswered): its client would wait for ever.
#[must_use = "a ticket that is dropped closes its connection"]
pub struct Ticket<H: Handler> {
    /// Nothing if the connection was closing when it was taken, or it is answered.
    right: Option<Right>,
    handler: PhantomData<fn(H)>,
}

/// Which ticket it is, and where to send the answer.
struct Right {
    mailbox: Arc<Mailbox>,
    fate: Arc<Fate>,
    token: Token,
    id: TicketId,
}

impl Right {
    fn use_up(self, answer: Option<Box<dyn Answer>>) -> Result<(), Gone> {
        let Self { mailbox, fate, token, id } = self;
        if fate.is_gone() {
            return Err(Gone);
        }
        mailbox.post_answer(Letter::Answer(Answered { token, id, fate, answer }))
    }
}

impl<H: Handler> fmt::Debug for Ticket<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.right.as_ref().map(|right| right.id);
        f.debug_struct("Ticket").field("id", &id).finish_non_exhaustive()
    }
}

impl<H: Handler> Drop for Ticket<H> {
    fn drop(&mut self) {
        if let Some(right) = self.right.take() {
            // If the connection is gone, nobody waits.
            let _ = right.use_up(None);
        }
    }
}

impl<H: Handler> Ticket<H> {
    /// Answers with a reply, which the connection's own codec frames in the server's loop.
    ///
    /// # Errors
    ///
    /// [`Gone`] if the connection has closed, or the server has ended, as far as that is known
    /// already. If it closes while the answer is on its way, the answer is dropped and nobody hears of
    /// it.
    ///
    /// # Panics
    ///
    /// From another thread while the server is [simulated](crate::sim).
    pub fn send<R>(self, reply: R) -> Result<(), Gone>
    where
        H::Codec: Encode<R>,
        R: Send + 'static,
    {
        self.then(move |_, conn| conn.send(reply))
    }

    /// Answers with what a closure sends, also if that is nothing. It is called in the server's loop,
    /// with the handler and the connection.
    ///
    /// What it sends leaves in the place of the answer. An error that it returns, or a panic, ends the
    /// connection. A ticket that it takes itself takes the place of this answer.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send).
    pub fn then<F, R>(self, answer: F) -> Result<(), Gone>
    where
        F: FnOnce(&mut H, &mut Conn<'_, H>) -> R + Send + 'static,
        R: IntoOutcome + 'static,
    {
        self.answer("ticket", answer)
    }

    pub(crate) fn answer<F, R>(mut self, callback: &'static str, answer: F) -> Result<(), Gone>
    where
        F: FnOnce(&mut H, &mut Conn<'_, H>) -> R + Send + 'static,
        R: IntoOutcome + 'static,
    {
        let right = self.right.take().ok_or(Gone)?;
        let types = PhantomData::<fn(H) -> R>;
        right.use_up(Some(Box::new(Given { answer, callback, types })))
    }

    /// Whether the connection is known to be gone: to answer is of no use then.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.right.as_ref().is_none_or(|right| right.fate.is_gone())
    }
}

/// A closure that answers.
struct Given<F, T> {
    answer: F,
    callback: &'static str,
    types: PhantomData<T>,
}

impl<H, F, R> Answer for Given<F, fn(H) -> R>
where
    H: Handler,
    F: FnOnce(&mut H, &mut Conn<'_, H>) -> R + Send,
    R: IntoOutcome,
{
    fn give(self: Box<Self>, handler: &mut dyn Any, scope: Scope<'_>) {
        let Some(handler) = handler.downcast_mut::<H>() else { return };
        let Self { answer, callback, .. } = *self;
        call(handler, scope, Origin::Reply, callback, |handler, conn| {
            answer(handler, conn).into_outcome()
        });
    }
}

impl<H: Handler> Conn<'_, H> {
    /// Takes the right and the duty to answer later: a ticket, which any thread may have.
    ///
    /// Until it is answered, later requests of this connection wait, and those of all others do not.
    /// What is sent after this call leaves behind the answer. Several tickets are answered in any
    /// order, and their answers leave in the order in which they were taken. What others push does not
    /// wait. A [`close`](Self::close) waits, and so does the end of a peer that has finished, and a
    /// drain, up to its deadline.
    ///
    /// If it is not answered within [`Limits::answer_timeout`](crate::Limits::answer_timeout), the
    /// connection closes with [`CloseReason::AnswerTimeout`](crate::CloseReason::AnswerTimeout). While
    /// [`Limits::tickets_max`](crate::Limits::tickets_max) tickets are open, further requests to
    /// services that take tickets wait; those that are being handled still get theirs.
    ///
    /// On a connection that closes, and in [`Handler::closed`], the ticket is [`Gone`] at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{thread, time::Duration};
    /// use nonforker::{Server, codec::Lines};
    ///
    /// let server = Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| {
    ///     let (ticket, line) = (conn.defer(), line.to_vec());
    ///     thread::spawn(move || {
    ///         thread::sleep(Duration::from_millis(10));
    ///         // The client may have left meanwhile.
    ///         let _ = ticket.send(line);
    ///     });
    /// });
    /// # let _ = server;
    /// ```
    pub fn defer(&mut self) -> Ticket<H> {
        self.take_ticket(true)
    }

    /// As [`defer`](Self::defer), for protocols whose replies say which request they answer: later
    /// requests do not wait, and answers leave as they come.
    ///
    /// While 128 such tickets of a connection are open, its further requests wait.
    pub fn defer_unordered(&mut self) -> Ticket<H> {
        self.take_ticket(false)
    }

    fn take_ticket(&mut self, in_order: bool) -> Ticket<H> {
        let right = self.core.defer(self.slot, in_order).map(|(id, fate)| Right {
            mailbox: Arc::clone(&self.core.mail.mailbox),
            fate,
            token: self.slot.token(),
            id,
        });
        Ticket { right, handler: PhantomData }
    }
}

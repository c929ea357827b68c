//! What a user writes: plain synchronous Rust that turns requests into replies.

use crate::{
    codec::{Codec, FrameError},
    context::Conn,
    error::CloseReason,
};

/// What a callback answers. An error ends the connection it was called for, and no other, after
/// what was queued has been sent.
///
/// Any error converts with `?`.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A handler's callback for urgent bytes: see [`Handler::URGENT`]. An error ends the connection.
pub type Urgent<H, C> = fn(&mut H, &mut Conn<'_, C, <H as Handler<C>>::Session>, u8) -> Outcome;

/// Handles the requests of every connection of one service.
///
/// A handler is called by one thread and never entered twice at once, so its state needs no lock,
/// no `Arc` and no `Send`. It must not block: while it runs, nothing else on its shard does. A
/// callback that takes longer than [`Limits::slow_handler`](crate::Limits::slow_handler) is named
/// in a warning.
///
/// An error or a panic in a callback ends that one connection. After a panic the handler goes on
/// with whatever state the panic left it in.
///
/// Only [`frame`](Self::frame) is required. For a handler that needs neither state nor the other
/// callbacks, a closure given to [`Server::serve`](crate::Server::serve) is shorter.
///
/// # Examples
///
/// Each client gives its name in its first line; the total is shared by all:
///
/// ```
/// use std::io::Write;
/// use nonforker::{Conn, Handler, Outcome, codec::Lines};
///
/// #[derive(Default)]
/// struct Counter {
///     total: u64,
/// }
///
/// impl Handler<Lines> for Counter {
///     type Session = Option<String>;
///
///     fn frame(&mut self, conn: &mut Conn<'_, Lines, Option<String>>, line: &[u8]) -> Outcome {
///         self.total += 1;
///         match conn.session() {
///             None => {
///                 *conn.session_mut() = Some(std::str::from_utf8(line)?.to_owned());
///                 conn.send("welcome");
///             }
///             Some(name) => {
///                 let reply = format!("{name} said line {}", self.total);
///                 conn.send(reply);
///             }
///         }
///         Ok(())
///     }
/// }
/// # let _ = nonforker::Server::new().serve_with("127.0.0.1:0", Lines::new(), Counter::default());
/// ```
pub trait Handler<C: Codec>: Sized + 'static {
    /// What the handler remembers for one connection, from before [`open`](Self::open) until
    /// after [`closed`](Self::closed).
    type Session: Default + 'static;

    /// What is called when the peer sent an urgent (out-of-band) byte, beside its stream of
    /// frames; nothing by default, and the byte is dropped.
    ///
    /// It is a constant so that it is known before anybody connects: to be told of urgent bytes
    /// costs more system calls on some drivers, and who does not want them does not pay.
    ///
    /// TCP keeps one urgent byte at a time. Of several that arrive together the last is reported
    /// here; the kernel drops those before it, or leaves them in the stream. A protocol that must
    /// not lose one waits for an answer before it sends the next, as telnet does.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{Conn, Handler, Outcome, Urgent, codec::Lines};
    ///
    /// struct Shell;
    ///
    /// impl Shell {
    ///     fn interrupt(&mut self, conn: &mut Conn<'_, Lines>, _byte: u8) -> Outcome {
    ///         conn.send("interrupted");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Handler<Lines> for Shell {
    ///     type Session = ();
    ///     const URGENT: Option<Urgent<Self, Lines>> = Some(Self::interrupt);
    ///
    ///     fn frame(&mut self, conn: &mut Conn<'_, Lines>, line: &[u8]) -> Outcome {
    ///         conn.send(line);
    ///         Ok(())
    ///     }
    /// }
    /// # let _ = nonforker::Server::new().serve_with("127.0.0.1:0", Lines::new(), Shell);
    /// ```
    const URGENT: Option<Urgent<Self, C>> = None;

    /// A complete request has arrived. Called once for each, in order.
    ///
    /// # Errors
    ///
    /// Any error ends this connection.
    fn frame(&mut self, conn: &mut Conn<'_, C, Self::Session>, frame: C::Frame<'_>) -> Outcome;

    /// Somebody has connected. A greeting may be sent; [`Conn::abort`] or an error refuses them.
    ///
    /// # Errors
    ///
    /// Any error ends this connection.
    fn open(&mut self, conn: &mut Conn<'_, C, Self::Session>) -> Outcome {
        let _ = conn;
        Ok(())
    }

    /// The queue for this peer had been above the high watermark, and is now at the low one:
    /// a handler that sends much can go on.
    ///
    /// # Errors
    ///
    /// Any error ends this connection.
    fn relieved(&mut self, conn: &mut Conn<'_, C, Self::Session>) -> Outcome {
        let _ = conn;
        Ok(())
    }

    /// The peer has finished sending, and all its requests have been handled. It may still read.
    ///
    /// By default the connection is closed, once the replies are sent. A handler that overrides
    /// this without closing goes on sending, and closes some time.
    ///
    /// # Errors
    ///
    /// Any error ends this connection.
    fn half_closed(&mut self, conn: &mut Conn<'_, C, Self::Session>) -> Outcome {
        conn.close();
        Ok(())
    }

    /// The time set by [`Conn::set_timer`] has come.
    ///
    /// # Errors
    ///
    /// Any error ends this connection.
    fn timer(&mut self, conn: &mut Conn<'_, C, Self::Session>) -> Outcome {
        let _ = conn;
        Ok(())
    }

    /// The peer's bytes cannot be split into frames any more. A last word may be sent: the peer
    /// really gets it, and the connection closes behind it.
    fn rejected(&mut self, conn: &mut Conn<'_, C, Self::Session>, error: &FrameError) {
        let _ = (conn, error);
    }

    /// The connection has ended. Nothing is called for it after this, and what is sent to it is
    /// dropped; others can still be [sent to](Conn::send_to).
    fn closed(&mut self, conn: &mut Conn<'_, C, Self::Session>, reason: &CloseReason) {
        let _ = (conn, reason);
    }
}

/// What a closure may return as its [`Outcome`]: nothing, or a result with any error.
pub trait IntoOutcome {
    /// Turns it into an outcome.
    ///
    /// # Errors
    ///
    /// The closure's own.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Ok(())
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Outcome {
        self.map_err(Into::into)
    }
}

/// A closure as a handler.
#[derive(Debug)]
pub(crate) struct FrameFn<F>(pub(crate) F);

impl<C, F, R> Handler<C> for FrameFn<F>
where
    C: Codec,
    F: for<'c, 'f> FnMut(&mut Conn<'c, C>, C::Frame<'f>) -> R + 'static,
    R: IntoOutcome,
{
    type Session = ();

    fn frame(&mut self, conn: &mut Conn<'_, C>, frame: C::Frame<'_>) -> Outcome {
        (self.0)(conn, frame).into_outcome()
    }
}

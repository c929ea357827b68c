//! What a user writes: plain synchronous Rust that turns requests into replies.

use std::{fmt, marker::PhantomData};

use crate::{
    codec::{Codec, FrameError},
    connections::Connections,
    context::Conn,
    error::CloseReason,
};

/// An error of a handler, of any type: `?` converts.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the callback of a frame answers that cannot be handled yet, and that it has paused its connection
/// for: it is decoded again when the pause ends.
#[derive(Debug, thiserror::Error)]
#[error("not yet")]
pub(crate) struct NotYet;

/// What a callback answers. An error ends the connection it was called for, and no other, after
/// what was queued has been sent.
///
/// Any error converts with `?`.
pub type Outcome = Result<(), Failure>;

/// A frame of the codec of a handler, borrowed from the bytes that were received.
pub type Frame<'f, H> = <<H as Handler>::Codec as Codec>::Frame<'f>;

/// A handler's callback for urgent bytes: see [`Handler::URGENT`]. An error ends the connection.
pub type Urgent<H> = fn(&mut H, &mut Conn<'_, H>, u8) -> Outcome;

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
/// impl Handler for Counter {
///     type Codec = Lines;
///     type Session = Option<String>;
///
///     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
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
pub trait Handler: Sized + 'static {
    /// What splits the bytes of its connections into frames, and frames its replies.
    type Codec: Codec;
    /// What the handler remembers for one connection, from before [`open`](Self::open) until
    /// after [`closed`](Self::closed).
    type Session: Default + 'static;

    /// What is called when the peer sent an urgent (out-of-band) byte, beside its stream of
    /// frames; nothing by default, and the byte is dropped.
    ///
    /// It is a constant, so that the driver knows it before the first connection: with some drivers
    /// urgent bytes cost more system calls, and a handler that does not want them does not pay.
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
    ///     fn interrupt(&mut self, conn: &mut Conn<'_, Self>, _byte: u8) -> Outcome {
    ///         conn.send("interrupted");
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Handler for Shell {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///     const URGENT: Option<Urgent<Self>> = Some(Self::interrupt);
    ///
    ///     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
    ///         conn.send(line);
    ///         Ok(())
    ///     }
    /// }
    /// # let _ = nonforker::Server::new().serve_with("127.0.0.1:0", Lines::new(), Shell);
    /// ```
    const URGENT: Option<Urgent<Self>> = None;

    /// The server begins, and no connection is accepted yet. Here a handler sets timers that belong to
    /// no connection: [`Connections::every`].
    ///
    /// # Errors
    ///
    /// Any error, and a panic, ends [`Bound::run`](crate::Bound::run) with
    /// [`Error::Handler`](crate::Error::Handler).
    fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
        let _ = all;
        Ok(())
    }

    /// A complete request has arrived. Called once for each, in order.
    ///
    /// # Errors
    ///
    /// Any error ends this connection.
    fn frame(&mut self, conn: &mut Conn<'_, Self>, frame: Frame<'_, Self>) -> Outcome;

    /// Somebody has connected. A greeting may be sent; [`Conn::abort`] or an error refuses them.
    ///
    /// # Errors
    ///
    /// Any error ends this connection.
    fn open(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let _ = conn;
        Ok(())
    }

    /// The queue for this peer had been above the high watermark, and is now at the low one:
    /// a handler that sends much can go on.
    ///
    /// # Errors
    ///
    /// Any error ends this connection.
    fn relieved(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
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
    fn half_closed(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        conn.close();
        Ok(())
    }

    /// The server drains, all complete requests of this peer have been handled, and the connection
    /// closes after this. A goodbye may be sent: the peer really gets it.
    ///
    /// It is not called for a peer that does not take its replies, nor for a connection that is
    /// [paused](Conn::pause), and not if the server is [stopped](crate::Handle::stop).
    ///
    /// # Errors
    ///
    /// Any error is the reason for which the connection ends.
    fn draining(&mut self, conn: &mut Conn<'_, Self>) -> Outcome {
        let _ = conn;
        Ok(())
    }

    /// The peer's bytes cannot be split into frames any more. A last word may be sent: the peer
    /// really gets it, and the connection closes behind it.
    fn rejected(&mut self, conn: &mut Conn<'_, Self>, error: &FrameError) {
        let _ = (conn, error);
    }

    /// The connection has ended. Nothing is called for it after this, and what is sent to it is
    /// dropped; [others](Conn::others) can still be sent to.
    fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let _ = (conn, reason);
    }
}

/// What a closure may return: nothing, or an [`Outcome`].
#[diagnostic::on_unimplemented(
    message = "a closure returns nothing or `Ok(())`, not `{Self}`: send replies with \
               `conn.send(..)`, pass errors on with `Ok(call()?)`",
    label = "a closure that is called here returns `{Self}`",
    note = "a closure that may fail returns `nonforker::Outcome`: `|conn, line| -> nonforker::Outcome`"
)]
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

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

/// The handler of a service whose frames a closure gets, given to
/// [`Server::serve`](crate::Server::serve): a closure's connection is a `Conn<'_, Closure<C>>`.
///
/// It is a marker, and has no state: that of the closure is in the closure.
pub struct Closure<C: Codec>(PhantomData<fn(C)>);

impl<C: Codec> fmt::Debug for Closure<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closure").finish_non_exhaustive()
    }
}

impl<C: Codec> Handler for Closure<C> {
    type Codec = C;
    type Session = ();

    /// The closure is called instead: see `OnFrame`.
    fn frame(&mut self, _conn: &mut Conn<'_, Self>, _frame: C::Frame<'_>) -> Outcome {
        Ok(())
    }
}

/// What a service calls for its frames, and the handler of everything else. So a closure is called
/// without a pointer between, though its type is not that of the handler.
pub(crate) trait Frames<H: Handler>: 'static {
    fn handler(&mut self) -> &mut H;
    fn frame(&mut self, conn: &mut Conn<'_, H>, frame: Frame<'_, H>) -> Outcome;
}

impl<H: Handler> Frames<H> for H {
    fn handler(&mut self) -> &mut H {
        self
    }

    #[inline]
    fn frame(&mut self, conn: &mut Conn<'_, H>, frame: Frame<'_, H>) -> Outcome {
        Handler::frame(self, conn, frame)
    }
}

/// A closure that is called for every frame.
pub(crate) struct OnFrame<C: Codec, F> {
    marker: Closure<C>,
    on_frame: F,
}

impl<C: Codec, F> OnFrame<C, F> {
    pub(crate) const fn new(on_frame: F) -> Self {
        Self { marker: Closure(PhantomData), on_frame }
    }
}

impl<C, F, R> Frames<Closure<C>> for OnFrame<C, F>
where
    C: Codec,
    F: for<'c, 'f> FnMut(&mut Conn<'c, Closure<C>>, C::Frame<'f>) -> R + 'static,
    R: IntoOutcome,
{
    fn handler(&mut self) -> &mut Closure<C> {
        &mut self.marker
    }

    #[inline(always)]
    fn frame(&mut self, conn: &mut Conn<'_, Closure<C>>, frame: C::Frame<'_>) -> Outcome {
        (self.on_frame)(conn, frame).into_outcome()
    }
}

//! Where bytes become frames and frames become calls: a codec and a handler, their types known.
//!
//! ```text
//!  received(bytes) ─┐
//!                   ├─▶ batch: decode, handle ──▶ handler.frame(conn, frame)
//!  advance()  ──────┘
//!   (what was kept)
//! ```
//!
//! The engine sees a [`Service`], one dynamic call per batch of bytes; within the batch everything
//! is static. Frames are decoded where the bytes lie, in the driver's memory if nothing was kept.
//!
//! Codec and handler are the user's. Whatever they panic with ends the one connection they were
//! called for: each entry here catches it.

mod batch;

use std::{
    any::{Any, TypeId},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use self::batch::{Batch, Stop};
use crate::{
    alarms::Run,
    codec::{Codec, Decoded, FrameError},
    conn::{
        deadlines::Kind,
        output::Origin,
        state::{Incoming, State},
    },
    connections::{Connections, ServiceAlarms},
    context::{Conn, Member},
    engine::{
        core::Core,
        desk::Desk,
        failures::message,
        rules::Rules,
        service::{Scope, Service},
        slot::{ServiceId, Slot},
        table::{Entry, Table},
        topics::{Message, Topics},
    },
    error::CloseReason,
    handler::{Frames, Handler, Outcome},
};

/// A [`Service`] whose types are known.
pub(crate) struct Typed<H: Handler, F> {
    prototype: Rc<H::Codec>,
    frames: F,
    name: Option<String>,
}

impl<H: Handler, F: Frames<H>> Typed<H, F> {
    pub(crate) fn new(prototype: H::Codec, frames: F) -> Self {
        Self { prototype: Rc::new(prototype), frames, name: None }
    }

    /// Makes one callback and sees to what it answers.
    fn call(
        &mut self,
        scope: Scope<'_>,
        callback: &'static str,
        call: impl FnOnce(&mut H, &mut Conn<'_, H>) -> Outcome,
    ) {
        self::call(self.frames.handler(), scope, Origin::Push, callback, call);
    }

    fn reject(&mut self, mut scope: Scope<'_>, error: FrameError) {
        self.call(scope.again(), "rejected", |handler, conn| {
            handler.rejected(conn, &error);
            Ok(())
        });
        scope.core.close(&mut scope.entry.slot, CloseReason::Rejected(error));
    }

    /// The same, and the stream may have been cut off: what is left is no frame.
    #[cold]
    fn end_cut_off(&mut self, scope: Scope<'_>) {
        let slot = &mut scope.entry.slot;
        if let Some(tail) = slot.conn.take_kept() {
            scope.core.pool.put(tail);
        }
        slot.conn.deadlines().clear(Kind::Frame);
        scope.core.close(slot, CloseReason::Truncated);
    }

    /// All frames are handled and no more bytes will come.
    fn end(&mut self, mut scope: Scope<'_>) {
        let conn = &mut scope.entry.slot.conn;
        if conn.is_truncated() {
            return self.end_cut_off(scope);
        }
        // The end of a stream may end a frame. To be cut off by a drain does not.
        if conn.state() == State::HalfClosed
            && let Some(tail) = conn.take_kept()
        {
            conn.deadlines().clear(Kind::Frame);
            let mut batch = Batch { rest: tail.bytes(), frames: 0, is_tail: true };
            let stop = self.handle(&mut scope, &mut batch);
            let is_whole = batch.rest.len() == tail.len();
            match stop {
                Stop::Trouble(_) => {
                    scope.core.pool.put(tail);
                    self.stopped(scope.again(), true, stop);
                }
                // It cannot be handled yet.
                Stop::Held if is_whole => {
                    let slot = &mut scope.entry.slot;
                    slot.conn.keep_rest(tail, 0);
                    scope.core.hold(slot, false);
                    return;
                }
                _ => scope.core.pool.put(tail),
            }
        }
        let conn = &mut scope.entry.slot.conn;
        let handles = conn.state().handles();
        if handles && !conn.is_at_end() {
            // The handler has not answered the last frame yet: the end comes behind the answer.
            return;
        }
        if conn.incoming() == Incoming::Cut {
            if handles {
                self.call(scope.again(), "draining", Handler::draining);
            }
            scope.core.close(&mut scope.entry.slot, CloseReason::Drained);
            return;
        }
        if !conn.tell_end() {
            return;
        }
        conn.deadlines().clear(Kind::Frame);
        if handles {
            self.call(scope.again(), "half_closed", Handler::half_closed);
        }
        if scope.entry.slot.conn.finishes() {
            // Neither side can send any more.
            scope.core.close(&mut scope.entry.slot, CloseReason::PeerFinished);
        }
        scope.core.mark_dirty(&mut scope.entry.slot);
    }
}

impl<H: Handler, F: Frames<H>> Service for Typed<H, F> {
    fn name(&mut self, name: String) {
        self.name = Some(name);
    }

    fn desk(&self, rules: Rc<Rules>) -> Desk {
        Desk {
            rules,
            taken: 0,
            elsewhere: 0,
            handler: TypeId::of::<H>(),
            name: self.name.clone(),
            open: 0,
            timers: Box::new(ServiceAlarms::<H>::default()),
            due: None,
            defers: false,
            start_tls: None,
            topics: Topics::default(),
            prototype: Box::new(Rc::clone(&self.prototype)),
        }
    }

    fn handler(&mut self) -> &mut dyn Any {
        self.frames.handler()
    }

    fn wants_urgent(&self) -> bool {
        H::URGENT.is_some()
    }

    fn started(&mut self, core: &mut Core, table: &mut Table, id: ServiceId) -> Outcome {
        let mut all = Connections::new(core, table, id, 0);
        match catch_unwind(AssertUnwindSafe(|| self.frames.handler().started(&mut all))) {
            Ok(started) => started,
            Err(payload) => Err(format!("it panicked: {}", message(&*payload)).into()),
        }
    }

    fn entry(&self, core: &mut Core, mut slot: Slot) -> Box<Entry> {
        let made =
            catch_unwind(AssertUnwindSafe(|| Member::<H>::new(H::Codec::clone(&self.prototype))));
        match made {
            Ok(member) => Box::new(Entry { slot, member }),
            Err(payload) => {
                core.handler_panicked(&mut slot, "session", &*payload);
                Box::new(Entry { slot, member: () })
            }
        }
    }

    fn open(&mut self, mut scope: Scope<'_>) {
        if !scope.entry.member.is::<Member<H>>() {
            return;
        }
        let slot = &mut scope.entry.slot;
        scope.core.desks[slot.service() as usize].open += 1;
        self.call(scope.again(), "open", Handler::open);
        scope.entry.slot.was_only_greeted();
    }

    fn received(&mut self, mut scope: Scope<'_>, bytes: &[u8]) {
        let mut batch = Batch { rest: bytes, frames: 0, is_tail: false };
        match self.handle(&mut scope, &mut batch) {
            Stop::Incomplete if batch.rest.is_empty() => {}
            stop => {
                if !matches!(stop, Stop::Trouble(_)) {
                    scope.core.keep(&mut scope.entry.slot, batch.rest);
                }
                self.stopped(scope, batch.rest.len() < bytes.len(), stop);
            }
        }
    }

    fn kept(&mut self, scope: Scope<'_>) {
        self.handle_kept(scope);
    }

    fn advance(&mut self, mut scope: Scope<'_>) {
        if scope.entry.slot.conn.release_held() {
            self.handle_kept(scope.again());
        }
        if scope.entry.slot.conn.is_at_end() {
            self.end(scope);
        }
    }

    fn urgent(&mut self, scope: Scope<'_>, byte: u8) {
        if let Some(urgent) = H::URGENT {
            self.call(scope, "urgent", |handler, conn| urgent(handler, conn, byte));
        }
    }

    fn relieved(&mut self, scope: Scope<'_>) {
        self.call(scope, "relieved", Handler::relieved);
    }

    fn timers(&mut self, mut scope: Scope<'_>) {
        let now = scope.core.judged();
        loop {
            let Entry { slot, member } = &mut *scope.entry;
            let Some(member) = member.downcast_mut::<Member<H>>() else { return };
            if !slot.conn.state().handles() {
                return;
            }
            let Some(id) = member.alarms.first_due(now) else { break };
            match member.alarms.take(id, now, Box::new(|_, _| Ok(()))) {
                Some(Run::Once(run)) => self.call(scope.again(), "timer", run),
                Some(Run::Every(mut run)) => {
                    self.call(scope.again(), "timer", &mut run);
                    if let Some(member) = scope.entry.member.downcast_mut::<Member<H>>() {
                        member.alarms.put_back(id, run);
                    }
                }
                None => break,
            }
        }
        let Entry { slot, member } = &mut *scope.entry;
        if let Some(member) = member.downcast_mut::<Member<H>>() {
            scope.core.arm_user(slot, member.alarms.earliest());
        }
    }

    fn own_timers(&mut self, core: &mut Core, table: &mut Table, id: ServiceId) {
        let now = core.judged();
        let mut all = Connections::new(core, table, id, 0);
        while let Some(id) = all.alarms().first_due(now) {
            let taken = all.alarms().take(id, now, Box::new(|_, _| Ok(())));
            let called = match taken {
                Some(Run::Once(run)) => {
                    catch_unwind(AssertUnwindSafe(|| run(self.frames.handler(), &mut all)))
                }
                Some(Run::Every(mut run)) => {
                    let called =
                        catch_unwind(AssertUnwindSafe(|| run(self.frames.handler(), &mut all)));
                    all.alarms().put_back(id, run);
                    called
                }
                None => break,
            };
            all.service_failed("timer", called);
        }
        all.note_earliest();
    }

    fn published(
        &mut self,
        core: &mut Core,
        table: &mut Table,
        id: ServiceId,
        topic: &[u8],
        message: &Message,
    ) {
        let mut all = Connections::<H>::new(core, table, id, 0);
        // Only a codec of the user can panic.
        let delivered =
            catch_unwind(AssertUnwindSafe(|| _ = all.deliver_here(topic, Some(message), |_| None)));
        all.service_failed("publish", delivered.map(Ok));
    }

    fn holds_frame(&self, entry: &Entry) -> bool {
        let Some(member) = entry.member.downcast_ref::<Member<H>>() else { return false };
        let conn = &entry.slot.conn;
        let is_finished = conn.state() == State::HalfClosed && !conn.is_truncated();
        let kept = entry.slot.conn.kept();
        // A codec that panics over these bytes would have closed the connection without a frame.
        let found = catch_unwind(AssertUnwindSafe(|| {
            begins_with_frame(member.codec.clone(), kept, is_finished)
        }));
        found.unwrap_or(false)
    }

    fn closed(&mut self, scope: Scope<'_>, reason: &CloseReason) {
        if !scope.entry.member.is::<Member<H>>() {
            return;
        }
        // It is none of the others, and they are counted without it. It was counted if it ever opened.
        let slot = &scope.entry.slot;
        scope.core.desks[slot.service() as usize].open -= usize::from(slot.has_opened());
        self.call(scope, "closed", |handler, conn| {
            handler.closed(conn, reason);
            Ok(())
        });
    }
}

/// Calls back, and sees to what is answered.
pub(crate) fn call<T, H: Handler>(
    target: &mut T,
    mut scope: Scope<'_>,
    origin: Origin,
    callback: &'static str,
    call: impl FnOnce(&mut T, &mut Conn<'_, H>) -> Outcome,
) {
    let Some(mut conn) = Conn::begin(&mut scope, origin) else { return };
    let began = conn.core.callback_begins(conn.slot);
    let called = catch_unwind(AssertUnwindSafe(|| call(target, &mut conn)));
    if called.is_err() {
        conn.output.take_back();
    }
    conn.slot.conn.end_answer(&mut conn.output);
    let Conn { core, slot, output, .. } = conn;
    core.end_output(slot, output, 0);
    core.callback_ends(slot, callback, began);
    match called {
        Ok(Ok(())) => {}
        Ok(Err(error)) => core.handler_failed(slot, error),
        Err(payload) => core.handler_panicked(slot, callback, &*payload),
    }
}

/// Whether `bytes` hold a complete frame, behind what the codec skips. If the peer `is_finished`,
/// their end may be the end of one.
fn begins_with_frame<C: Codec>(mut codec: C, mut bytes: &[u8], is_finished: bool) -> bool {
    while !bytes.is_empty() {
        match codec.decode(bytes) {
            Ok(Decoded::Frame { .. }) => return true,
            Ok(Decoded::Skip(count)) => bytes = bytes.get(count.max(1)..).unwrap_or_default(),
            Ok(Decoded::Incomplete { .. }) => {
                return is_finished && matches!(codec.decode_end(bytes), Ok(Some(_)));
            }
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::begins_with_frame;
    use crate::codec::{Codec, Decoded, FrameError, Lines};

    /// Lines, of which the last needs no end.
    #[derive(Clone)]
    struct LastLine(Lines);

    impl Codec for LastLine {
        type Frame<'a> = &'a [u8];

        fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<&'a [u8]>, FrameError> {
            self.0.decode(input)
        }

        fn decode_end<'a>(&mut self, tail: &'a [u8]) -> Result<Option<&'a [u8]>, FrameError> {
            Ok(Some(tail))
        }
    }

    #[test]
    fn a_frame_is_found_where_it_is_complete() {
        for (bytes, complete, complete_at_end) in [
            (&b""[..], false, false),
            (b"half a requ", false, true),
            (b"one\nhalf", true, true),
            (b"\n", true, true),
            (b"too long to be a line", false, false),
        ] {
            let codec = || LastLine(Lines::with_max(12));
            assert_eq!(begins_with_frame(codec(), bytes, false), complete, "{bytes:?}");
            assert_eq!(begins_with_frame(codec(), bytes, true), complete_at_end, "{bytes:?}, end");
            assert_eq!(begins_with_frame(Lines::with_max(12), bytes, true), complete, "{bytes:?}");
        }
    }
}

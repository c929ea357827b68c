//! What follows when a handler or a codec fails: a line in the log, a count, and the end of one
//! connection.

use std::{
    any::Any,
    sync::{Mutex, PoisonError},
};

use super::{
    core::Core,
    slot::{ServiceId, Slot},
    throttle::Notice,
};
use crate::{
    error::{CloseReason, Error},
    handler::{Failure, Outcome},
};

/// The most bytes that are shown of what a worker has sent.
const SHOWN_MAX: usize = 100;

/// What a worker has sent that reaches nobody.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkerSays<'a> {
    /// A frame, and it had no request.
    Unasked,
    /// Something for a client that it does not have.
    UnknownId,
    /// What is no line of the tagged protocol.
    BadLine(&'a [u8]),
}

/// Why a server ends, if something in it has failed.
#[derive(Debug, Default)]
pub(crate) struct FirstFailure(Mutex<Option<Error>>);

impl FirstFailure {
    /// The server is to end with this error, unless there is one already.
    pub(crate) fn note(&self, error: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Takes the error that the server ends with, if there is one.
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Core {
    /// A callback returned an error.
    #[cold]
    pub(crate) fn handler_failed(&mut self, slot: &mut Slot, error: Failure) {
        if let Some(left_out) = self.notice(Notice::Handler) {
            tracing::warn!(peer = %slot.peer(), left_out, "the handler failed: {error}");
        }
        self.close(slot, CloseReason::HandlerFailed(error));
    }

    /// A callback panicked.
    #[cold]
    pub(crate) fn handler_panicked(
        &mut self,
        slot: &mut Slot,
        callback: &str,
        payload: &(dyn Any + Send),
    ) {
        slot.counters().panics.add(1);
        let message = message(payload);
        tracing::error!(peer = %slot.peer(), callback, "the handler panicked: {message}");
        slot.conn.forget_taken_back();
        self.close(slot, CloseReason::Panicked);
    }

    /// A worker has sent what reaches nobody.
    #[cold]
    pub(crate) fn worker_says(&mut self, slot: &Slot, worker: usize, said: WorkerSays<'_>) {
        let counters = slot.counters();
        match said {
            WorkerSays::Unasked => {
                counters.unasked.add(1);
                if let Some(left_out) = self.notice(Notice::Unasked) {
                    tracing::warn!(worker, left_out, "a worker has sent what nobody had asked for");
                }
            }
            // The client may just have left: that is nothing to be logged.
            WorkerSays::UnknownId => counters.unknown_ids.add(1),
            WorkerSays::BadLine(line) => {
                counters.bad_lines.add(1);
                if let Some(left_out) = self.notice(Notice::BadLine) {
                    let line = line.get(..SHOWN_MAX).unwrap_or(line).escape_ascii();
                    tracing::warn!(
                        worker,
                        left_out,
                        "a worker has sent what is no line of the tagged protocol: {line}"
                    );
                }
            }
        }
    }

    /// A worker has ended, or cannot be started.
    #[cold]
    pub(crate) fn worker_ended(&mut self, worker: usize, why: &str) {
        if let Some(left_out) = self.notice(Notice::WorkerEnded) {
            tracing::warn!(worker, left_out, "a worker has ended: {why}");
        }
    }

    /// A callback that was called for no connection failed, or panicked: nobody pays for it.
    #[cold]
    pub(crate) fn service_failed(
        &mut self,
        service: ServiceId,
        callback: &str,
        failed: Result<Outcome, Box<dyn Any + Send>>,
    ) {
        match failed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if let Some(left_out) = self.notice(Notice::Handler) {
                    tracing::warn!(callback, left_out, "the handler failed: {error}");
                }
            }
            Err(payload) => {
                self.desks[service as usize].rules.counters.panics.add(1);
                let message = message(&*payload);
                tracing::error!(callback, "the handler panicked: {message}");
            }
        }
    }

    /// The codec broke the contract of [`Decoded`](crate::codec::Decoded).
    #[cold]
    pub(crate) fn codec_miscounted(
        &mut self,
        slot: &mut Slot,
        codec: &str,
        consumed: usize,
        have: usize,
    ) {
        slot.counters().codec_defects.add(1);
        if let Some(left_out) = self.notice(Notice::Codec) {
            tracing::error!(
                peer = %slot.peer(), codec, left_out,
                "the codec has a defect: it took {consumed} of {have} bytes"
            );
        }
        self.close(slot, CloseReason::CodecDefect);
    }
}

/// What a panic said.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

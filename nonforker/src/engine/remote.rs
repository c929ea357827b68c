//! What other threads share with a server: what they ask of it, and what it has counted.

use std::sync::{Arc, Mutex, PoisonError};

use super::{drain::Request, stats::Counters};
use crate::driver::Waker;

/// See the [module](self). It exists before the server is bound, and after the server has ended.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    pub(super) request: Request,
    pub(crate) counters: Arc<Counters>,
    /// Ends the wait of the driver, once there is one.
    waker: Mutex<Option<Waker>>,
}

impl Remote {
    pub(crate) fn drain(&self) {
        self.request.drain();
        self.wake();
    }

    pub(crate) fn stop(&self) {
        self.request.stop();
        self.wake();
    }

    /// From now on the server can be woken. What was asked for before wakes it here.
    ///
    /// A request is made before the lock is taken. So either it is seen here, or the thread that
    /// made it finds the waker.
    pub(super) fn set_waker(&self, waker: Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
        if self.request.is_made() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
    }
}

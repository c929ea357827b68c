//! What other threads share with a server: what they ask of it, and what it has counted.

use std::{
    any::TypeId,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{
    core::Core,
    desk::find,
    drain::Request,
    mail::Mailbox,
    settings::Settings,
    slot::ServiceId,
    stats::{AllCounters, Stats},
};
use crate::{
    config::Limits,
    driver::Waker,
    error::{Error, NoSuchService, Result},
    service_limits::AllLimits,
};

/// See the [module](self). It exists before the server is bound, and after the server has ended.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) request: Request,
    /// What there is once the server is bound.
    bound: OnceLock<OfBound>,
    /// Ends the wait of the driver, once there is one.
    waker: Mutex<Option<Waker>>,
}

/// What depends on how many services a server has, and on the limits with which it was bound.
#[derive(Debug)]
struct OfBound {
    counters: Arc<AllCounters>,
    settings: Settings,
    mailbox: Arc<Mailbox>,
    /// The type of each service's handler, and its name.
    services: Vec<(TypeId, Option<String>)>,
}

impl Shared {
    pub(crate) fn drain(&self) {
        self.request.drain();
        self.wake();
    }

    pub(crate) fn stop(&self) {
        self.request.stop();
        self.wake();
    }

    /// Asks for what was asked of another.
    pub(super) fn ask_as(&self, other: &Self) {
        if self.request.raise_to(&other.request) {
            self.wake();
        }
    }

    pub(super) fn is_bound(&self) -> bool {
        self.bound.get().is_some()
    }

    /// Posts new limits of the server, if they can be followed, and wakes it.
    pub(crate) fn post_limits(&self, limits: Limits) -> Result<()> {
        self.bound.get().ok_or(Error::NotBound)?.settings.post(limits)?;
        self.wake();
        Ok(())
    }

    /// The limits that were posted last, if the server has not followed them yet.
    pub(super) fn take_limits(&self) -> Option<AllLimits> {
        self.bound.get()?.settings.take()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.bound.get().map(|bound| bound.counters.snapshot()).unwrap_or_default()
    }

    pub(crate) fn service_stats(&self, service: usize) -> Option<Stats> {
        self.bound.get()?.counters.snapshot_of(service)
    }

    /// Which service has this handler and this name.
    pub(crate) fn find<H: 'static>(
        &self,
        name: Option<&str>,
    ) -> std::result::Result<ServiceId, NoSuchService> {
        let bound = self.bound.get().ok_or(NoSuchService::Unknown)?;
        let services = bound.services.iter().map(|(handler, name)| (*handler, name.as_deref()));
        find::<H, _>(services, name)
    }

    /// Where to post, once the server is bound.
    pub(crate) fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.bound.get().map(|bound| Arc::clone(&bound.mailbox))
    }

    /// The server is bound with these limits. From now on they can be set, and it has mail.
    pub(super) fn begins(&self, core: &Core, limits: AllLimits) {
        self.bound.get_or_init(|| OfBound {
            counters: Arc::clone(&core.counters),
            settings: Settings::new(limits),
            mailbox: Arc::clone(&core.mail.mailbox),
            services: core.desks.iter().map(|desk| (desk.handler, desk.name.clone())).collect(),
        });
    }

    /// From now on the server can be woken. What was asked for before wakes it here.
    ///
    /// A request is made before the lock is taken. So either it is seen here, or the thread that
    /// made it finds the waker. Limits can only be posted when the waker is there.
    pub(super) fn set_waker(&self, waker: Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
        if self.request.is_made() {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
    }
}

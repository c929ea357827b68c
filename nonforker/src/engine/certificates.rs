//! Certificates that are replaced while the server runs.
//!
//! ```text
//!  any thread: set_tls ──▶ checked ──▶ in force ── every shard is woken ──▶ its listeners have them
//! ```
//!
//! A connection that is there keeps what it began with. Shards look by themselves, as they do at limits.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use super::shard::Shard;
use crate::tls::Tls;

/// The certificates of each listener.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// Nothing before the server is bound.
    in_force: Mutex<Option<Vec<Option<Tls>>>>,
    /// How often they were replaced.
    changes: AtomicUsize,
}

impl Certificates {
    /// The listeners of the server, which is bound.
    pub(super) fn note(&self, in_force: Vec<Option<Tls>>) {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(in_force);
    }

    /// Replaces those of a listener.
    #[cfg(feature = "_rustls")]
    pub(crate) fn replace(&self, listener: usize, tls: Tls) -> crate::Result<()> {
        use crate::{Error, tls::TlsError};
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let all = in_force.as_mut().ok_or(Error::NotBound)?;
        let count = all.len();
        let Some(one) = all.get_mut(listener) else {
            let what = format!("there is no listener {listener}: there are {count}");
            return Err(TlsError::new(what).into());
        };
        let Some(former) = one else {
            let what = format!("listener {listener} serves in clear");
            return Err(TlsError::new(what).into());
        };
        tls.warn();
        *former = tls.in_place_of(former);
        self.changes.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl<S> Shard<S> {
    /// Takes certificates over that were replaced, if any were.
    pub(super) fn follow_certificates(&mut self) {
        let certificates = &self.core.group.tls;
        let changes = certificates.changes.load(Ordering::Acquire);
        if std::mem::replace(&mut self.certificates_seen, changes) == changes {
            return;
        }
        let in_force = certificates.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (listener, tls) in in_force.into_iter().flatten().enumerate() {
            let (Some(tls), Some((at_once, service))) = (tls, self.acceptor.of_listener(listener))
            else {
                continue;
            };
            if at_once.is_some() {
                self.acceptor.set_tls(listener, tls);
            } else if let Some(desk) = self.core.desks.get_mut(service as usize) {
                desk.start_tls = Some(tls);
            }
        }
        tracing::info!("certificates were replaced");
    }
}

//! Certificates that are replaced while the server runs.
//!
//! ```text
//!  any thread: set_tls ──▶ checked ──▶ in force ── every shard is woken ──▶ its listeners have them
//! ```
//!
//! A connection that is there keeps what it began with.

use super::{accept::Acceptor, group::versioned::Versioned, shard::Shard, slot::ServiceId};
use crate::{driver::ListenerId, tls::Tls};

/// The certificates of each listener: nothing before the server is bound.
#[derive(Debug, Default)]
pub(crate) struct Certificates(Versioned<Option<Vec<Option<Tls>>>>);

impl Certificates {
    /// The listeners of the server, which is bound.
    pub(super) fn note(&self, in_force: Vec<Option<Tls>>) {
        self.0.begin(|all| _ = all.get_or_insert(in_force));
    }

    /// Replaces those of a listener.
    #[cfg(feature = "_rustls")]
    pub(crate) fn replace(&self, listener: usize, tls: Tls) -> crate::Result<()> {
        use crate::{Error, tls::TlsError};
        self.0.change(|in_force| {
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
            Ok(())
        })
    }
}

impl<S> Acceptor<S> {
    /// From now on connections of this listener begin with a handshake by these certificates.
    pub(super) fn set_tls(&mut self, listener: ListenerId, tls: Tls) {
        if let Some(door) = self.doors.get_mut(listener) {
            door.tls = Some(tls);
        }
    }

    /// The certificates with which connections of this listener begin, and their service.
    pub(super) fn of_listener(&self, listener: ListenerId) -> Option<(Option<Tls>, ServiceId)> {
        self.doors.get(listener).map(|door| (door.tls.clone(), door.service))
    }
}

impl<S> Shard<S> {
    /// Takes certificates over that were replaced, if any were.
    pub(super) fn follow_certificates(&mut self) {
        let Some(in_force) = self.core.group.tls.0.changed(&mut self.certificates_seen) else {
            return;
        };
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

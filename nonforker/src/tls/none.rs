//! What stands for TLS where it was not compiled in: nothing makes any of it.

use super::{Records, TlsError, Took};

/// Nobody has one: what could make it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls(());

impl Tls {
    pub(crate) fn server(&self) -> Result<Session, TlsError> {
        Err(TlsError::new("it was not compiled in"))
    }

    pub(crate) const fn warn(&self) {}
}

/// The same for connections that the server makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientTls(());

impl ClientTls {
    pub(crate) fn from_system() -> Result<Self, TlsError> {
        Err(TlsError::new("it was not compiled in"))
    }

    pub(super) fn session(&self, _: &str) -> Result<Session, TlsError> {
        Err(TlsError::new("it was not compiled in"))
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Session {}

impl Records for Session {
    fn receive(
        &mut self,
        _: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Took, TlsError> {
        match *self {}
    }

    fn seal(&mut self, _: &mut [u8], _: &[u8], _: &mut Vec<u8>) -> Result<(), TlsError> {
        match *self {}
    }

    fn finish(&mut self, _: &mut [u8], _: &mut Vec<u8>) {
        match *self {}
    }

    fn shakes(&self) -> bool {
        match *self {}
    }
}

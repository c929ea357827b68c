//! The flags for TLS, what they ask for, and that again at a SIGHUP.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, ValueEnum};
use nonforker::Handle;

use crate::{ending::Ending, values};

/// Files are read as the program starts, and again at a SIGHUP.
#[derive(Clone, Debug, Args)]
pub(crate) struct TlsArgs {
    /// Encrypt: a file with the certificate and those of its issuers, in PEM; can be repeated
    ///
    /// Each --tls-cert has its --tls-key, in the same order. A client is shown the first certificate
    /// that is for the name it asks for, and the first of all if there is none. All addresses are
    /// encrypted. At a SIGHUP the files are read again; if one is broken, the old ones stay.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Vec<PathBuf>,

    /// The private key of the certificate, in PEM; can be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Vec<PathBuf>,

    /// Have clients show a certificate of an authority in this file, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Whether clients have to show one [default: required, with --tls-client-ca]
    #[arg(long, value_name = "WHETHER", value_enum)]
    pub(crate) tls_client_auth: Option<ClientAuth>,

    /// A protocol that is spoken inside of TLS (ALPN), the preferred one first; can be repeated
    ///
    /// A client that offers others only is refused.
    #[arg(long, value_name = "NAME")]
    pub(crate) tls_alpn: Vec<String>,

    /// TLS handshakes that may be under way at a time; with one more the oldest ends
    #[arg(long, value_name = "N", default_value = "1024", value_parser = values::count)]
    pub(crate) max_handshakes: NonZeroUsize,
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientAuth {
    /// A client may show none
    Optional,
    /// A client that shows none is refused
    Required,
}

impl TlsArgs {
    /// Which flag cannot be followed, and why.
    pub(crate) fn check(&self) -> Option<(&'static str, String)> {
        let (certificates, keys) = (self.tls_cert.len(), self.tls_key.len());
        let given = [
            ("tls_cert", certificates > 0),
            ("tls_key", keys > 0),
            ("tls_client_ca", self.tls_client_ca.is_some()),
            ("tls_client_auth", self.tls_client_auth.is_some()),
            ("tls_alpn", !self.tls_alpn.is_empty()),
        ];
        let first = given.iter().find_map(|&(flag, is_given)| is_given.then_some(flag))?;
        if cfg!(not(feature = "tls")) {
            return Some((first, "this program was built without TLS".to_owned()));
        }
        if certificates == 0 {
            return Some((first, "it needs --tls-cert".to_owned()));
        }
        if certificates != keys {
            let what = format!("certificates: {certificates}, keys: {keys}; they go in pairs");
            return Some(("tls_key", what));
        }
        if self.tls_client_auth.is_some() && self.tls_client_ca.is_none() {
            return Some(("tls_client_auth", "it needs --tls-client-ca".to_owned()));
        }
        let is_good = |name: &String| (1..=255).contains(&name.len());
        if !self.tls_alpn.iter().all(is_good) {
            return Some(("tls_alpn", "a name has from 1 to 255 bytes".to_owned()));
        }
        None
    }
}

#[cfg(feature = "tls")]
mod loaded {
    use nonforker::{Handle, Tls};

    use super::{ClientAuth, TlsArgs};

    impl TlsArgs {
        /// What the files say now. Nothing if there are none; and what is wrong with each that is.
        pub(crate) fn load(&self) -> Result<Option<Tls>, Vec<String>> {
            let mut wrong = Vec::new();
            let mut tls: Option<Tls> = None;
            for (certificate, key) in self.tls_cert.iter().zip(&self.tls_key) {
                let next = match tls.take() {
                    None => Tls::from_files(certificate, key),
                    Some(tls) => tls.clone().and_files(certificate, key),
                };
                match next {
                    Ok(next) => tls = Some(next),
                    Err(error) => wrong.push(format!("--tls-cert, --tls-key: {error}")),
                }
            }
            if let (Some(some), Some(authorities)) = (tls.clone(), &self.tls_client_ca) {
                let auth = match self.tls_client_auth.unwrap_or(ClientAuth::Required) {
                    ClientAuth::Optional => nonforker::ClientAuth::Optional,
                    ClientAuth::Required => nonforker::ClientAuth::Required,
                };
                match some.client_auth(auth, authorities) {
                    Ok(some) => tls = Some(some),
                    Err(error) => wrong.push(format!("--tls-client-ca: {error}")),
                }
            }
            if let Some(some) = tls.take() {
                match some.alpn(&self.tls_alpn) {
                    Ok(some) => tls = Some(some),
                    Err(error) => wrong.push(format!("--tls-alpn: {error}")),
                }
            }
            if wrong.is_empty() { Ok(tls) } else { Err(wrong) }
        }

        /// Reads the files again, for this number of listeners. Those in force stay if one is broken.
        pub(super) fn reload(&self, server: &Handle, listeners: usize) {
            match self.load() {
                Err(wrong) => {
                    for what in wrong {
                        tracing::warn!("the certificates stay as they are: {what}");
                    }
                }
                Ok(None) => {}
                Ok(Some(tls)) => {
                    for listener in 0..listeners {
                        if let Err(error) = server.set_tls(listener, tls.clone()) {
                            tracing::warn!("the certificates stay as they are: {error}");
                        }
                    }
                }
            }
        }
    }
}

/// What a SIGHUP does, if it does anything.
pub(crate) type Reload = Box<dyn FnMut() + Send>;

/// Reads files again, if there are any.
pub(crate) fn reload(args: &TlsArgs, server: Handle, listeners: usize) -> Option<Reload> {
    if args.tls_cert.is_empty() {
        return None;
    }
    let args = args.clone();
    Some(Box::new(move || {
        #[cfg(feature = "tls")]
        args.reload(&server, listeners);
        #[cfg(not(feature = "tls"))]
        let _ = (&args, &server, listeners);
    }))
}

/// Encrypts the last service of a server, if that is asked for.
pub(crate) fn secure(
    server: nonforker::Server,
    args: &TlsArgs,
) -> Result<nonforker::Server, Ending> {
    #[cfg(feature = "tls")]
    match args.load() {
        Ok(Some(tls)) => return Ok(server.tls(tls)),
        Ok(None) => {}
        Err(wrong) => return Err(Ending::Usage(wrong.join("; "))),
    }
    #[cfg(not(feature = "tls"))]
    let _ = args;
    Ok(server)
}

//! The flags for TLS towards the servers that a relay joins its clients with.

use std::path::PathBuf;

use clap::Args;
use nonforker::Target;

use crate::ending::Ending;

/// Files are read as the program starts.
#[derive(Clone, Debug, Args)]
pub(crate) struct ToTlsArgs {
    /// Encrypt towards every --to; one that is written as tls://NAME:PORT is encrypted without this
    ///
    /// The server's certificate has to be for the name in --to, or for the address. Whether clients are
    /// encrypted is another thing: that is --tls-cert.
    #[arg(long)]
    to_tls: bool,

    /// Trust the authorities in this file, in PEM, and no others [default: those of the system]
    #[arg(long, value_name = "FILE")]
    to_ca: Option<PathBuf>,

    /// The name that the server's certificate has to be for, and that it is asked for [default: that in
    /// --to]
    #[arg(long, value_name = "NAME")]
    to_name: Option<String>,

    /// A file with a certificate to show to the server, in PEM
    #[arg(long, value_name = "FILE")]
    to_cert: Option<PathBuf>,

    /// The private key of that certificate, in PEM
    #[arg(long, value_name = "FILE")]
    to_key: Option<PathBuf>,

    /// A protocol to offer to the server (ALPN), the preferred one first; can be repeated
    #[arg(long, value_name = "NAME")]
    to_alpn: Vec<String>,
}

impl ToTlsArgs {
    /// The first flag that says how to encrypt.
    fn first(&self) -> Option<&'static str> {
        let given = [
            ("to_ca", self.to_ca.is_some()),
            ("to_name", self.to_name.is_some()),
            ("to_cert", self.to_cert.is_some()),
            ("to_key", self.to_key.is_some()),
            ("to_alpn", !self.to_alpn.is_empty()),
        ];
        given.iter().find_map(|&(flag, is_given)| is_given.then_some(flag))
    }

    /// Which flag cannot be followed, and why.
    pub(crate) fn check(&self, targets: &[Target]) -> Option<(&'static str, String)> {
        if cfg!(not(feature = "tls")) {
            let first = if self.to_tls { Some("to_tls") } else { self.first() };
            return first.map(|flag| (flag, "this program was built without TLS".to_owned()));
        }
        let first = self.first()?;
        if !self.to_tls && !targets.iter().any(Target::is_encrypted) {
            return Some((first, "it needs --to-tls, or --to tls://NAME:PORT".to_owned()));
        }
        match (&self.to_cert, &self.to_key) {
            (Some(_), None) => Some(("to_cert", "it needs --to-key".to_owned())),
            (None, Some(_)) => Some(("to_key", "it needs --to-cert".to_owned())),
            _ => None,
        }
    }

    /// The targets as they are to be connected to.
    pub(crate) fn apply(&self, targets: &[Target]) -> Result<Vec<Target>, Ending> {
        #[cfg(feature = "tls")]
        if self.to_tls || self.first().is_some() {
            let tls = self.load().map_err(Ending::Usage)?;
            let apply = |target: &Target| {
                if self.to_tls || target.is_encrypted() {
                    return target.clone().tls(tls.clone());
                }
                Ok(target.clone())
            };
            return targets
                .iter()
                .map(apply)
                .collect::<Result<_, _>>()
                .map_err(|error| Ending::Usage(format!("--to: {error}; --to-name says one")));
        }
        Ok(targets.to_vec())
    }

    #[cfg(feature = "tls")]
    fn load(&self) -> Result<nonforker::ClientTls, String> {
        use nonforker::{ClientTls, TlsError};
        let of = |flag| move |error: TlsError| format!("{flag}: {error}");
        let mut tls = match &self.to_ca {
            Some(file) => ClientTls::from_authorities(file).map_err(of("--to-ca"))?,
            None => ClientTls::from_system().map_err(of("--to-tls"))?,
        };
        if let Some((certificate, key)) = self.to_cert.as_ref().zip(self.to_key.as_ref()) {
            tls = tls.certificate(certificate, key).map_err(of("--to-cert, --to-key"))?;
        }
        if let Some(name) = &self.to_name {
            tls = tls.server_name(name).map_err(of("--to-name"))?;
        }
        tls.alpn(&self.to_alpn).map_err(of("--to-alpn"))
    }
}

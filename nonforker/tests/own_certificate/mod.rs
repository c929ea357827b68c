//! A certificate for `localhost` in files, and clients that trust it.

use std::{fs, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore};

/// Writes `cert.pem` and `key.pem` into a folder, which it makes. Returns what a client needs that trusts them.
pub(crate) fn make(folder: &Path) -> ClientConfig {
    fs::create_dir_all(folder).expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a file");
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    // The one that the library was built with.
    #[cfg(feature = "tls")]
    use rustls::crypto::aws_lc_rs as built_with;
    #[cfg(not(feature = "tls"))]
    use rustls::crypto::ring as built_with;
    ClientConfig::builder_with_provider(Arc::new(built_with::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("it has them")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

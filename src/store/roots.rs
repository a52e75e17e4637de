//! Who may sign for the server of a shared store.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{Error, RootCertStore};

use crate::tls;

/// Who may sign for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Whom this machine trusts.
    Platform,
    /// The certificates in this file, in PEM.
    File(PathBuf),
}

impl Roots {
    /// Looks at a server's certificate. `parameter`: what names the file in a URL.
    pub fn verifier(&self, parameter: &str) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let Roots::File(path) = self else { return tls::verifier(Vec::new()) };
        let unreadable = |why: String| Error::General(format!("{parameter} {} cannot be used: {why}", path.display()));
        let mut roots = RootCertStore::empty();
        for certificate in tls::certificates(path).map_err(unreadable)? {
            roots.add(certificate)?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(tls::provider())).build();
        Ok(verifier.map_err(|error| unreadable(error.to_string()))?)
    }
}

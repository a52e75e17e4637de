//! Who may sign for the server of a shared store.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{Error, RootCertStore};

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
    pub fn verifier(
        &self,
        parameter: &str,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let Roots::File(path) = self else {
            return Ok(Arc::new(rustls_platform_verifier::Verifier::new(Arc::clone(provider))?));
        };
        let unreadable = |why: String| Error::General(format!("{parameter} {} cannot be used: {why}", path.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))? {
            roots.add(certificate.map_err(|error| unreadable(error.to_string()))?)?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        Ok(verifier.map_err(|error| unreadable(error.to_string()))?)
    }
}

//! TLS by rustls: whom a connection trusts, and who this machine is in it.

use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// The cryptography of every connection.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// Trusts whom this machine trusts, and besides these roots. It reads the machine's.
pub fn verifier(roots: Vec<CertificateDer<'static>>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    Ok(Arc::new(Verifier::new_with_extra_roots(roots, Arc::clone(provider()))?))
}

/// The certificates in a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    match found {
        Ok(certificates) if certificates.is_empty() => Err("there is no certificate in it, in PEM".to_owned()),
        found => found.map_err(unreadable),
    }
}

/// Says nothing of what is in the file.
fn unreadable(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("the file cannot be read: {error}"),
        pem::Error::NoItemsFound => "there is no private key in it, in PEM and without a password".to_owned(),
        _ => "it is not PEM".to_owned(),
    }
}

/// The user's own files. They are small: [`Files::read`] costs little. The machine's roots are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `ca_file`: roots to trust besides the machine's.
    pub roots: Option<PathBuf>,
    /// `client_certificate_file` and `client_key_file` (RFC 8705).
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What is in [`Files`].
pub struct Content {
    roots: Vec<CertificateDer<'static>>,
    /// The client's certificate, those that lead to its root, and its key.
    pub client: Option<Arc<CertifiedKey>>,
}

/// What is wrong with a file.
#[derive(Debug)]
pub struct Unfit {
    /// The configuration key that names it.
    pub key: &'static str,
    /// It shows nothing of the file.
    pub problem: String,
}

/// Tells one state of [`Files`] from the next.
pub type Stamp = Vec<Option<(SystemTime, u64)>>;

impl Files {
    /// Reads and checks all.
    pub fn read(&self) -> Result<Content, Unfit> {
        let unfit = |key| move |problem: String| Unfit { key, problem };
        let (ca, certificate, private) = ("ca_file", "client_certificate_file", "client_key_file");
        let roots = match &self.roots {
            Some(path) => certificates(path).map_err(unfit(ca))?,
            None => Vec::new(),
        };
        for root in &roots {
            let added = RootCertStore::empty().add(root.clone());
            added.map_err(|_| unfit(ca)("a certificate in it cannot be understood".to_owned()))?;
        }
        let Some((chain_file, key_file)) = &self.client else { return Ok(Content { roots, client: None }) };
        let chain = certificates(chain_file).map_err(unfit(certificate))?;
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unfit(private)(unreadable(error)))?;
        let client = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            Error::InconsistentKeys(_) => unfit(private)("it is not the key of client_certificate_file".to_owned()),
            Error::InvalidCertificate(_) => unfit(certificate)("a certificate in it cannot be understood".to_owned()),
            _ => unfit(private)("a key of this kind cannot be used: expected RSA, ECDSA or Ed25519".to_owned()),
        })?;
        Ok(Content { roots, client: Some(Arc::new(client)) })
    }

    /// Changes when a file does. Without files it costs nothing.
    pub fn stamp(&self) -> Stamp {
        let client = self.client.iter().flat_map(|(certificate, key)| [certificate, key]);
        let look = |path: &PathBuf| {
            let data = path.metadata().ok()?;
            Some((data.modified().ok()?, data.len()))
        };
        self.roots.iter().chain(client).map(look).collect()
    }
}

impl Content {
    /// For connections that trust, and show, what is in the files. It reads the machine's roots.
    pub fn config(self) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(verifier(self.roots)?);
        Ok(builder.with_client_cert_resolver(Arc::new(Client(self.client))))
    }
}

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether, since the last call on this thread, a server has asked who the client is.
pub fn was_asked() -> bool {
    ASKED.take()
}

/// Shows the client's certificate, if it has one, and notes that a server has asked for it.
#[derive(Debug)]
struct Client(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Client {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        ASKED.set(true);
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration key \"{}\": {}", self.key, self.problem)
    }
}

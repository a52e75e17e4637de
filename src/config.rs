//! JSON configuration → [`Config`]; every key checked, every error names its key.

mod build;
mod keys;
mod location;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::error::Result;
use crate::oauth::proxy::Proxy;
use crate::secret::Secret;
use crate::session::record::Place;
use crate::tls::Files;

pub(crate) use build::RESERVED_AT_AUTHORIZE;
pub(crate) use keys::check_text;
pub use keys::{KEYS, Key, Kind};
pub use location::aside_of;

/// A client's configuration, checked.
#[derive(Clone)]
pub struct Config {
    /// The authorization server and this client's registration there.
    pub registration: Registration,
    /// Where sessions are kept.
    pub store: StoreLocation,
    /// Which sessions of the store are this client's. Default: canonical token endpoint or issuer, a space, client_id.
    pub namespace: String,
    /// 32-byte keys; the first seals, all open. Empty: the store's default.
    pub encryption_keys: Vec<Zeroizing<[u8; 32]>>,
    /// The life to assume where the server does not say it.
    pub session_lifetime_s: Option<u32>,
    /// How long before its end a token is renewed early; `None`: a part of its life.
    pub renew_before_s: Option<u32>,
    /// The server is asked when an access token ends that came without that.
    pub expiry_from_introspection: bool,
    /// What early renewal does to the caller that starts it.
    pub early_renewal: EarlyRenewal,
    /// Memory is trusted no longer than this without one store read.
    pub recheck: Duration,
    /// `false`: never spend a refresh token.
    pub renews: bool,
    /// What to do about a doubt.
    pub lost_reply: LostReply,
    /// How long a caller waits by default.
    pub max_wait: Duration,
    /// How long a normal exit waits for open exchanges.
    pub exit_wait: Duration,
    /// Exchanges at one time.
    pub max_exchanges: usize,
    /// Sessions kept in memory.
    pub max_cached_sessions: usize,
    /// Where adapters may send the token; empty: nobody said it.
    pub origins: Vec<String>,
}

/// One OAuth client registration at one authorization server, and how to speak with it.
#[derive(Clone)]
pub struct Registration {
    /// Salesforce's base URL, if that is how the server was named.
    pub site_url: Option<String>,
    /// Who the server is (RFC 8414 §2), if it is to tell its endpoints, or was so named.
    pub issuer: Option<String>,
    /// RFC 6749 §3.2; empty until it is [discovered](crate::oauth::discovery::resolve).
    pub token_endpoint: String,
    /// RFC 6749 §3.1.
    pub authorization_endpoint: Option<String>,
    /// RFC 7662.
    pub introspection_endpoint: Option<String>,
    /// RFC 7009; `None`: the server has none that we know.
    pub revocation_endpoint: Option<String>,
    /// RFC 6749 §2.2.
    pub client_id: String,
    /// How the client authenticates (RFC 6749 §2.3).
    pub client_auth: ClientAuth,
    /// `client_auth` says so; else a server that is discovered may want it otherwise.
    pub client_auth_given: bool,
    /// The server has said that it names itself in its authorization answers (RFC 9207 §3).
    pub iss_in_answers: bool,
    /// Asked for at refresh, if set.
    pub scope: Option<String>,
    /// Extra parameters of a refresh.
    pub refresh_parameters: Vec<(String, Secret)>,
    /// Extra parameters of an authorization request.
    pub authorize_parameters: Vec<(String, Secret)>,
    /// Where the grant's parameters go.
    pub parameters_in: ParametersIn,
    /// From the clock's reading before the load until the first byte at the latest.
    pub connect_timeout: Duration,
    /// From then on until the answer, at the latest.
    pub exchange_timeout: Duration,
    /// Of several answers to one refresh token the server lets only the latest live.
    pub newest_wins: bool,
    /// `User-Agent`.
    pub user_agent: String,
    /// How the server is reached.
    pub transport: Transport,
    /// A hash of everything that a server may refuse this client for; a back-off can bind to it.
    pub fingerprint: String,
}

/// How connections are made.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    /// Whom they trust, and who this client is to them.
    pub files: Files,
    /// What they go through.
    pub proxy: Option<Proxy>,
}

impl Transport {
    /// The same for equal ones. It shows no secret.
    pub(crate) fn name(&self) -> String {
        let Files { roots, client } = &self.files;
        let client = client.iter().flat_map(|(certificate, key)| [certificate, key]);
        let mut parts: Vec<_> = roots.iter().chain(client).map(|path| path.to_string_lossy().into_owned()).collect();
        parts.insert(0, format!("{} {}", roots.is_some(), self.files.client.is_some()));
        let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        parts.extend(self.proxy.iter().flat_map(Proxy::parts));
        format!("http {}", short_hash(&parts))
    }
}

/// Client authentication.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// A public client: `client_id` in the body.
    None,
    /// `client_secret_basic`.
    Basic {
        /// The client secret.
        secret: Secret,
        /// What is base64-encoded.
        encoding: BasicEncoding,
    },
    /// `client_secret_post`.
    Post {
        /// The client secret.
        secret: Secret,
    },
    /// `private_key_jwt`.
    PrivateKeyJwt {
        /// What signs.
        key: PrivateKey,
    },
}

/// The private key of a client, in a file, and what its assertions say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateKey {
    /// PEM.
    pub file: PathBuf,
    /// `kid` (RFC 7515 §4.1.4).
    pub id: Option<String>,
    /// How to sign; `None`: as the key's kind has it.
    pub algorithm: Option<JwsAlgorithm>,
    /// `aud`, if it is not the [usual one](Registration::audience).
    pub audience: Option<String>,
    /// Of what was in the file when the client was opened.
    pub hash: String,
}

/// A signature algorithm (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5.
    Rs256,
    /// RSASSA-PSS.
    Ps256,
    /// ECDSA on P-256.
    Es256,
}

/// What `Authorization: Basic` encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasicEncoding {
    /// `id:secret` as is.
    Raw,
    /// Both percent-encoded first (RFC 6749 §2.3.1).
    Form,
}

/// Where `grant_type` and `refresh_token` go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParametersIn {
    /// The form body (RFC 6749 §6).
    Body,
    /// HTTP headers, with an empty body.
    Headers,
}

/// `store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// `memory:`
    Memory,
    /// `sqlite:PATH`; `default` if the path is the default one, whose directory is made.
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Make the directory.
        default: bool,
    },
    /// `postgres://…`, `redis://…`: several machines share it.
    Shared {
        /// What speaks there.
        server: Server,
        /// May contain a password.
        url: Secret,
    },
}

/// Which kind of server a shared store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `postgres://` or `postgresql://`
    Postgres,
    /// `redis://`, or `rediss://` for TLS; Valkey too.
    Redis,
}

/// `early_renewal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyRenewal {
    /// The caller is served at once.
    Background,
    /// The caller that starts it waits for it.
    Wait,
    /// None.
    Off,
}

/// `lost_reply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostReply {
    /// Send the same refresh token again.
    Replay,
    /// End the session.
    SignIn,
}

impl Config {
    /// Reads and checks a configuration (one JSON object).
    pub fn from_json(json: &str) -> Result<Self> {
        build::config(json)
    }

    /// The same client with sessions kept elsewhere: of `json`, only `store`, its keys and `namespace` are allowed.
    pub fn with_store(&self, json: &str) -> Result<Self> {
        build::with_store(self, json)
    }

    /// Where its sessions are.
    pub fn place(&self) -> Place {
        Place { store: self.store.to_string(), namespace: self.namespace.clone() }
    }

    /// Reads the request of [`crate::refresh`]: a configuration plus `refresh_token`.
    pub fn from_refresh_request(json: &str) -> Result<(Self, Secret)> {
        build::refresh_request(json)
    }
}

impl Registration {
    /// There may be somebody to ask about a token.
    pub fn has_introspection(&self) -> bool {
        self.introspection_endpoint.is_some() || self.issuer.is_some()
    }

    /// There may be somebody to have a token revoked by.
    pub fn has_revocation(&self) -> bool {
        self.revocation_endpoint.is_some() || self.issuer.is_some()
    }

    /// Whom an assertion is for: the server by its issuer, where that is known; else its token endpoint, as older servers
    /// want it (RFC 7523 §3). Any server that knows its issuer takes it, and no other server can use the assertion.
    pub fn audience<'a>(&'a self, key: &'a PrivateKey) -> &'a str {
        key.audience.as_deref().or(self.issuer.as_deref()).unwrap_or(&self.token_endpoint)
    }
}

/// Without secrets.
impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreLocation::Memory => f.write_str("memory:"),
            StoreLocation::Sqlite { path, .. } => write!(f, "sqlite:{}", path.display()),
            StoreLocation::Shared { url, .. } => f.write_str(&location::without_password(url.expose())),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("registration", &self.registration)
            .field("store", &self.store)
            .field("namespace", &self.namespace)
            .field("encryption_keys", &self.encryption_keys.len())
            .field("early_renewal", &self.early_renewal)
            .field("renews", &self.renews)
            .field("lost_reply", &self.lost_reply)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may carry a secret.
        let endpoint = self.token_endpoint.split('?').next();
        f.debug_struct("Registration")
            .field("issuer", &self.issuer)
            .field("token_endpoint", &endpoint.unwrap_or_default())
            .field("client_id", &self.client_id)
            .field("client_auth", &self.client_auth)
            .field("parameters_in", &self.parameters_in)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// A short hash that tells lists of texts apart, not meant to be hard to guess from: 72 bits of an HMAC.
pub(crate) fn short_hash(parts: &[&str]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"evergrant configuration fingerprint 1");
    let mut context = ring::hmac::Context::with_key(&key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    BASE64_URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..9])
}

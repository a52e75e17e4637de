//! What the server is told to be.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Whose behaviour is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// `{any prefix}/services/oauth2/…`, Salesforce's members, texts and quirks.
    Salesforce,
    /// `{any prefix}/token`, `/revoke`, … as the RFCs have them.
    Generic,
}

/// What a successful refresh does to the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// It stays good, and the answer has no `refresh_token`.
    None,
    /// It is spent; presenting it again revokes the whole family, access tokens included.
    Strict,
    /// It is spent; presenting it again is refused and has no other effect.
    StrictRefuses,
    /// It is spent, but still answers for a while.
    Grace {
        /// Counted from its first use.
        window_ms: u64,
        /// What it answers in that window.
        kind: GraceKind,
        /// What happens after the window.
        #[serde(default)]
        reuse: Reuse,
    },
}

/// What a spent refresh token answers inside its grace window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraceKind {
    /// The same two tokens again.
    SamePair,
    /// A new successor each time; all of them are good.
    SiblingsAll,
    /// A new successor each time; only the newest is good, the others are refused from then on.
    NewestWins,
}

/// What happens when a refresh token is presented again after its grace window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// The family is revoked.
    #[default]
    Revoke,
    /// The presentation is refused.
    Refuse,
}

/// A way for a client to say who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// `Authorization: Basic base64(id:secret)`, both as they are.
    BasicRaw,
    /// The same, both form-encoded first (RFC 6749 §2.3.1).
    BasicForm,
    /// `client_id` and `client_secret` in the body.
    Post,
    /// `client_id` alone: a public client.
    None,
    /// `client_assertion`, signed by the client's private key (RFC 7523).
    PrivateKeyJwt,
}

/// A registered client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Checked whenever one is sent.
    #[serde(default)]
    pub secret: Option<String>,
    /// The methods accepted; empty: every one that its secret or key allows, `none` if it has neither.
    #[serde(default)]
    pub auth: Vec<AuthMethod>,
    /// Compared exactly; empty: any.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// Refuse an authorization request without `code_challenge`.
    #[serde(default)]
    pub require_pkce: bool,
    /// For `private_key_jwt`: the public key as PEM (`BEGIN PUBLIC KEY`), RSA or P-256.
    #[serde(default)]
    pub public_key: Option<String>,
}

impl Client {
    /// A client with a secret, which it may send in any of the three ways.
    pub fn confidential(id: &str, secret: &str) -> Self {
        Self { secret: Some(secret.into()), ..Self::public(id) }
    }

    /// A client without a secret.
    pub fn public(id: &str) -> Self {
        Self {
            id: id.into(),
            secret: None,
            auth: Vec::new(),
            redirect_uris: Vec::new(),
            require_pkce: false,
            public_key: None,
        }
    }

    /// The same client, with just these methods accepted.
    pub fn accepting(self, auth: &[AuthMethod]) -> Self {
        Self { auth: auth.to_vec(), ..self }
    }

    pub(crate) fn accepts(&self, method: AuthMethod) -> bool {
        if !self.auth.is_empty() {
            return self.auth.contains(&method);
        }
        match method {
            AuthMethod::BasicRaw | AuthMethod::BasicForm | AuthMethod::Post => self.secret.is_some(),
            AuthMethod::PrivateKeyJwt => self.public_key.is_some(),
            AuthMethod::None => self.secret.is_none() && self.public_key.is_none(),
        }
    }
}

/// Everything that can be set, at the start and (but for the ports) at any time later.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Whose behaviour is imitated.
    pub mode: Mode,
    /// 0: any free port.
    pub port: u16,
    /// 0: any free port.
    pub control_port: u16,
    /// The registered clients.
    pub clients: Vec<Client>,
    /// User names and passwords for the authorize endpoint. (`sign_in` takes any user.)
    pub users: BTreeMap<String, String>,
    /// The path prefixes that are served; none: any, the empty one included.
    pub prefixes: Option<Vec<String>>,

    /// What a refresh does to the refresh token.
    pub rotation: Rotation,
    /// A rotation also ends the access tokens that came before it.
    pub rotation_kills_access_tokens: bool,
    /// A refresh answers the current access token while that is alive.
    pub same_access_token: bool,
    /// An access token's life.
    pub access_token_life_ms: u64,
    /// A use in the second half of that life starts it again.
    pub sliding: bool,
    /// A refresh token family ends so long after its sign-in.
    pub refresh_token_life_ms: Option<u64>,
    /// A refresh token family ends when it was not used for so long.
    pub refresh_token_idle_ms: Option<u64>,
    /// More families than this per user and client: the oldest is revoked (Salesforce: 5).
    pub family_cap: Option<usize>,
    /// One request per refresh token at a time; a second one is refused while the first is being processed.
    pub busy_lock: bool,
    /// Refuse it with the older `expired authorization code`.
    pub legacy_busy_text: bool,
    /// Processing takes so long.
    pub latency_ms: u64,

    /// Whether `expires_in` is sent.
    pub send_expires_in: bool,
    /// Sent as `expires_in` instead of the truth; any JSON value.
    pub expires_in: Option<Value>,
    /// Further members of every token answer, behind the others; one that repeats a name makes a duplicate key.
    pub extra: Map<String, Value>,
    /// Stands in every token and code, for tests that look for leaks.
    pub token_prefix: String,
    /// Salesforce: sign with a wrong key.
    pub wrong_signature: bool,
    /// Salesforce: send `sfdc_community_url` and `sfdc_community_id`.
    pub community: bool,
    /// Salesforce: sent as `instance_url`; none: the server itself.
    pub instance_url: Option<String>,
    /// Salesforce: the resource answers 401 if the Host is not that of `instance_url`.
    pub strict_instance: bool,
    /// The `issuer` of the discovery documents; none: the true one.
    pub issuer: Option<String>,
    /// The authorize endpoint redirects with this error.
    pub authorize_error: Option<String>,

    /// Take `grant_type`, `refresh_token`, … from HTTP headers if the body has no `grant_type`.
    pub accept_header_parameters: bool,
    /// Take parameters from the query string as well.
    pub accept_query_parameters: bool,
    /// Connections that were idle for so long are closed.
    pub idle_timeout_ms: Option<u64>,
    /// The log keeps so many requests; counters go on.
    pub log_limit: usize,
}

impl Options {
    /// As the RFCs have it: `expires_in`, no rotation.
    pub fn generic() -> Self {
        Self {
            mode: Mode::Generic,
            port: 0,
            control_port: 0,
            clients: vec![Client::confidential("client", "secret"), Client::public("public")],
            users: BTreeMap::from([("user@example.com".into(), "password".into())]),
            prefixes: None,
            rotation: Rotation::None,
            rotation_kills_access_tokens: false,
            same_access_token: false,
            access_token_life_ms: 7_200_000,
            sliding: false,
            refresh_token_life_ms: None,
            refresh_token_idle_ms: None,
            family_cap: None,
            busy_lock: false,
            legacy_busy_text: false,
            latency_ms: 0,
            send_expires_in: true,
            expires_in: None,
            extra: Map::new(),
            token_prefix: String::new(),
            wrong_signature: false,
            community: false,
            instance_url: None,
            strict_instance: false,
            issuer: None,
            authorize_error: None,
            accept_header_parameters: false,
            accept_query_parameters: false,
            idle_timeout_ms: None,
            log_limit: 50_000,
        }
    }

    /// As Salesforce does it: no `expires_in`, sliding sessions, one request per refresh token at a time.
    pub fn salesforce() -> Self {
        Self {
            mode: Mode::Salesforce,
            sliding: true,
            busy_lock: true,
            send_expires_in: false,
            community: true,
            ..Self::generic()
        }
    }

    /// The options of a JSON object: its `mode`'s defaults (Salesforce without one), with its members laid over them.
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let mut options = match json.get("mode").and_then(Value::as_str) {
            Some("generic") => Self::generic(),
            _ => Self::salesforce(),
        };
        options.lay_over(json)?;
        Ok(options)
    }

    /// Sets the members of a JSON object; names an unknown one.
    pub fn lay_over(&mut self, json: &Value) -> Result<(), String> {
        let patch = json.as_object().ok_or("expected a JSON object")?;
        let mut whole = serde_json::to_value(&*self).map_err(|error| error.to_string())?;
        for (name, value) in patch {
            whole[name] = value.clone();
        }
        *self = serde_json::from_value(whole).map_err(|error| error.to_string())?;
        Ok(())
    }

    pub(crate) fn is_salesforce(&self) -> bool {
        self.mode == Mode::Salesforce
    }

    pub(crate) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }
}

//! From settings to a [`Config`]: defaults, and what must hold between keys.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::keys::{REFRESH_TOKEN, Settings, check_text, shown, wrong};
use super::{
    BasicEncoding, ClientAuth, Config, EarlyRenewal, JwsAlgorithm, LostReply, ParametersIn, PrivateKey, Registration,
    StoreLocation, Transport, location, short_hash,
};
use crate::error::Result;
use crate::oauth::endpoints::{self, Endpoints};
use crate::oauth::profiles::{self, Profile};
use crate::oauth::proxy::Proxy;
use crate::oauth::{assertion, salesforce};
use crate::secret::Secret;
use crate::tls::Files;

/// What the flow itself sets; nobody may set it beside that.
const RESERVED_AT_REFRESH: &[&str] = &[
    "grant_type",
    "refresh_token",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "scope",
];
pub(crate) const RESERVED_AT_AUTHORIZE: &[&str] = &[
    "response_type",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
];

/// The keys of `private_key_jwt`.
const PRIVATE_KEY: [&str; 4] = ["private_key_file", "key_id", "assertion_algorithm", "assertion_audience"];

pub(super) fn config(json: &str) -> Result<Config> {
    from_settings(&follow_file(Settings::parse("config_json", json, &[])?)?)
}

pub(super) fn refresh_request(json: &str) -> Result<(Config, Secret)> {
    let settings = Settings::parse("request_json", json, &[REFRESH_TOKEN])?;
    let refresh_token = settings.text("refresh_token").map(Secret::new);
    let refresh_token = refresh_token.ok_or_else(|| wrong("refresh_token", "it is missing"))?;
    Ok((from_settings(&follow_file(settings)?)?, refresh_token))
}

pub(super) fn with_store(config: &Config, json: &str) -> Result<Config> {
    const KEYS: [&str; 5] = ["store", "namespace", "encryption_key", "encryption_key_file", "encryption_key_env"];
    let settings = Settings::parse("to_json", json, &[])?;
    if let Some(other) = settings.names().find(|name| !KEYS.contains(name)) {
        return Err(wrong(other, format_args!("to_json takes {} only", KEYS.join(", "))));
    }
    if !settings.has("store") {
        return Err(wrong("store", "it is missing: where is the session to go?"));
    }
    let store = location::store(&settings, &config.registration.client_id)?;
    if store == StoreLocation::Memory {
        return Err(wrong("store", "a session that goes to \"memory:\" would be lost"));
    }
    let namespace = settings.text("namespace").map_or_else(|| config.namespace.clone(), str::to_owned);
    Ok(Config { store, namespace, encryption_keys: encryption_keys(&settings)?, ..config.clone() })
}

/// Replaces `config_file` by what is in it. Relative paths in a file are relative to the file's directory.
fn follow_file(settings: Settings) -> Result<Settings> {
    const KEY: &str = "config_file";
    let Some(path) = settings.path(KEY) else { return Ok(settings) };
    if let Some(other) = settings.names().find(|name| ![KEY, REFRESH_TOKEN.name].contains(name)) {
        return Err(wrong(other, "config_file stands alone: move this key into the file"));
    }
    let path = std::path::absolute(&path).unwrap_or(path);
    let mut inner = Settings::parse("the file that config_file names", read_file(KEY, &path)?.expose(), &[])?;
    if inner.has(KEY) {
        return Err(wrong(KEY, "the file names another file"));
    }
    inner.base = path.parent().map(Path::to_owned);
    Ok(inner)
}

fn from_settings(settings: &Settings) -> Result<Config> {
    let registration = registration(settings)?;
    let expiry_from_introspection = settings.flag("expiry_from_introspection", false);
    if expiry_from_introspection && !registration.has_introspection() {
        return Err(wrong("introspection_endpoint", "it is missing, and expiry_from_introspection needs it"));
    }
    let namespace = match settings.text("namespace") {
        Some(namespace) => namespace.to_owned(),
        None => {
            let server = match &registration.issuer {
                Some(issuer) if registration.token_endpoint.is_empty() => issuer.clone(),
                _ => endpoints::canonical(&registration.token_endpoint),
            };
            format!("{server} {}", registration.client_id)
        }
    };
    let milliseconds = |name, default| Duration::from_millis(settings.number(name).unwrap_or(default));
    let seconds = |name| settings.number(name).and_then(|n| u32::try_from(n).ok());
    let count = |name, default| settings.number(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(default);
    let store = location::store(settings, &registration.client_id)?;
    let encryption_keys = encryption_keys(settings)?;
    if matches!(store, StoreLocation::Shared { .. }) && encryption_keys.is_empty() {
        return Err(wrong(
            "encryption_key",
            "a shared store needs one (or encryption_key_file, encryption_key_env), the same for all programs and \
             machines on it. To make one: head -c 32 /dev/urandom | base64",
        ));
    }
    Ok(Config {
        store,
        registration,
        namespace,
        encryption_keys,
        session_lifetime_s: seconds("session_lifetime_s"),
        renew_before_s: seconds("renew_before_s"),
        expiry_from_introspection,
        early_renewal: match settings.text("early_renewal") {
            Some("wait") => EarlyRenewal::Wait,
            Some("off") => EarlyRenewal::Off,
            _ => EarlyRenewal::Background,
        },
        recheck: Duration::from_secs(settings.number("recheck_s").unwrap_or(60)),
        renews: settings.flag("renews", true),
        lost_reply: match settings.text("lost_reply") {
            Some("sign_in") => LostReply::SignIn,
            _ => LostReply::Replay,
        },
        max_wait: milliseconds("max_wait_ms", 10_000),
        exit_wait: milliseconds("exit_wait_ms", 5_000),
        max_exchanges: count("max_exchanges", 32),
        max_cached_sessions: count("max_cached_sessions", 100_000),
        origins: origins(settings)?,
    })
}

fn registration(settings: &Settings) -> Result<Registration> {
    let site_url = checked(settings, "site_url", endpoints::check_site)?;
    let issuer = checked(settings, "issuer", endpoints::check_issuer)?;
    if issuer.is_some() && site_url.is_some() {
        return Err(wrong("issuer", "site_url is given as well: keep one"));
    }
    let endpoints = endpoints(settings, site_url.as_deref(), issuer.is_some())?;
    let server = if endpoints.token.is_empty() { issuer.as_deref().unwrap_or_default() } else { &endpoints.token };
    let profile = profiles::of(&endpoints::host(&endpoints::canonical(server)));
    let client_id = settings.text("client_id").ok_or_else(|| wrong("client_id", "it is missing"))?;
    if client_id.trim() != client_id {
        return Err(wrong("client_id", "it begins or ends with a space"));
    }
    let client_auth = client_auth(settings, client_id, site_url.is_some())?;
    let parameters_in = match settings.text("parameters_in") {
        Some("headers") => ParametersIn::Headers,
        _ => ParametersIn::Body,
    };
    let (transport, certificate) = transport(settings)?;
    let mut registration = Registration {
        site_url,
        issuer,
        token_endpoint: endpoints.token,
        authorization_endpoint: endpoints.authorization,
        introspection_endpoint: endpoints.introspection,
        revocation_endpoint: endpoints.revocation,
        client_id: client_id.to_owned(),
        client_auth,
        client_auth_given: settings.has("client_auth"),
        iss_in_answers: false,
        scope: settings.text("scope").map(str::to_owned),
        refresh_parameters: parameters(settings, "refresh_parameters", RESERVED_AT_REFRESH)?,
        authorize_parameters: parameters(settings, "authorize_parameters", RESERVED_AT_AUTHORIZE)?,
        parameters_in,
        connect_timeout: Duration::from_millis(settings.number("connect_timeout_ms").unwrap_or(10_000)),
        exchange_timeout: exchange_timeout(settings, &profile),
        newest_wins: settings.flag("newest_wins", profile.newest_wins),
        user_agent: user_agent(settings)?,
        transport,
        fingerprint: String::new(),
    };
    if parameters_in == ParametersIn::Headers {
        check_header_names(&registration)?;
    }
    registration.fingerprint = fingerprint(&registration, certificate.as_deref());
    Ok(registration)
}

/// A server is named by `site_url`, `issuer` or `token_endpoint`; an explicit endpoint wins over the site's.
fn endpoints(settings: &Settings, site_url: Option<&str>, discovered: bool) -> Result<Endpoints> {
    let site = site_url.map(salesforce::endpoints).unwrap_or_default();
    let explicit = |name| checked(settings, name, endpoints::check_endpoint);
    let token = explicit("token_endpoint")?;
    if token.is_none() && site_url.is_none() && !discovered {
        let problem = "the server is not named: set site_url (Salesforce), issuer or token_endpoint";
        return Err(wrong("token_endpoint", problem));
    }
    Ok(Endpoints {
        token: token.unwrap_or(site.token),
        authorization: explicit("authorization_endpoint")?.or(site.authorization),
        introspection: explicit("introspection_endpoint")?.or(site.introspection),
        revocation: explicit("revocation_endpoint")?.or(site.revocation),
    })
}

fn checked(
    settings: &Settings,
    name: &str,
    check: impl Fn(&str) -> std::result::Result<String, String>,
) -> Result<Option<String>> {
    settings.text(name).map(|text| check(text).map_err(|problem| wrong(name, problem))).transpose()
}

fn client_auth(settings: &Settings, client_id: &str, salesforce: bool) -> Result<ClientAuth> {
    let secret = one_source(settings, ["client_secret", "client_secret_file", "client_secret_env"])?;
    let method = settings.text("client_auth");
    let default = match (&secret, settings.has("private_key_file")) {
        (Some(_), _) => "client_secret_basic",
        (None, true) => "private_key_jwt",
        (None, false) => "none",
    };
    let method = method.unwrap_or(default);
    if method != "private_key_jwt"
        && let Some(other) = PRIVATE_KEY.into_iter().find(|name| settings.has(name))
    {
        return Err(wrong(other, format_args!("it is for \"private_key_jwt\", but client_auth is \"{method}\"")));
    }
    match (method, secret) {
        ("private_key_jwt", None) => private_key(settings).map(|key| ClientAuth::PrivateKeyJwt { key }),
        ("private_key_jwt", Some(_)) => {
            Err(wrong("client_auth", "it is \"private_key_jwt\", but a client_secret is given: remove one"))
        }
        ("none", None) => Ok(ClientAuth::None),
        ("none", Some(_)) => Err(wrong("client_auth", "it is \"none\", but a client_secret is given: remove one")),
        (_, None) => Err(wrong("client_auth", "it needs client_secret, client_secret_file or client_secret_env")),
        ("client_secret_post", Some(secret)) => Ok(ClientAuth::Post { secret }),
        (_, Some(secret)) => {
            let encoding = match settings.text("basic_encoding") {
                Some("raw") => BasicEncoding::Raw,
                Some("form") => BasicEncoding::Form,
                _ if salesforce => BasicEncoding::Raw,
                _ => BasicEncoding::Form,
            };
            if encoding == BasicEncoding::Raw && client_id.contains(':') {
                return Err(wrong("client_id", "with basic_encoding \"raw\" it cannot contain a colon"));
            }
            Ok(ClientAuth::Basic { secret, encoding })
        }
    }
}

/// The key is read at each use; here, to say early what is wrong with it.
fn private_key(settings: &Settings) -> Result<PrivateKey> {
    let [file, id, algorithm, audience] = PRIVATE_KEY;
    let path = settings.path(file).ok_or_else(|| wrong("client_auth", "\"private_key_jwt\" needs private_key_file"))?;
    let mut key = PrivateKey {
        file: std::path::absolute(&path).unwrap_or(path),
        id: settings.text(id).map(str::to_owned),
        algorithm: match settings.text(algorithm) {
            Some("RS256") => Some(JwsAlgorithm::Rs256),
            Some("PS256") => Some(JwsAlgorithm::Ps256),
            Some("ES256") => Some(JwsAlgorithm::Es256),
            _ => None,
        },
        audience: settings.text(audience).map(str::to_owned),
        hash: String::new(),
    };
    key.hash = assertion::check(&key).map_err(|problem| wrong(file, problem))?;
    Ok(key)
}

/// A secret from one of three keys: itself, a file, an environment variable.
fn one_source(settings: &Settings, [direct, file, variable]: [&'static str; 3]) -> Result<Option<Secret>> {
    let mut given = [direct, file, variable].into_iter().filter(|name| settings.has(name));
    let Some(key) = given.next() else { return Ok(None) };
    if let Some(second) = given.next() {
        return Err(wrong(second, format_args!("{key} is given as well: keep one")));
    }
    let secret = match settings.text(key) {
        Some(text) if key == direct => Secret::new(text),
        Some(_) if key == file => read_file(key, &settings.path(key).unwrap_or_default())?,
        Some(name) => environment(key, name)?,
        None => return Ok(None),
    };
    let secret = Secret::new(secret.expose().trim_end_matches(['\r', '\n']));
    // A key file has several lines.
    if direct == "client_secret" {
        check_text(secret.expose()).map_err(|problem| wrong(key, problem))?;
    }
    Ok(Some(secret))
}

/// The name is not shown: some will write the secret itself here.
fn environment(key: &str, name: &str) -> Result<Secret> {
    if name.contains('=') {
        return Err(wrong(key, "expected the name of an environment variable"));
    }
    let value = std::env::var(name).map_err(|_| wrong(key, "there is no environment variable of that name"))?;
    Ok(Secret::new(value))
}

fn read_file(key: &str, path: &Path) -> Result<Secret> {
    const LIMIT: u64 = 1 << 20;
    let read = || {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)?.take(LIMIT).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(Secret::new(text))
    };
    read().map_err(|error| wrong(key, format_args!("the file cannot be read: {error}")))
}

fn encryption_keys(settings: &Settings) -> Result<Vec<Zeroizing<[u8; 32]>>> {
    const NAMES: [&str; 3] = ["encryption_key", "encryption_key_file", "encryption_key_env"];
    let Some(name) = NAMES.into_iter().find(|name| settings.has(name)) else { return Ok(Vec::new()) };
    let text = one_source(settings, NAMES)?;
    let keys: Vec<&str> = match &text {
        Some(text) => text.expose().split_whitespace().collect(),
        None => settings.texts(name).iter().map(Secret::expose).collect(),
    };
    if keys.is_empty() {
        return Err(wrong(name, "there is no key in it"));
    }
    let decode = |text: &str| {
        let text = text.trim().trim_end_matches('=');
        let decoded = BASE64_STANDARD_NO_PAD.decode(text).or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(text));
        let bytes = Zeroizing::new(decoded.unwrap_or_default());
        let key = <[u8; 32]>::try_from(bytes.as_slice());
        key.map(Zeroizing::new).map_err(|_| wrong(name, "expected 32 bytes in base64 (44 characters)"))
    };
    keys.into_iter().map(decode).collect()
}

fn parameters(settings: &Settings, name: &str, reserved: &[&str]) -> Result<Vec<(String, Secret)>> {
    let parameters = settings.parameters(name);
    if let Some((parameter, _)) = parameters.iter().find(|(parameter, _)| reserved.contains(&parameter.as_str())) {
        return Err(wrong(name, format_args!("\"{}\" is set by the flow itself", shown(parameter))));
    }
    Ok(parameters.to_vec())
}

fn origins(settings: &Settings) -> Result<Vec<String>> {
    let check = |origin: &Secret| endpoints::check_origin(origin.expose()).map_err(|problem| wrong("origins", problem));
    settings.texts("origins").iter().map(check).collect()
}

/// Three exchanges must fit into the server's window, so that a lost reply can be asked for again within it.
fn exchange_timeout(settings: &Settings, profile: &Profile) -> Duration {
    let timeout = Duration::from_millis(settings.number("exchange_timeout_ms").unwrap_or(60_000));
    match settings.number("reuse_window_s").unwrap_or(profile.reuse_window_s) {
        0 => timeout,
        window => timeout.min(Duration::from_secs(window) / 3),
    }
}

fn user_agent(settings: &Settings) -> Result<String> {
    let user_agent = settings.text("user_agent").unwrap_or(concat!("evergrant/", env!("CARGO_PKG_VERSION")));
    match user_agent.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => Ok(user_agent.to_owned()),
        false => Err(wrong("user_agent", "expected ASCII")),
    }
}

/// The files are read here so that what is wrong with them is known at once, and again for the first connection. Returns
/// the client's certificate as well.
fn transport(settings: &Settings) -> Result<(Transport, Option<String>)> {
    let path = |name| settings.path(name).map(|path| std::path::absolute(&path).unwrap_or(path));
    let (certificate, key) = ("client_certificate_file", "client_key_file");
    let client = match (path(certificate), path(key)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(wrong(key, "it is missing: client_certificate_file needs its key")),
        (None, Some(_)) => return Err(wrong(certificate, "it is missing: client_key_file is the key of one")),
    };
    let files = Files { roots: path("ca_file"), client };
    let content = files.read().map_err(|unfit| wrong(unfit.key, unfit.problem))?;
    let certificate = content.client.as_ref().and_then(|client| client.cert.first());
    let certificate = certificate.map(|certificate| BASE64_STANDARD_NO_PAD.encode(certificate));
    let proxy = settings.text("proxy").map(Proxy::parse).transpose().map_err(|problem| wrong("proxy", problem))?;
    Ok((Transport { files, proxy }, certificate))
}

fn check_header_names(registration: &Registration) -> Result<()> {
    let fit = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match registration.refresh_parameters.iter().find(|(name, _)| !fit(name)) {
        None => Ok(()),
        Some((name, _)) => {
            Err(wrong("refresh_parameters", format_args!("\"{}\" cannot be the name of an HTTP header", shown(name))))
        }
    }
}

/// A hash of everything that a server may refuse this client for.
fn fingerprint(registration: &Registration, certificate: Option<&str>) -> String {
    let (method, secret) = match &registration.client_auth {
        ClientAuth::None => ("none", ""),
        ClientAuth::Basic { secret, encoding: BasicEncoding::Raw } => ("basic raw", secret.expose()),
        ClientAuth::Basic { secret, encoding: BasicEncoding::Form } => ("basic form", secret.expose()),
        ClientAuth::Post { secret } => ("post", secret.expose()),
        ClientAuth::PrivateKeyJwt { key } => ("private key", key.hash.as_str()),
    };
    let parameters_in = match registration.parameters_in {
        ParametersIn::Body => "body",
        ParametersIn::Headers => "headers",
    };
    let mut parts = vec![
        registration.issuer.as_deref().unwrap_or_default(),
        &registration.token_endpoint,
        &registration.client_id,
        method,
        secret,
        parameters_in,
        registration.scope.as_deref().unwrap_or_default(),
    ];
    if let ClientAuth::PrivateKeyJwt { key } = &registration.client_auth {
        let algorithm = key.algorithm.map_or("", JwsAlgorithm::name);
        parts.extend([key.id.as_deref().unwrap_or_default(), algorithm, registration.audience(key)]);
    }
    parts.extend(registration.refresh_parameters.iter().flat_map(|(name, value)| [name.as_str(), value.expose()]));
    parts.extend(certificate);
    short_hash(&parts)
}

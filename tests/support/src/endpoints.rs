//! The endpoints: a request in, a reply out, and a note of it in the log entry.

use crate::authority::{Authority, CodeRequest, Grant, Live, Refusal};
use crate::client_auth::{self, AuthError};
use crate::form::{self, Parameters};
use crate::http::{Object, Reply, Request};
use crate::log::Entry;
use crate::options::{AuthMethod, Client, Options};
use crate::salesforce;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `/services/oauth2/token` or `/token`
    #[default]
    Token,
    /// `/services/oauth2/authorize` or `/authorize`
    Authorize,
    /// `/services/oauth2/introspect` or `/introspect`
    Introspect,
    /// `/services/oauth2/revoke` or `/revoke`
    Revoke,
    /// `/services/oauth2/userinfo` or `/userinfo`
    Userinfo,
    /// `/services/oauth2/echo`: the query as JSON, a redirect URI for the headless flow.
    Echo,
    /// `/services/data/…` or `/resource…`
    Resource,
    /// `/.well-known/openid-configuration` or `/.well-known/oauth-authorization-server`
    Discovery,
    /// Anything else: 404.
    Other,
}

/// The endpoint that a path names, and what stands before it.
pub(crate) fn route(options: &Options, path: &str) -> (Endpoint, String) {
    let (endpoint, prefix) = find(options, path);
    match &options.prefixes {
        Some(served) if !served.iter().any(|one| one == prefix) => (Endpoint::Other, String::new()),
        _ => (endpoint, prefix.into()),
    }
}

fn find<'a>(options: &Options, path: &'a str) -> (Endpoint, &'a str) {
    let oauth = |name: &str| match name {
        "token" => Endpoint::Token,
        "authorize" => Endpoint::Authorize,
        "introspect" => Endpoint::Introspect,
        "revoke" => Endpoint::Revoke,
        "userinfo" => Endpoint::Userinfo,
        "echo" => Endpoint::Echo,
        _ => Endpoint::Other,
    };
    // RFC 8414 puts the prefix behind, OpenID Connect before.
    if let Some(prefix) = path.strip_prefix("/.well-known/oauth-authorization-server") {
        return (Endpoint::Discovery, prefix);
    }
    if let Some(prefix) = path.strip_suffix("/.well-known/openid-configuration") {
        return (Endpoint::Discovery, prefix);
    }
    if options.is_salesforce() {
        return match path.find("/services/").map(|at| path.split_at(at)) {
            Some((prefix, rest)) if rest.starts_with("/services/data") => (Endpoint::Resource, prefix),
            Some((prefix, rest)) => (oauth(rest.strip_prefix("/services/oauth2/").unwrap_or_default()), prefix),
            None => (Endpoint::Other, ""),
        };
    }
    match path.find("/resource") {
        Some(at) => (Endpoint::Resource, &path[..at]),
        None => path.rsplit_once('/').map_or((Endpoint::Other, ""), |(prefix, name)| (oauth(name), prefix)),
    }
}

/// A request with what was understood of it.
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) endpoint: Endpoint,
    pub(crate) prefix: String,
    pub(crate) parameters: Parameters,
}

impl Call {
    pub(crate) fn new(options: &Options, request: Request, endpoint: Endpoint, prefix: String) -> Self {
        let parameters = parameters(options, &request, endpoint);
        Self { request, endpoint, prefix, parameters }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        form::value(&self.parameters, name)
    }

    fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.request.head.header("authorization")?.split_once(' ')?;
        (scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("oauth")).then_some(token)
    }

    /// The token that this request is about.
    pub(crate) fn token(&self) -> Option<&str> {
        match self.endpoint {
            Endpoint::Token => self.parameter("refresh_token"),
            Endpoint::Introspect | Endpoint::Revoke => self.parameter("token"),
            Endpoint::Userinfo | Endpoint::Resource => self.bearer(),
            _ => None,
        }
    }

    pub(crate) fn grant_type(&self) -> Option<&str> {
        self.parameter("grant_type")
    }

    /// The refresh token, if this is to be exchanged for new ones.
    pub(crate) fn refreshes(&self) -> Option<&str> {
        let refreshing = self.endpoint == Endpoint::Token
            && self.grant_type().is_some_and(|it| matches!(it, "refresh_token" | "hybrid_refresh"));
        self.token().filter(|_| refreshing)
    }
}

/// From the body, if it is a form; from elsewhere only where that is usual or was asked for.
fn parameters(options: &Options, request: &Request, endpoint: Endpoint) -> Parameters {
    let head = &request.head;
    let is_form = head
        .header("content-type")
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"));
    let mut all = if is_form { form::parse(&String::from_utf8_lossy(&request.body)) } else { Vec::new() };
    let by_query = matches!(endpoint, Endpoint::Authorize | Endpoint::Echo)
        || endpoint == Endpoint::Revoke && options.is_salesforce() && head.method == "GET";
    if by_query || options.accept_query_parameters {
        all.extend(form::parse(&head.query));
    }
    if options.accept_header_parameters && endpoint == Endpoint::Token && form::value(&all, "grant_type").is_none() {
        for name in ["grant_type", "refresh_token", "client_id", "client_secret", "scope"] {
            all.extend(head.header(name).map(|value| (name.to_owned(), value.to_owned())));
        }
    }
    all
}

/// What the endpoints work on.
pub(crate) struct Context<'a> {
    pub(crate) options: &'a Options,
    pub(crate) authority: &'a mut Authority,
    /// The server's own base URL.
    pub(crate) url: &'a str,
    pub(crate) now: u64,
}

impl<'a> Context<'a> {
    /// Deals with a request.
    pub(crate) fn answer(&mut self, call: &Call, entry: &mut Entry) -> Reply {
        entry.outcome = "ok";
        let answer = match call.endpoint {
            Endpoint::Token => self.token(call, entry),
            Endpoint::Authorize => self.authorize(call),
            Endpoint::Introspect => self.introspect(call, entry),
            Endpoint::Revoke => self.revoke(call, entry),
            Endpoint::Userinfo => self.userinfo(call),
            Endpoint::Echo => Ok(Reply::json(200, &object(&call.parameters))),
            Endpoint::Resource => self.resource(call),
            Endpoint::Discovery => Ok(Reply::json(200, &self.discovery(&call.prefix))),
            Endpoint::Other => Err(("not_found", Reply::new(404, "text/plain", "no such endpoint"))),
        };
        answer.unwrap_or_else(|(outcome, reply)| {
            entry.outcome = outcome;
            reply
        })
    }

    fn token(&mut self, call: &Call, entry: &mut Entry) -> Answer {
        if call.request.head.method != "POST" {
            return Err(("invalid_request", Reply::error(400, "invalid_request", "must use HTTP POST")));
        }
        let grant_type = match call.grant_type() {
            Some("refresh_token") => "refresh_token",
            Some("authorization_code") => "authorization_code",
            Some("hybrid_refresh") if self.options.is_salesforce() => "refresh_token",
            Some("hybrid_auth_code") if self.options.is_salesforce() => "authorization_code",
            _ => {
                let text = "grant type not supported";
                return Err(("unsupported_grant_type", Reply::error(400, "unsupported_grant_type", text)));
            }
        };
        let client = self.client(call, entry)?;
        let missing = |name: &str| {
            let reply = Reply::error(400, "invalid_request", &format!("missing required parameter: {name}"));
            ("invalid_request", reply)
        };
        let (options, now) = (self.options, self.now);
        let granted = if grant_type == "refresh_token" {
            let token = call.token().ok_or_else(|| missing("refresh_token"))?;
            self.authority.refresh(options, now, &client.id, token, call.parameter("scope"))
        } else {
            let code = call.parameter("code").ok_or_else(|| missing("code"))?;
            let challenge = call.parameter("code_verifier").map(challenge);
            let redirect_uri = call.parameter("redirect_uri");
            self.authority.exchange_code(options, now, &client.id, code, redirect_uri, challenge.as_deref())
        };
        let grant = granted.map_err(|refusal| (refusal.name(), refused(options, refusal)))?;
        entry.rotated = grant.rotated;
        entry.replayed = grant.replayed;
        entry.issued_access_token = Some(grant.access_token.to_string());
        entry.issued_refresh_token = grant.refresh_token.as_ref().map(ToString::to_string);
        let answer = token_answer(options, self.url, &call.prefix, Some(client), &grant, now);
        Ok(Reply::json_text(200, answer))
    }

    fn client(&self, call: &Call, entry: &mut Entry) -> Result<&'a Client, (&'static str, Reply)> {
        let audiences = [self.issuer(&call.prefix), self.at(&call.prefix, "token")];
        let found =
            client_auth::authenticate(self.options, &call.request.head, &call.parameters, self.now / 1000, &audiences);
        match found {
            Ok((client, method)) => {
                entry.client_id = Some(client.id.clone());
                entry.auth = Some(method);
                Ok(client)
            }
            Err(error) => Err(("invalid_client", self.unauthenticated(&error))),
        }
    }

    fn unauthenticated(&self, error: &AuthError) -> Reply {
        match error {
            AuthError::MoreThanOneMethod => {
                Reply::error(400, "invalid_request", "more than one way of client authentication")
            }
            AuthError::UnknownClient if self.options.is_salesforce() => {
                Reply::error(400, "invalid_client_id", "client identifier invalid")
            }
            AuthError::WrongCredentials if self.options.is_salesforce() => {
                Reply::error(400, "invalid_client", "invalid client credentials")
            }
            _ => Reply::error(401, "invalid_client", "client authentication failed")
                .with("WWW-Authenticate", "Basic realm=\"evergrant-test-server\""),
        }
    }

    /// Salesforce's headless flow by POST, or the usual one, where the first user consents without being asked.
    fn authorize(&mut self, call: &Call) -> Answer {
        let bad = |error: &'static str, text: &str| Err((error, Reply::error(400, error, text)));
        let head = &call.request.head;
        let Some(client) = call.parameter("client_id").and_then(|id| self.options.client(id)) else {
            return bad("invalid_client_id", "client identifier invalid");
        };
        let redirect_uri = call.parameter("redirect_uri").unwrap_or_default();
        let is_registered =
            client.redirect_uris.is_empty() || client.redirect_uris.iter().any(|one| one == redirect_uri);
        if redirect_uri.is_empty() || !is_registered {
            return bad("redirect_uri_mismatch", "redirect_uri must match configuration");
        }
        if let Some(error) = &self.options.authorize_error {
            let query = [("error", error.clone()), ("error_description", "as configured".into())];
            return Ok(redirect(redirect_uri, &query, call.parameter("state")));
        }
        let challenge = call.parameter("code_challenge").filter(|text| !text.is_empty());
        if challenge.is_some() && !matches!(call.parameter("code_challenge_method"), None | Some("S256")) {
            return bad("invalid_request", "code_challenge_method must be S256");
        }
        if challenge.is_none() && client.require_pkce {
            return bad("invalid_request", "missing required code challenge");
        }
        let user = match call.parameter("response_type") {
            Some("code_credentials") if self.options.is_salesforce() && head.method == "POST" => {
                let named_user =
                    head.header("auth-request-type").is_some_and(|it| it.eq_ignore_ascii_case("named-user"));
                if !named_user {
                    return bad("invalid_request", "unsupported Auth-Request-Type");
                }
                let by_header = head.header("authorization").and_then(client_auth::basic_credentials);
                let by_header = by_header.as_deref().and_then(|text| text.split_once(':'));
                let by_body = call.parameter("username").zip(call.parameter("password"));
                match by_header.or(by_body) {
                    Some((user, password)) if self.options.users.get(user).is_some_and(|it| it == password) => {
                        user.into()
                    }
                    _ => return bad("invalid_grant", "authentication failure"),
                }
            }
            Some("code") => {
                let hint = call.parameter("login_hint").map(str::to_owned);
                hint.or_else(|| self.options.users.keys().next().cloned()).unwrap_or_else(|| "user".into())
            }
            _ => return bad("unsupported_response_type", "response type not supported"),
        };
        let default_scope = if self.options.is_salesforce() { "api refresh_token" } else { "api" };
        let request = CodeRequest {
            client_id: &client.id,
            user: &user,
            scope: call.parameter("scope").unwrap_or(default_scope),
            redirect_uri,
            challenge,
        };
        let code = self.authority.issue_code(self.options, self.now, &request);
        let mut query = vec![("code", code.to_string())];
        if self.options.is_salesforce() && self.options.community {
            query.extend(salesforce::community(self.url, &call.prefix));
        } else if !self.options.is_salesforce() {
            query.push(("iss", self.issuer(&call.prefix)));
        }
        Ok(redirect(redirect_uri, &query, call.parameter("state")))
    }

    fn introspect(&mut self, call: &Call, entry: &mut Entry) -> Answer {
        let client = self.client(call, entry)?;
        if entry.auth == Some(AuthMethod::None) {
            return Err(("invalid_client", self.unauthenticated(&AuthError::WrongCredentials)));
        }
        let live = call.token().and_then(|token| self.authority.live(self.now, token));
        let Some(live) = live.filter(|live| live.client_id == client.id) else {
            return Ok(Reply::json(200, &json!({"active": false})));
        };
        let mut answer = json!({
            "active": true, "scope": live.scope, "client_id": live.client_id, "username": live.user,
            "sub": self.subject(&live), "token_type": if live.is_refresh { "refresh_token" } else { "access_token" },
        });
        if !self.options.is_salesforce() && !live.is_refresh {
            answer["token_type"] = "Bearer".into();
        }
        if let Some(expires_ms) = live.expires_ms {
            answer["exp"] = (expires_ms / 1000).into();
        }
        answer["iat"] = (live.issued_ms / 1000).into();
        answer["nbf"] = (live.issued_ms / 1000).into();
        Ok(Reply::json(200, &answer))
    }

    fn revoke(&mut self, call: &Call, entry: &mut Entry) -> Answer {
        let token = call.token().unwrap_or_default();
        if self.options.is_salesforce() {
            // No client authentication; only what lives can be revoked.
            if self.authority.revoke(self.now, token) {
                return Ok(Reply::empty(200));
            }
            return Err(("invalid_token", Reply::error(400, "invalid_token", "invalid token")));
        }
        // RFC 7009: a token of another client is left alone, and an unknown one is no error.
        let client = self.client(call, entry)?.id.clone();
        if let Some(family) = self.authority.family_of(token) {
            if self.authority.client_of(family) == client {
                self.authority.revoke_family_number(self.now, family);
            }
        } else if self.authority.live(self.now, token).is_some_and(|live| live.client_id == client) {
            self.authority.revoke(self.now, token);
        }
        Ok(Reply::empty(200))
    }

    fn userinfo(&mut self, call: &Call) -> Answer {
        match self.bearer(call) {
            Some(live) => Ok(Reply::json(
                200,
                &json!({
                    "sub": self.subject(&live), "user_id": salesforce::user_id(&live.user),
                    "preferred_username": live.user, "email": live.user,
                }),
            )),
            None if self.options.is_salesforce() => {
                Err(("invalid_token", Reply::new(403, "text/html;charset=UTF-8", "Bad_OAuth_Token")))
            }
            None => Err(("invalid_token", unauthorized())),
        }
    }

    fn resource(&mut self, call: &Call) -> Answer {
        let misplaced = self.options.strict_instance && {
            let instance = self.options.instance_url.as_deref().unwrap_or(self.url);
            let host = instance.split_once("://").map_or(instance, |(_, host)| host).trim_end_matches('/');
            !call.request.head.header("host").is_some_and(|sent| sent.eq_ignore_ascii_case(host))
        };
        match self.bearer(call).filter(|_| !misplaced) {
            Some(live) => {
                Ok(Reply::json(200, &json!({"path": call.request.head.path, "user": live.user, "scope": live.scope})))
            }
            None if self.options.is_salesforce() => {
                let body = json!([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]);
                Err(("invalid_token", Reply::json(401, &body)))
            }
            None => Err(("invalid_token", unauthorized())),
        }
    }

    fn bearer(&mut self, call: &Call) -> Option<Live> {
        self.authority.use_access_token(self.options, self.now, call.token()?)
    }

    fn subject(&self, live: &Live) -> String {
        match self.options.is_salesforce() {
            true => salesforce::identity_url(self.url, &live.user),
            false => live.user.clone(),
        }
    }

    fn issuer(&self, prefix: &str) -> String {
        self.options.issuer.clone().unwrap_or_else(|| format!("{}{prefix}", self.url))
    }

    fn at(&self, prefix: &str, name: &str) -> String {
        let oauth = if self.options.is_salesforce() { "/services/oauth2" } else { "" };
        format!("{}{prefix}{oauth}/{name}", self.url)
    }

    fn discovery(&self, prefix: &str) -> Value {
        let at = |name| self.at(prefix, name);
        json!({
            "issuer": self.issuer(prefix),
            "authorization_endpoint": at("authorize"),
            "token_endpoint": at("token"),
            "revocation_endpoint": at("revoke"),
            "introspection_endpoint": at("introspect"),
            "userinfo_endpoint": at("userinfo"),
            "scopes_supported": ["api", "id", "web", "full", "openid", "refresh_token", "offline_access"],
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": !self.options.is_salesforce(),
        })
    }
}

/// A reply; on the unhappy side with the outcome for the log.
type Answer = Result<Reply, (&'static str, Reply)>;

/// What the token endpoint answers, and what `sign_in` hands out.
pub(crate) fn token_answer(
    options: &Options,
    url: &str,
    prefix: &str,
    client: Option<&Client>,
    grant: &Grant,
    now: u64,
) -> String {
    let mut answer = Object::new();
    if options.is_salesforce() {
        salesforce::token_answer(&mut answer, options, url, prefix, client, grant);
    } else {
        answer.put("access_token", &grant.access_token);
        answer.put("token_type", "Bearer");
        answer.put("scope", &grant.scope);
        if let Some(refresh_token) = &grant.refresh_token {
            answer.put("refresh_token", refresh_token);
        }
    }
    if let Some(expires_in) = &options.expires_in {
        answer.put("expires_in", expires_in);
    } else if options.send_expires_in {
        answer.put("expires_in", grant.expires_ms.saturating_sub(now) / 1000);
    }
    for (name, value) in &options.extra {
        answer.put(name, value);
    }
    answer.finish()
}

fn refused(options: &Options, refusal: Refusal) -> Reply {
    let (error, text) = match (refusal, options.is_salesforce()) {
        (Refusal::Scope, _) => ("invalid_scope", "the scope is more than was granted"),
        (Refusal::InactiveUser, _) => ("invalid_grant", "inactive user"),
        (Refusal::Code, true) => ("invalid_grant", "expired authorization code"),
        (Refusal::Expired, true) => ("invalid_grant", "token validity expired"),
        (_, true) => ("invalid_grant", "expired access/refresh token"),
        (Refusal::Code, false) => ("invalid_grant", "the authorization code is not valid"),
        (Refusal::Expired, false) => ("invalid_grant", "the refresh token has expired"),
        (Refusal::WrongClient, false) => ("invalid_grant", "the refresh token belongs to another client"),
        (Refusal::Reused | Refusal::ReusedAndRevoked, false) => ("invalid_grant", "the refresh token was already used"),
        (Refusal::Superseded, false) => ("invalid_grant", "the refresh token was superseded"),
        (Refusal::FamilyRevoked, false) => ("invalid_grant", "the refresh token was revoked"),
        (Refusal::Unknown, false) => ("invalid_grant", "the refresh token is not known"),
    };
    Reply::error(400, error, text)
}

fn unauthorized() -> Reply {
    Reply::error(401, "invalid_token", "the access token is not valid")
        .with("WWW-Authenticate", "Bearer error=\"invalid_token\"")
}

fn redirect(to: &str, query: &[(&str, String)], state: Option<&str>) -> Reply {
    let mut location = to.to_owned();
    let state = state.map(|state| ("state", state.to_owned()));
    for (name, value) in query.iter().chain(&state) {
        location.push(if location.contains('?') { '&' } else { '?' });
        location.push_str(&format!("{name}={}", form::encode(value)));
    }
    Reply::empty(302).with("Location", location).with("Cache-Control", "no-store")
}

/// PKCE's S256.
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

fn object(parameters: &Parameters) -> Value {
    let members: Map<_, _> = parameters.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_found_behind_any_prefix() {
        let salesforce = Options::salesforce();
        let found = |options: &Options, path: &str| route(options, path);
        assert_eq!(found(&salesforce, "/services/oauth2/token"), (Endpoint::Token, String::new()));
        assert_eq!(found(&salesforce, "/a/b/services/oauth2/revoke"), (Endpoint::Revoke, "/a/b".into()));
        assert_eq!(found(&salesforce, "/services/data/v64.0/sobjects").0, Endpoint::Resource);
        assert_eq!(found(&salesforce, "/x/.well-known/openid-configuration"), (Endpoint::Discovery, "/x".into()));
        assert_eq!(found(&salesforce, "/services/oauth2/token/").0, Endpoint::Other);
        assert_eq!(found(&salesforce, "/token").0, Endpoint::Other);
        let generic = Options::generic();
        assert_eq!(found(&generic, "/token"), (Endpoint::Token, String::new()));
        assert_eq!(found(&generic, "/realms/one/token"), (Endpoint::Token, "/realms/one".into()));
        assert_eq!(
            found(&generic, "/.well-known/oauth-authorization-server/one"),
            (Endpoint::Discovery, "/one".into())
        );
        assert_eq!(found(&generic, "/resource/7").0, Endpoint::Resource);
        let strict = Options { prefixes: Some(vec!["/customers".into()]), ..Options::salesforce() };
        assert_eq!(found(&strict, "/customers/services/oauth2/token").0, Endpoint::Token);
        assert_eq!(found(&strict, "/services/oauth2/token").0, Endpoint::Other);
    }

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let expected = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), expected);
    }
}

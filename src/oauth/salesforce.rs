//! What is particular to Salesforce: endpoints, error texts, `signature`, and which answers reject an access token.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::endpoints::Endpoints;
use crate::secret::Secret;
use crate::token::Members;

/// The endpoints of a site, My Domain or login host; `site_url` as [`super::endpoints::check_site`] returns it.
pub fn endpoints(site_url: &str) -> Endpoints {
    let at = |name| format!("{site_url}/services/oauth2/{name}");
    Endpoints {
        token: at("token"),
        authorization: Some(at("authorize")),
        introspection: Some(at("introspect")),
        revocation: Some(at("revoke")),
    }
}

/// Domains whose token endpoints are Salesforce's own, whoever the site belongs to.
const DOMAINS: &[&str] = &["salesforce.com", "my.site.com", "force.com", "salesforce-sites.com"];

/// The site at which a code is exchanged: the `sfdc_community_url` (or `sfdc_site_url`) of the answer that brought it.
///
/// That answer has come through the user's browser, and the client's secret goes where it says. So: https, and of the
/// same origin as the configured `site_url`, or both of Salesforce's own domains.
pub fn site_for_code(site_url: &str, named: &str) -> Option<String> {
    let named = super::endpoints::check_site(named).ok()?;
    let origin = |url: &str| super::endpoints::origin(url).ok().flatten();
    let (ours, theirs) = (origin(site_url)?, origin(&named)?);
    let is_salesforce = |origin: &str| {
        let host = origin.strip_prefix("https://").unwrap_or_default();
        DOMAINS.iter().any(|domain| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
    };
    (ours == theirs || (is_salesforce(&ours) && is_salesforce(&theirs))).then_some(named)
}

/// What a token endpoint's error means for the refresh token that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody else is spending it right now.
    Busy,
    /// It is dead, for this reason.
    Dead(&'static str),
    /// Nothing: too many logins; try again much later.
    Throttled,
    /// Nothing: the client or its request is wrong.
    Refused,
}

/// Texts of `error_description` that decide whatever the code says: `invalid_grant` stands for all of these.
/// Lower case; contained is enough.
const TEXTS: &[(&str, Verdict)] = &[
    ("token request is already being processed", Verdict::Busy),
    ("login rate exceeded", Verdict::Throttled),
    ("inactive user", Verdict::Dead("inactive_user")),
    ("ip restricted", Verdict::Refused),
    ("audience validation failed", Verdict::Refused),
    ("audience is invalid", Verdict::Refused),
    ("invalid assertion", Verdict::Refused),
];

/// The same event before Winter '25. At a code exchange it means what it says.
const BUSY_AT_REFRESH: &str = "expired authorization code";

/// Judges by Salesforce's texts and codes; `None`: the code (RFC 6749 §5.2) decides.
pub fn verdict(error: &str, description: &str, at_refresh: bool) -> Option<Verdict> {
    match error {
        "rate_limit_exceeded" | "login rate exceeded" | "login_rate_exceeded" => return Some(Verdict::Throttled),
        "inactive_user" | "inactive_org" => return Some(Verdict::Dead("inactive_user")),
        "invalid_grant" => {}
        _ => return None,
    }
    let description = description.to_lowercase();
    if at_refresh && description.contains(BUSY_AT_REFRESH) {
        return Some(Verdict::Busy);
    }
    TEXTS.iter().find(|(text, _)| description.contains(text)).map(|(_, verdict)| *verdict)
}

/// Whether an answer's `signature` does not verify: Base64(HMAC-SHA256(client secret, id + issued_at)), over an identity
/// URL. An answer without these members has nothing to verify.
pub fn signature_mismatch(members: &str, secret: &Secret) -> bool {
    // Most servers send none, and then nothing need be read.
    if !members.contains("\"signature\"") {
        return false;
    }
    let verify = || {
        let members = Members::parse(members).ok()?;
        let (id, signature) = (members.text("id")?, members.text("signature")?);
        let issued_at = members.text("issued_at")?;
        if !id.contains("/id/") {
            return None;
        }
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.expose().as_bytes());
        let signature = BASE64_STANDARD.decode(signature).unwrap_or_default();
        Some(ring::hmac::verify(&key, (id + &issued_at).as_bytes(), &signature).is_err())
    };
    verify().unwrap_or(false)
}

/// 401 bodies that a new access token does not heal: renewing would go on for ever.
const NEVER_HEALS: &[&str] = &[
    "connected app is not attached to agent",
    "this session is not valid for use with the rest api",
    // RFC 6750 §3.1: the token is good, for other things.
    "insufficient_scope",
];

/// Whether a resource server's answer means "this access token is dead".
///
/// That is 401 (RFC 6750 §3.1), less bodies known never to heal, and Salesforce's other ways to say it: 403
/// `Bad_OAuth_Token` (userinfo), 400 `InvalidSessionId` (Bulk API 1.0), and a SOAP fault.
pub fn is_rejection(http_status: i32, body: Option<&str>) -> bool {
    let body = body.unwrap_or_default().to_lowercase();
    match http_status {
        400 => body.contains("exceptioncode") && body.contains("invalidsessionid"),
        401 => !NEVER_HEALS.iter().any(|text| body.contains(text)),
        403 => body.contains("bad_oauth_token"),
        500 => body.contains(":invalid_session_id</faultcode>"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_keep_the_prefix() {
        let endpoints = endpoints("https://my.site.com/customers");
        assert_eq!(endpoints.token, "https://my.site.com/customers/services/oauth2/token");
        assert_eq!(endpoints.revocation.as_deref(), Some("https://my.site.com/customers/services/oauth2/revoke"));
    }

    #[test]
    fn a_code_is_exchanged_at_a_site_that_may_have_the_secret() {
        let ours = "https://acme.my.site.com/customers";
        for (site_url, named, expected) in [
            (ours, "https://ACME.my.site.com/customersvforcesite/", true),
            (ours, "https://acme.my.site.com:443", true),
            (ours, "https://acme.my.salesforce.com", true),
            ("https://login.salesforce.com", ours, true),
            ("https://portal.example.com/a", "https://portal.example.com/b", true),
            ("http://127.0.0.1:8080/a", "http://127.0.0.1:8080/b", true),
            (ours, "http://acme.my.site.com/customers", false),
            (ours, "https://acme.my.site.com:8443/customers", false),
            (ours, "https://portal.example.com", false),
            (ours, "https://evilmy.site.com", false),
            (ours, "https://my.site.com.evil.example", false),
            (ours, "https://x@evil.example/.my.site.com", false),
            (ours, "https://acme.my.site.com/?x=.my.site.com", false),
            ("https://portal.example.com", ours, false),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8081", false),
            (ours, "", false),
        ] {
            assert_eq!(site_for_code(site_url, named).is_some(), expected, "{site_url} {named}");
        }
        let kept = site_for_code(ours, "https://acme.my.site.com/b/").unwrap();
        assert_eq!(kept, "https://acme.my.site.com/b");
    }

    #[test]
    fn signature_vector() {
        let members = |signature: &str| {
            format!(
                r#"{{"id":"https://login.salesforce.com/id/00Dxx0000001gEREAY/005xx000001Sv6AAAS",
                "issued_at":"1790000000000","signature":"{signature}"}}"#
            )
        };
        let good = members("oylgSGeaumzttdIvmRzb2tJ090Wm3L/cnfWp6+SSudo=");
        let secret = Secret::new("PLACEHOLDER_CONSUMER_SECRET");
        assert!(!signature_mismatch(&good, &secret));
        assert!(signature_mismatch(&good, &Secret::new("another")));
        assert!(signature_mismatch(&members("not base64"), &secret));
        assert!(signature_mismatch(&members(""), &secret));
        for nothing in ["{}", r#"{"signature":"x"}"#, r#"{"id":5,"issued_at":6,"signature":"x"}"#] {
            assert!(!signature_mismatch(nothing, &secret), "{nothing}");
        }
    }

    #[test]
    fn rejections() {
        for (status, body, expected) in [
            (401, None, true),
            (401, Some(r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#), true),
            (401, Some("<html>"), true),
            (401, Some("Connected app is not attached to Agent"), false),
            (401, Some(r#"[{"message":"This session is not valid for use with the REST API"}]"#), false),
            (401, Some(r#"{"error":"insufficient_scope"}"#), false),
            (403, Some("Bad_OAuth_Token"), true),
            (403, Some("Bad_OAuth_Token\n"), true),
            (403, None, false),
            (403, Some(r#"{"error":"insufficient_scope"}"#), false),
            (400, Some("Bad_OAuth_Token"), false),
            (400, Some(r#"{"exceptionCode":"InvalidSessionId","exceptionMessage":"Invalid session id"}"#), true),
            (400, Some("<error><exceptionCode>InvalidSessionId</exceptionCode></error>"), true),
            (400, Some(r#"{"exceptionCode":"InvalidJob","exceptionMessage":"Invalid session id"}"#), false),
            (400, Some("InvalidSessionId"), false),
            (500, Some("<soapenv:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode></soapenv:Fault>"), true),
            (500, Some("<soapenv:Fault><faultcode>sf:INVALID_TYPE</faultcode></soapenv:Fault>"), false),
            (200, None, false),
            (500, Some("INVALID_SESSION_ID"), false),
            (-1, None, false),
        ] {
            assert_eq!(is_rejection(status, body), expected, "{status} {body:?}");
        }
    }
}

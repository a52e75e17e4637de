//! Who is asking? A secret that was sent is always checked, also when none would have been needed.

use crate::form::{self, Parameters};
use crate::http::Head;
use crate::options::{AuthMethod, Client, Options};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AuthError {
    UnknownClient,
    WrongCredentials,
    MoreThanOneMethod,
}

/// The client, and how it proved itself. `now_s` is compared with the `exp` of an assertion, `audiences` with its `aud`.
pub(crate) fn authenticate<'a>(
    options: &'a Options,
    head: &Head,
    parameters: &Parameters,
    now_s: u64,
    audiences: &[String],
) -> Result<(&'a Client, AuthMethod), AuthError> {
    let sent = |name| form::value(parameters, name);
    let basic = head.header("authorization").and_then(basic_credentials);
    if let Some(secret) = sent("client_secret") {
        // Salesforce lets the body win; the RFC forbids two methods at once.
        if basic.is_some() && !options.is_salesforce() {
            return Err(AuthError::MoreThanOneMethod);
        }
        let client = known(options, sent("client_id"))?;
        return check(client, AuthMethod::Post, client.secret.as_deref() == Some(secret));
    }
    if let Some(credentials) = basic {
        return by_basic(options, &credentials);
    }
    if let Some(assertion) = sent("client_assertion") {
        return by_assertion(options, assertion, sent("client_id"), now_s, audiences);
    }
    let client = known(options, sent("client_id"))?;
    check(client, AuthMethod::None, true)
}

fn known<'a>(options: &'a Options, id: Option<&str>) -> Result<&'a Client, AuthError> {
    id.and_then(|id| options.client(id)).ok_or(AuthError::UnknownClient)
}

fn check(client: &Client, method: AuthMethod, right: bool) -> Result<(&Client, AuthMethod), AuthError> {
    if right && client.accepts(method) { Ok((client, method)) } else { Err(AuthError::WrongCredentials) }
}

/// The text behind `Basic`, whose name may be written in any case.
pub(crate) fn basic_credentials(field: &str) -> Option<String> {
    let (scheme, encoded) = field.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()).ok())??;
    String::from_utf8(decoded).ok()
}

/// Tries the raw reading, then the form-encoded one; where both are the same, it counts as raw if that is accepted.
fn by_basic<'a>(options: &'a Options, credentials: &str) -> Result<(&'a Client, AuthMethod), AuthError> {
    let (id, secret) = credentials.split_once(':').ok_or(AuthError::WrongCredentials)?;
    let mut error = AuthError::UnknownClient;
    for (method, id, secret) in [
        (AuthMethod::BasicRaw, id.to_owned(), secret.to_owned()),
        (AuthMethod::BasicForm, form::decode(id), form::decode(secret)),
    ] {
        if let Some(client) = options.client(&id) {
            match check(client, method, client.secret.as_deref() == Some(&secret)) {
                Ok(found) => return Ok(found),
                Err(wrong) => error = wrong,
            }
        }
    }
    Err(error)
}

/// RFC 7523 §3: `iss` = `sub` = the client, `aud` = the token endpoint or the issuer, not past its `exp`.
fn by_assertion<'a>(
    options: &'a Options,
    assertion: &str,
    client_id: Option<&str>,
    now_s: u64,
    audiences: &[String],
) -> Result<(&'a Client, AuthMethod), AuthError> {
    let wrong = || AuthError::WrongCredentials;
    let mut parts = assertion.split('.');
    let mut part = || parts.next().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or_else(wrong);
    let (header, claims, signature) = (part()?, part()?, part()?);
    let header: Value = serde_json::from_slice(&header).map_err(|_| wrong())?;
    let claims: Value = serde_json::from_slice(&claims).map_err(|_| wrong())?;
    let subject = claims["sub"].as_str();
    let client = known(options, subject)?;
    let key = client.public_key.as_deref().and_then(bare_public_key).ok_or_else(wrong)?;
    let algorithm: &dyn VerificationAlgorithm = match header["alg"].as_str() {
        Some("RS256") => &RSA_PKCS1_2048_8192_SHA256,
        Some("PS256") => &RSA_PSS_2048_8192_SHA256,
        Some("ES256") => &ECDSA_P256_SHA256_FIXED,
        _ => return Err(wrong()),
    };
    let signed = assertion.rsplit_once('.').map_or("", |(signed, _)| signed);
    let verified = UnparsedPublicKey::new(algorithm, key).verify(signed.as_bytes(), &signature).is_ok();
    let is_for_us = |aud: &Value| aud.as_str().is_some_and(|aud| audiences.iter().any(|audience| audience == aud));
    let aud = &claims["aud"];
    let right = verified
        && claims["iss"].as_str() == subject
        && client_id.is_none_or(|id| subject == Some(id))
        && (is_for_us(aud) || aud.as_array().is_some_and(|all| all.iter().any(is_for_us)))
        && claims["exp"].as_u64().is_some_and(|exp| exp > now_s);
    check(client, AuthMethod::PrivateKeyJwt, right)
}

/// The key bits of a PEM SubjectPublicKeyInfo: `SEQUENCE { SEQUENCE algorithm, BIT STRING key }`.
fn bare_public_key(pem: &str) -> Option<Vec<u8>> {
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let der = STANDARD.decode(text).ok()?;
    let (_, outer, _) = der_element(&der)?;
    let (_, _, rest) = der_element(outer)?;
    let (tag, bits, _) = der_element(rest)?;
    (tag == 0x03).then(|| bits.get(1..).map(<[u8]>::to_vec))?
}

/// Tag, content, and what follows.
fn der_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        length = bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(client: Client, header: Option<String>, body: &str) -> Result<AuthMethod, AuthError> {
        let options = Options { clients: vec![client], ..Options::generic() };
        let headers = header.into_iter().map(|value| ("Authorization".to_owned(), value)).collect();
        let head = Head { headers, ..Head::default() };
        authenticate(&options, &head, &form::parse(body), 0, &[]).map(|(_, method)| method)
    }

    fn basic(text: &str) -> Option<String> {
        Some(format!("bAsIc {}", STANDARD.encode(text)))
    }

    #[test]
    fn basic_is_read_raw_or_form_encoded_as_the_client_allows() {
        let client = || Client::confidential("id", "a%41:b+c d");
        let (raw, form) = ("id:a%41:b+c d", "id:a%2541%3Ab%2Bc+d");
        assert_eq!(attempt(client(), basic(raw), ""), Ok(AuthMethod::BasicRaw));
        assert_eq!(attempt(client(), basic(form), ""), Ok(AuthMethod::BasicForm));
        let only = |method| client().accepting(&[method]);
        assert_eq!(attempt(only(AuthMethod::BasicForm), basic(raw), ""), Err(AuthError::WrongCredentials));
        assert_eq!(attempt(only(AuthMethod::BasicRaw), basic(form), ""), Err(AuthError::WrongCredentials));
        assert_eq!(attempt(client(), basic("other:x"), ""), Err(AuthError::UnknownClient));
    }

    #[test]
    fn a_sent_secret_is_always_checked() {
        let client = Client { auth: vec![AuthMethod::None, AuthMethod::Post], ..Client::confidential("id", "right") };
        assert_eq!(attempt(client.clone(), None, "client_id=id"), Ok(AuthMethod::None));
        assert_eq!(attempt(client.clone(), None, "client_id=id&client_secret=right"), Ok(AuthMethod::Post));
        assert_eq!(attempt(client, None, "client_id=id&client_secret=wrong"), Err(AuthError::WrongCredentials));
        let public = Client::public("id");
        assert_eq!(attempt(public, None, "client_id=id&client_secret="), Err(AuthError::WrongCredentials));
    }

    #[test]
    fn two_methods_at_once_are_refused() {
        let client = Client::confidential("id", "right");
        let error = attempt(client, basic("id:right"), "client_id=id&client_secret=right");
        assert_eq!(error, Err(AuthError::MoreThanOneMethod));
    }

    #[test]
    fn an_assertion_is_verified() {
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
        let random = ring::rand::SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let mut spki = vec![0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08];
        spki.extend([0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00]);
        spki.extend(pair.public_key().as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(spki));
        let client = Client { public_key: Some(pem), ..Client::public("id") };
        let options = Options { clients: vec![client], ..Options::generic() };
        let sign = |claims: Value| {
            let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
            let signed = format!("{}.{}", part(&serde_json::json!({"alg": "ES256"})), part(&claims));
            let signature = pair.sign(&random, signed.as_bytes()).unwrap();
            format!("client_assertion={signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        let attempt = |body: &str| {
            let parameters = form::parse(body);
            let audiences = ["http://server".to_owned(), "http://server/token".to_owned()];
            authenticate(&options, &Head::default(), &parameters, 100, &audiences).map(|(_, method)| method)
        };
        let claims = |exp: u64, aud: &str| serde_json::json!({"iss": "id", "sub": "id", "aud": aud, "exp": exp});
        assert_eq!(attempt(&sign(claims(101, "http://server/token"))), Ok(AuthMethod::PrivateKeyJwt));
        assert_eq!(attempt(&sign(claims(100, "http://server/token"))), Err(AuthError::WrongCredentials));
        assert_eq!(attempt(&sign(claims(101, "http://server"))), Ok(AuthMethod::PrivateKeyJwt));
        for aud in ["http://other/token", "http://server/", "http://serve", "http://server/revoke", ""] {
            assert_eq!(attempt(&sign(claims(101, aud))), Err(AuthError::WrongCredentials), "{aud}");
        }
        let forged = sign(claims(101, "http://server/token")).replace("client_assertion=e", "client_assertion=f");
        assert_eq!(attempt(&forged), Err(AuthError::WrongCredentials));
    }
}

//! Client authentication (RFC 6749 §2.3), the same at each of a server's endpoints.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::utf8_percent_encode;

use super::http::FORM;
use super::{Deadline, Failure, assertion};
use crate::config::{BasicEncoding, ClientAuth, PrivateKey, Registration};
use crate::secret::Secret;

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How a client authenticates in one request.
pub struct Authentication<'a> {
    registration: &'a Registration,
    assertion: Option<Secret>,
}

/// Authenticates one request, which is answered by `deadline` or of no use. Whatever fails, nothing was sent.
pub fn authenticate(registration: &Registration, deadline: Deadline) -> Result<Authentication<'_>, Failure> {
    let assertion = match &registration.client_auth {
        ClientAuth::PrivateKeyJwt { key } => Some(assertion(registration, key, deadline)?),
        ClientAuth::None | ClientAuth::Basic { .. } | ClientAuth::Post { .. } => None,
    };
    Ok(Authentication { registration, assertion })
}

impl Authentication<'_> {
    /// The value of `Authorization`, if the client authenticates there.
    pub fn authorization(&self) -> Option<Secret> {
        authorization(self.registration)
    }

    /// The parameters with which the client identifies or authenticates itself beside `Authorization`.
    ///
    /// With Basic there are none: Salesforce ignores the header once the body repeats the pair.
    pub fn parameters(&self) -> Vec<(&'static str, &str)> {
        let client_id = ("client_id", self.registration.client_id.as_str());
        match (&self.registration.client_auth, &self.assertion) {
            (ClientAuth::Basic { .. }, _) => Vec::new(),
            (ClientAuth::Post { secret }, _) => vec![client_id, ("client_secret", secret.expose())],
            // Who the client is stands in the assertion, too; some servers want both.
            (ClientAuth::PrivateKeyJwt { .. }, Some(assertion)) => {
                vec![client_id, ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.expose())]
            }
            (ClientAuth::None | ClientAuth::PrivateKeyJwt { .. }, _) => vec![client_id],
        }
    }
}

/// Its `exp` is the hard limit of the exchange: a request that is delivered after its sender has given up is refused.
fn assertion(registration: &Registration, key: &PrivateKey, deadline: Deadline) -> Result<Secret, Failure> {
    assertion::sign(key, &registration.client_id, registration.audience(key), deadline.answer).map_err(|problem| {
        let message = format!("private_key_file is of no use: {problem}; nothing was sent");
        Failure::new("no_private_key", message)
    })
}

/// The value of `Authorization`, if this client authenticates there.
pub(super) fn authorization(registration: &Registration) -> Option<Secret> {
    match &registration.client_auth {
        ClientAuth::Basic { secret, encoding } => Some(basic(&registration.client_id, secret, *encoding)),
        ClientAuth::None | ClientAuth::Post { .. } | ClientAuth::PrivateKeyJwt { .. } => None,
    }
}

/// The client secret, if there is one.
pub fn secret(registration: &Registration) -> Option<&Secret> {
    match &registration.client_auth {
        ClientAuth::None | ClientAuth::PrivateKeyJwt { .. } => None,
        ClientAuth::Basic { secret, .. } | ClientAuth::Post { secret } => Some(secret),
    }
}

/// RFC 7617 §2, and RFC 6749 §2.3.1 for the encoding.
fn basic(client_id: &str, secret: &Secret, encoding: BasicEncoding) -> Secret {
    let pair = Secret::new(match encoding {
        BasicEncoding::Raw => format!("{client_id}:{}", secret.expose()),
        BasicEncoding::Form => {
            let encode = |text| utf8_percent_encode(text, FORM);
            format!("{}:{}", encode(client_id), encode(secret.expose()))
        }
    });
    basic_header(&pair)
}

/// RFC 7617 §2, of `name:password` as it is.
pub fn basic_header(pair: &Secret) -> Secret {
    let mut header = String::with_capacity(6 + pair.expose().len().div_ceil(3) * 4);
    header.push_str("Basic ");
    BASE64_STANDARD.encode_string(pair.expose(), &mut header);
    Secret::new(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfcs() {
        let raw = |id, secret| basic(id, &Secret::new(secret), BasicEncoding::Raw).expose().to_owned();
        let form = |id, secret| basic(id, &Secret::new(secret), BasicEncoding::Form).expose().to_owned();
        // RFC 6749 §2.3.1
        assert_eq!(raw("s6BhdRkqt3", "gX1fBat3bV"), "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW");
        assert_eq!(form("s6BhdRkqt3", "gX1fBat3bV"), "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW");
        // RFC 7617 §2, §2.1
        assert_eq!(raw("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(raw("test", "123\u{a3}"), "Basic dGVzdDoxMjPCow==");
        // RFC 6749 appendix B: " %&+£€"
        let expected = BASE64_STANDARD.encode("a%3Ab:%20%25%26%2B%C2%A3%E2%82%AC");
        assert_eq!(form("a:b", " %&+\u{a3}\u{20ac}"), format!("Basic {expected}"));
    }
}

//! Client authentication at the token endpoint (RFC 6749 §2.3).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::utf8_percent_encode;

use super::http::FORM;
use crate::config::{BasicEncoding, ClientAuth, Registration};
use crate::secret::Secret;

/// The value of `Authorization`, if the client authenticates there.
pub fn authorization(registration: &Registration) -> Option<Secret> {
    match &registration.client_auth {
        ClientAuth::Basic { secret, encoding } => Some(basic(&registration.client_id, secret, *encoding)),
        ClientAuth::None | ClientAuth::Post { .. } => None,
    }
}

/// The parameters with which the client identifies or authenticates itself beside `Authorization`.
///
/// With Basic there are none: Salesforce ignores the header once the body repeats the pair.
pub fn parameters(registration: &Registration) -> Vec<(&str, &str)> {
    match &registration.client_auth {
        ClientAuth::None => vec![("client_id", &registration.client_id)],
        ClientAuth::Basic { .. } => Vec::new(),
        ClientAuth::Post { secret } => {
            vec![("client_id", &registration.client_id), ("client_secret", secret.expose())]
        }
    }
}

/// The client secret, if there is one.
pub fn secret(registration: &Registration) -> Option<&Secret> {
    match &registration.client_auth {
        ClientAuth::None => None,
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

//! What a server says went wrong (RFC 6749 §5.2), fit to be shown.

use std::borrow::Cow;

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::http::{FORM, Response};
use super::{Failure, client_auth};
use crate::config::Registration;
use crate::secret::Secret;
use crate::session::record::Binds;
use crate::token::Members;

/// An OAuth error, as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerError {
    pub error: String,
    pub description: Option<String>,
    pub uri: Option<String>,
}

impl ServerError {
    /// Reads JSON, and form-encoded text, as Salesforce's revocation endpoint answers.
    pub fn read(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?.trim();
        let read = if text.starts_with('{') { Self::from_json(text) } else { Self::from_form(text) }?;
        let is_code = |code: &str| !code.is_empty() && code.len() <= 200 && code.bytes().all(is_code_byte);
        is_code(&read.error).then_some(read)
    }

    fn from_json(text: &str) -> Option<Self> {
        let members = Members::parse(text).ok()?;
        Some(Self {
            error: members.text("error")?,
            description: members.text("error_description"),
            uri: members.text("error_uri"),
        })
    }

    fn from_form(text: &str) -> Option<Self> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text).decode_utf8().map(Cow::into_owned).ok()
        };
        let get = |name| text.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).and_then(decode);
        Some(Self { error: get("error")?, description: get("error_description"), uri: get("error_uri") })
    }
}

/// RFC 6749 §5.2, less what would make an HTML page an error.
fn is_code_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'<' | b'>')
}

/// Makes foreign text fit to be shown: short, one line, and nothing in it that we sent or that looks like a token.
pub(super) struct Scrub {
    secrets: Vec<Secret>,
}

/// A secret as it is, and as it stands in a form.
fn as_sent(secret: &Secret) -> [Secret; 2] {
    [secret.clone(), Secret::new(utf8_percent_encode(secret.expose(), FORM).to_string())]
}

/// This many characters in common with a secret are taken out.
const TELLING: usize = 10;
const REDACTED: &str = "[redacted]";

impl Scrub {
    /// Takes out what a request with this token contains.
    pub fn new(registration: &Registration, token: &Secret) -> Self {
        let parameters = registration.refresh_parameters.iter().map(|(_, value)| value);
        let sent = parameters.chain([token]).chain(client_auth::secret(registration));
        let mut secrets: Vec<Secret> = client_auth::authorization(registration).into_iter().collect();
        for secret in sent.filter(|secret| secret.expose().len() >= 4) {
            secrets.extend(as_sent(secret));
        }
        Self { secrets }
    }

    /// Takes this out, too.
    pub fn and(mut self, secret: &Secret) -> Self {
        self.secrets.extend(as_sent(secret).into_iter().filter(|secret| secret.expose().len() >= 4));
        self
    }

    /// At most `most` characters of `text`.
    pub fn clean(&self, text: &str, most: usize) -> String {
        let line: Vec<char> = text.chars().filter(|c| !is_format(*c)).take(4 * most).map(flat).collect();
        let mut hidden = vec![false; line.len()];
        self.hide_secrets(&line, &mut hidden);
        hide_tokens(&line, &mut hidden);
        let mut shown = String::new();
        for (at, c) in line.iter().enumerate() {
            match (hidden[at], at > 0 && hidden[at - 1]) {
                (false, _) => shown.push(*c),
                (true, false) => shown.push_str(REDACTED),
                (true, true) => {}
            }
        }
        match shown.char_indices().nth(most) {
            Some((end, _)) => format!("{}…", &shown[..end]),
            None => shown.trim().to_owned(),
        }
    }

    fn hide_secrets(&self, line: &[char], hidden: &mut [bool]) {
        for secret in &self.secrets {
            let secret = secret.expose();
            let length = secret.chars().count().min(TELLING);
            for (at, window) in line.windows(length).enumerate() {
                if secret.contains(&window.iter().collect::<String>()) {
                    hidden[at..at + length].fill(true);
                }
            }
        }
    }
}

/// Characters without a shape of their own, that hide text or turn it around.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn flat(c: char) -> char {
    if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c }
}

/// Other tokens: our own next ones, or another user's.
fn hide_tokens(line: &[char], hidden: &mut [bool]) {
    let mut start = 0;
    for run in line.split_inclusive(|c| !(c.is_ascii_alphanumeric() || "-._~+=!%".contains(*c))) {
        let text: String = run.iter().collect();
        let like_a_token = (text.len() >= 40 && text.contains(|c: char| c.is_ascii_digit()))
            || (text.starts_with("eyJ") && text.len() >= 16)
            || (text.starts_with("5Aep") && text.len() >= 12)
            || (text.starts_with("00D") && text.contains('!'));
        if like_a_token {
            hidden[start..start + run.len()].fill(true);
        }
        start += run.len();
    }
}

/// A failure that the server's answer tells.
pub(super) fn failure(
    response: &Response,
    said: Option<&ServerError>,
    scrub: &Scrub,
    (reason, binds): (&'static str, Binds),
    message: String,
) -> Failure {
    let clean =
        |text: &Option<String>| text.as_ref().map(|text| scrub.clean(text, 300)).filter(|text| !text.is_empty());
    Failure {
        message,
        reason,
        error: said.map(|said| scrub.clean(&said.error, 100)),
        error_description: said.and_then(|said| clean(&said.description)),
        error_uri: said.and_then(|said| clean(&said.uri)),
        http_status: Some(response.status),
        retry_after_ms: response.retry_after_ms,
        binds,
    }
}

/// `HTTP 400, invalid_grant (expired access/refresh token)`
pub(super) fn said(response: &Response, error: Option<&ServerError>, scrub: &Scrub) -> String {
    let mut text = format!("HTTP {}", response.status);
    if let Some(error) = error {
        text += ", ";
        text += &scrub.clean(&error.error, 100);
        if let Some(description) = &error.description {
            text += &format!(" ({})", scrub.clean(description, 300));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(secrets: &[&str]) -> Scrub {
        Scrub { secrets: secrets.iter().map(|text| Secret::new(*text)).collect() }
    }

    #[test]
    fn errors_are_read_from_json_and_form() {
        let read =
            |text: &str| ServerError::read(text.as_bytes()).map(|e| (e.error, e.description.unwrap_or_default()));
        let some = |error: &str, description: &str| Some((error.to_owned(), description.to_owned()));
        assert_eq!(read(r#" {"error":"invalid_grant","error_description":"x y"} "#), some("invalid_grant", "x y"));
        assert_eq!(read(r#"{"error":"invalid_token","error_description":5}"#), some("invalid_token", ""));
        assert_eq!(
            read("error=invalid_token&error_description=invalid%20t%C3%B6+x"),
            some("invalid_token", "invalid tö x")
        );
        for nothing in [
            "",
            "{}",
            "[]",
            r#"{"error":5}"#,
            r#"{"error":""}"#,
            r#"{"error":{"code":1}}"#,
            "<html>error=x</html>",
            "error=<b>",
            "\u{feff}",
            "xerror=invalid_grant",
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
        assert_eq!(ServerError::read(b"error=\xff"), None);
    }

    #[test]
    fn nothing_that_was_sent_is_shown() {
        let scrub = scrub(&["canary-refresh-token", "s3cr3t"]);
        for (text, expected) in [
            ("bad token canary-refresh-token!", "bad token [redacted]!"),
            ("token 'anary-refresh-t' cut", "token '[redacted]' cut"),
            ("s3cr3t/s3cr3t", "[redacted]/[redacted]"),
            ("canary, refresh, token", "canary, refresh, token"),
            ("line\r\nbreak\u{202e}\u{7}", "linebreak"),
        ] {
            let expected = if text.starts_with("line") { "line  break" } else { expected };
            assert_eq!(scrub.clean(text, 100), expected);
        }
    }

    #[test]
    fn what_looks_like_a_token_is_not_shown() {
        let scrub = scrub(&[]);
        for token in [
            "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
            "5Aep861PLACEHOLDER",
            "00D123!AQ",
            "1234567890abcdefghijklmnopqrstuvwxyz.ABCD",
        ] {
            assert_eq!(scrub.clean(&format!("got {token} here"), 100), "got [redacted]here", "{token}");
        }
        let plain = "expired access/refresh token, see https://help.example.com/a-long-path/without-a-token";
        assert_eq!(scrub.clean(plain, 100), plain);
        assert_eq!(scrub.clean(&"ab ".repeat(200), 10), "ab ab ab a…");
    }
}

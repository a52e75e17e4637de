//! What is particular to Salesforce's answers.

use crate::authority::Grant;
use crate::http::Object;
use crate::options::{Client, Options};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

const ORGANIZATION_18: &str = "00Dxx0000001gEREAY";
const COMMUNITY_ID: &str = "0DBxx0000000001";

/// `Base64(HMAC-SHA256(client secret, id + issued_at))`.
pub fn signature(client_secret: &str, id: &str, issued_at: &str) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, client_secret.as_bytes()));
    context.update(id.as_bytes());
    context.update(issued_at.as_bytes());
    STANDARD.encode(context.sign())
}

/// The identity URL of a user: the same for the same name.
pub(crate) fn identity_url(site: &str, user: &str) -> String {
    format!("{site}/id/{ORGANIZATION_18}/{}", user_id(user))
}

pub(crate) fn user_id(user: &str) -> String {
    let number = user
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("005xx{:010}AAS", number % 10_000_000_000)
}

/// The path prefix is part of the community's URL.
pub(crate) fn community(url: &str, prefix: &str) -> [(&'static str, String); 2] {
    [("sfdc_community_url", format!("{url}{prefix}")), ("sfdc_community_id", COMMUNITY_ID.into())]
}

/// The members of the token endpoint's answer.
pub(crate) fn token_answer(
    answer: &mut Object,
    options: &Options,
    url: &str,
    prefix: &str,
    client: Option<&Client>,
    grant: &Grant,
) {
    let id = identity_url(url, &grant.user);
    let issued_at = grant.issued_ms.to_string();
    answer.put("access_token", &grant.access_token);
    if let Some(refresh_token) = &grant.refresh_token {
        answer.put("refresh_token", refresh_token);
    }
    if options.community {
        for (name, value) in community(url, prefix) {
            answer.put(name, &value);
        }
    }
    if let Some(secret) = client.and_then(|client| client.secret.as_deref()) {
        let key = if options.wrong_signature { "not the secret" } else { secret };
        answer.put("signature", signature(key, &id, &issued_at));
    }
    answer.put("token_format", "opaque");
    answer.put("scope", &grant.scope);
    answer.put("instance_url", options.instance_url.as_deref().unwrap_or(url));
    answer.put("id", &id);
    answer.put("token_type", "Bearer");
    answer.put("issued_at", &issued_at);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_signature_is_computed_as_documented() {
        let id = "https://login.salesforce.com/id/00Dxx0000001gEREAY/005xx000001Sv6AAAS";
        let signature = super::signature("PLACEHOLDER_CONSUMER_SECRET", id, "1790000000000");
        assert_eq!(signature, "oylgSGeaumzttdIvmRzb2tJ090Wm3L/cnfWp6+SSudo=");
    }

    #[test]
    fn user_ids_have_18_characters() {
        assert_eq!(super::user_id("user@example.com").len(), 18);
    }
}

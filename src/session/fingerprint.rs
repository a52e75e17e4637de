//! Keyed hashes of refresh tokens: to recognise a token without keeping it, and to show which one was meant.

use std::sync::Arc;

use ring::hmac;

use super::record::Record;
use crate::secret::Secret;

/// The fingerprints of one record. Forgetting a session forgets its key.
pub struct Fingerprints(hmac::Key);

impl Fingerprints {
    /// The key that `record` carries.
    pub fn of(record: &Record) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, record.secrets.fingerprint_key.expose().as_bytes()))
    }

    /// 64 bits of HMAC-SHA256, as hexadecimal digits.
    pub fn of_token(&self, token: &Secret) -> Arc<str> {
        let tag = hmac::sign(&self.0, token.expose().as_bytes());
        let bits = tag.as_ref()[..8].iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        format!("{bits:016x}").into()
    }
}

//! JWT client assertions (RFC 7523 §3, OpenID Connect Core §9): signed by the client's private key, one for each request.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::Signer;
use serde_json::json;
use zeroize::Zeroize;

use crate::clock;
use crate::config::{JwsAlgorithm, PrivateKey, short_hash};
use crate::secret::{Secret, SecretBytes};
use crate::sync::Instant;

/// A key file is not read beyond this.
const LARGEST_FILE: u64 = 64 << 10;

/// The value of `client_assertion`: good for one request, and not beyond `expires`.
///
/// The error says what is wrong with the key file.
pub fn sign(key: &PrivateKey, client_id: &str, audience: &str, expires: Instant) -> Result<Secret, String> {
    let (algorithm, signer) = signer(key)?;
    let mut header = json!({"typ": "JWT", "alg": algorithm.name()});
    if let Some(key_id) = &key.id {
        header["kid"] = key_id.as_str().into();
    }
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| "the operating system gave no random numbers")?;
    let now_ms = clock::wall_ms();
    let left_ms = expires.saturating_duration_since(Instant::now()).as_millis() as i64;
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": BASE64_URL_SAFE_NO_PAD.encode(random),
        "iat": now_ms.div_euclid(1000),
        // Servers count whole seconds: rounded up, so that a short time is some.
        "exp": now_ms.saturating_add(left_ms).saturating_add(999).div_euclid(1000),
    });
    let encode = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = signer.sign(signed.as_bytes()).map_err(|_| "it cannot sign")?;
    let signature = match algorithm {
        JwsAlgorithm::Es256 => fixed(&signature).ok_or("it cannot sign")?.to_vec(),
        JwsAlgorithm::Rs256 | JwsAlgorithm::Ps256 => signature,
    };
    Ok(Secret::new(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))))
}

/// Reads the key file and checks that it fits. Returns its hash.
pub fn check(key: &PrivateKey) -> Result<String, String> {
    signer(key)?;
    let pem = read(&key.file)?;
    Ok(short_hash(&[std::str::from_utf8(&pem).unwrap_or_default()]))
}

/// Reads the file anew, so that a key that was replaced counts at once, and none lies in memory meanwhile.
fn signer(key: &PrivateKey) -> Result<(JwsAlgorithm, Box<dyn Signer>), String> {
    let pem = read(&key.file)?;
    let mut der = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| "there is no private key in it: expected PEM, not encrypted (-----BEGIN PRIVATE KEY-----)")?;
    let signing_key = any_supported_type(&der);
    der.zeroize();
    let unfit = "expected an RSA key of 2048 to 4096 bits, or an EC key on the curve P-256";
    let signing_key = signing_key.map_err(|_| unfit)?;
    let by_kind = [JwsAlgorithm::Rs256, JwsAlgorithm::Es256];
    let choices = key.algorithm.map_or(by_kind.to_vec(), |algorithm| vec![algorithm]);
    let choose = |algorithm: JwsAlgorithm| Some((algorithm, signing_key.choose_scheme(&[algorithm.scheme()])?));
    choices.into_iter().find_map(choose).ok_or_else(|| match key.algorithm {
        Some(algorithm) => format!("it has no key for assertion_algorithm \"{}\"", algorithm.name()),
        None => unfit.to_owned(),
    })
}

fn read(path: &Path) -> Result<SecretBytes, String> {
    let unreadable = |error: std::io::Error| format!("the file cannot be read: {error}");
    let mut file = File::open(path).map_err(unreadable)?;
    // Never grows: a reallocation would leave a copy behind.
    let length = file.metadata().map_err(unreadable)?.len().clamp(4 << 10, LARGEST_FILE);
    let mut pem = SecretBytes::new(Vec::with_capacity(length as usize + 1));
    file.by_ref().take(LARGEST_FILE).read_to_end(&mut pem).map_err(unreadable)?;
    Ok(pem)
}

/// `SEQUENCE { r INTEGER, s INTEGER }` as JWS has it: each in 32 bytes (RFC 7518 §3.4).
fn fixed(der: &[u8]) -> Option<[u8; 64]> {
    let mut rest = der.get(2..)?;
    let mut fixed = [0; 64];
    for half in fixed.chunks_mut(32) {
        let length = usize::from(*rest.get(1)?);
        let integer = rest.get(2..2 + length)?;
        // A leading zero says that the number is not negative.
        let number = &integer[integer.len().saturating_sub(32)..];
        half[32 - number.len()..].copy_from_slice(number);
        rest = &rest[2 + length..];
    }
    Some(fixed)
}

impl JwsAlgorithm {
    /// As JOSE names it (RFC 7518 §3.1).
    pub fn name(self) -> &'static str {
        match self {
            JwsAlgorithm::Rs256 => "RS256",
            JwsAlgorithm::Ps256 => "PS256",
            JwsAlgorithm::Es256 => "ES256",
        }
    }

    fn scheme(self) -> SignatureScheme {
        match self {
            JwsAlgorithm::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
            JwsAlgorithm::Ps256 => SignatureScheme::RSA_PSS_SHA256,
            JwsAlgorithm::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
        }
    }
}

#[cfg(test)]
#[path = "assertion_tests.rs"]
mod tests;

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// Runs openssl in a directory, with what it is to say on standard output.
fn openssl(directory: &TempDir, arguments: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

const RSA: &str = "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out";
const EC: &str = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out";

fn key(file: PathBuf) -> PrivateKey {
    PrivateKey { file, id: None, algorithm: None, audience: None, hash: String::new() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(70)
}

/// Header and claims of an assertion whose signature is right.
fn verified(assertion: &Secret, algorithm: &'static dyn VerificationAlgorithm, public_key: &[u8]) -> (Value, Value) {
    let (signed, signature) = assertion.expose().rsplit_once('.').unwrap();
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    UnparsedPublicKey::new(algorithm, public_key).verify(signed.as_bytes(), &decode(signature)).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    (serde_json::from_slice(&decode(header)).unwrap(), serde_json::from_slice(&decode(claims)).unwrap())
}

#[test]
fn every_algorithm_of_every_kind_of_file() {
    let directory = tempfile::tempdir().unwrap();
    for new in [format!("{RSA} rsa.pem"), format!("{EC} ec.pem")] {
        openssl(&directory, &new);
    }
    openssl(&directory, "rsa -in rsa.pem -traditional -out pkcs1.pem");
    openssl(&directory, "ec -in ec.pem -out sec1.pem");
    let first_line = |file| fs::read_to_string(directory.path().join(file)).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(first_line("pkcs1.pem"), "-----BEGIN RSA PRIVATE KEY-----");
    assert_eq!(first_line("sec1.pem"), "-----BEGIN EC PRIVATE KEY-----");
    // The key itself is the end of a SubjectPublicKeyInfo.
    let rsa = openssl(&directory, "pkey -in rsa.pem -pubout -outform DER").split_off(24);
    let ec = openssl(&directory, "pkey -in ec.pem -pubout -outform DER").split_off(26);

    let (rs256, ps256, es256) = (&RSA_PKCS1_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA256, &ECDSA_P256_SHA256_FIXED);
    for (file, chosen, name, algorithm, public_key) in [
        ("rsa.pem", None, "RS256", rs256 as &dyn VerificationAlgorithm, &rsa),
        ("pkcs1.pem", None, "RS256", rs256, &rsa),
        ("rsa.pem", Some(JwsAlgorithm::Rs256), "RS256", rs256, &rsa),
        ("rsa.pem", Some(JwsAlgorithm::Ps256), "PS256", ps256, &rsa),
        ("pkcs1.pem", Some(JwsAlgorithm::Ps256), "PS256", ps256, &rsa),
        ("ec.pem", None, "ES256", es256, &ec),
        ("sec1.pem", None, "ES256", es256, &ec),
        ("sec1.pem", Some(JwsAlgorithm::Es256), "ES256", es256, &ec),
    ] {
        let id = chosen.map(|_| "key 1".to_owned());
        let key = PrivateKey { id: id.clone(), algorithm: chosen, ..key(directory.path().join(file)) };
        let before_s = clock::wall_ms() / 1000;
        let assertion = sign(&key, "client \"1\"", "https://as.example/token", soon()).unwrap();
        let (header, claims) = verified(&assertion, algorithm, public_key);
        assert_eq!((&header["alg"], &header["typ"]), (&json!(name), &json!("JWT")), "{file}");
        assert_eq!(header.get("kid"), id.map(Value::from).as_ref(), "{file}");
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("client \"1\""), &json!("client \"1\"")));
        assert_eq!(claims["aud"], "https://as.example/token");
        let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        assert!((before_s..before_s + 30).contains(&iat) && (70..=71).contains(&(exp - iat)), "{claims}");
    }
}

#[test]
fn each_assertion_is_another_and_a_short_time_is_some() {
    let directory = tempfile::tempdir().unwrap();
    openssl(&directory, &format!("{EC} ec.pem"));
    let ec = openssl(&directory, "pkey -in ec.pem -pubout -outform DER").split_off(26);
    let key = key(directory.path().join("ec.pem"));
    let mut seen = HashSet::new();
    // Enough for numbers that begin with zeros.
    for _ in 0..600 {
        let assertion = sign(&key, "id", "aud", Instant::now() + Duration::from_millis(1)).unwrap();
        let claims = verified(&assertion, &ECDSA_P256_SHA256_FIXED, &ec).1;
        let jti = claims["jti"].as_str().unwrap();
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(jti).unwrap().len(), 16);
        assert!(seen.insert(jti.to_owned()));
        assert!(claims["exp"].as_i64() > claims["iat"].as_i64(), "{claims}");
    }
}

#[test]
fn a_file_that_is_of_no_use_says_why_and_shows_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for (name, new) in [
        ("small", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out"),
        ("p384", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out"),
        ("k1", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out"),
        ("ed25519", "genpkey -algorithm ED25519 -out"),
        ("rsa", RSA),
        ("ec", EC),
    ] {
        openssl(&directory, &format!("{new} {name}"));
    }
    openssl(&directory, "pkey -in rsa -pubout -out public");
    openssl(&directory, "pkey -in rsa -aes256 -passout pass:canary -out encrypted");
    for (name, text) in [
        ("text", "canary"),
        ("empty", ""),
        ("cut", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n"),
        ("nonsense", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n"),
        ("not base64", "-----BEGIN PRIVATE KEY-----\n(canary)\n-----END PRIVATE KEY-----\n"),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    for (file, algorithm, word) in [
        ("missing", None, "cannot be read"),
        (".", None, "cannot be read"),
        ("text", None, "no private key"),
        ("empty", None, "no private key"),
        ("cut", None, "no private key"),
        ("not base64", None, "no private key"),
        ("public", None, "no private key"),
        ("encrypted", None, "not encrypted"),
        ("nonsense", None, "RSA key of 2048"),
        ("small", None, "RSA key of 2048"),
        ("p384", None, "P-256"),
        ("k1", None, "P-256"),
        ("ed25519", None, "P-256"),
        ("rsa", Some(JwsAlgorithm::Es256), "assertion_algorithm \"ES256\""),
        ("ec", Some(JwsAlgorithm::Rs256), "assertion_algorithm \"RS256\""),
        ("ec", Some(JwsAlgorithm::Ps256), "assertion_algorithm \"PS256\""),
        ("p384", Some(JwsAlgorithm::Es256), "assertion_algorithm \"ES256\""),
    ] {
        let key = PrivateKey { algorithm, ..key(directory.path().join(file)) };
        let error = check(&key).expect_err(file);
        assert!(error.contains(word) && !error.contains("canary") && !error.contains('\n'), "{file}: {error}");
        assert_eq!(sign(&key, "id", "aud", soon()).expect_err(file), error);
    }
}

//! Sealing: what is secret in a record leaves this process only encrypted, and bound to its place.
//!
//! Every record has a key of its own, derived from a master key and the record's [`Key`]. The sealed part also binds
//! the record's version and its whole plain JSON text, so that no byte of a row can be changed, no two rows swapped
//! and no older part put back without notice. (A whole older row is not noticed here: parties remember generations.)
//!
//! ```text
//! format 1 | key id 8 | nonce 12 | AES-256-GCM ciphertext and tag
//! ```

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Error, Result, Status};
use crate::secret::SecretBytes;
use crate::session::record::{Key, Record, Secrets};

const FORMAT: u8 = 1;
const KEY_ID: std::ops::Range<usize> = 1..9;
pub(super) const NONCE: std::ops::Range<usize> = 9..HEADER;
const HEADER: usize = 9 + NONCE_LEN;

/// Names a master key without telling anything of it.
pub type KeyId = [u8; 8];

/// Master keys: the first seals, all open.
#[derive(Clone)]
pub struct Keys(Arc<[Master]>);

struct Master {
    id: KeyId,
    secret: Prk,
}

/// Why a sealed part does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// None of our keys has sealed it.
    OtherKey,
    /// A newer version has sealed it in a way that this one does not know.
    OtherFormat,
    /// It, or what it is bound to, is not what was written.
    Damaged,
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::new(Status::Internal, "the operating system gives no random numbers"))?;
    Ok(bytes)
}

struct KeyIdLength;

impl hkdf::KeyType for KeyIdLength {
    fn len(&self) -> usize {
        size_of::<KeyId>()
    }
}

impl Master {
    fn new(key: &[u8; 32]) -> Self {
        let secret = Salt::new(HKDF_SHA256, b"evergrant").extract(key);
        let mut id = KeyId::default();
        secret
            .expand(&[b"key id"], KeyIdLength)
            .and_then(|derived| derived.fill(&mut id))
            .expect("eight bytes are not too long for HKDF");
        Self { id, secret }
    }

    fn record_key(&self, key: &Key) -> LessSafeKey {
        let info: [&[u8]; 5] = [
            b"record",
            &length(&key.namespace),
            key.namespace.as_bytes(),
            &length(&key.session),
            key.session.as_bytes(),
        ];
        let derived = self.secret.expand(&info, &AES_256_GCM).expect("32 bytes are not too long for HKDF");
        LessSafeKey::new(UnboundKey::from(derived))
    }
}

fn length(text: &str) -> [u8; 8] {
    (text.len() as u64).to_be_bytes()
}

/// What a sealed part is bound to. Namespace and session are in it twice, through the key and here.
fn bound_to(key: &Key, version: i64, plain: &str) -> Aad<Vec<u8>> {
    let mut bound = Vec::with_capacity(1 + 32 + key.namespace.len() + key.session.len() + plain.len());
    bound.push(FORMAT);
    bound.extend_from_slice(&version.to_be_bytes());
    for text in [&*key.namespace, &*key.session, plain] {
        bound.extend_from_slice(&length(text));
        bound.extend_from_slice(text.as_bytes());
    }
    Aad::from(bound)
}

impl Keys {
    /// Takes at least one key.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8; 32]>) -> Result<Self> {
        let keys: Arc<[Master]> = keys.into_iter().map(Master::new).collect();
        if keys.is_empty() {
            return Err(Error::invalid("encryption_key is an empty list: give at least one key"));
        }
        Ok(Self(keys))
    }

    /// The ids of all, in order.
    pub fn ids(&self) -> Vec<KeyId> {
        self.0.iter().map(|master| master.id).collect()
    }

    /// The id of the key that seals.
    pub fn sealing(&self) -> KeyId {
        self.0[0].id
    }

    /// Whether the key with this id is among ours.
    pub fn has(&self, id: &[u8]) -> bool {
        self.0.iter().any(|master| master.id == id)
    }

    /// Seals `secret`, bound to the record's place, version and plain text.
    pub fn seal(&self, key: &Key, version: i64, plain: &str, secret: &[u8]) -> Result<Vec<u8>> {
        let master = &self.0[0];
        // Random nonces repeat after 2^48 writes of one record, whose key is its own.
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = Vec::with_capacity(HEADER + secret.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&master.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(secret);
        let tag = master
            .record_key(key)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                bound_to(key, version, plain),
                &mut sealed[HEADER..],
            )
            .map_err(|_| Error::new(Status::Internal, "a record is too long to be sealed"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what [`Keys::seal`] has sealed for the same place, version and plain text.
    pub fn open(
        &self,
        key: &Key,
        version: i64,
        plain: &str,
        sealed: &[u8],
    ) -> std::result::Result<SecretBytes, Closed> {
        match sealed.first() {
            Some(&FORMAT) if sealed.len() >= HEADER => {}
            Some(&format) if format > FORMAT => return Err(Closed::OtherFormat),
            _ => return Err(Closed::Damaged),
        }
        let master = self.0.iter().find(|master| master.id == sealed[KEY_ID]).ok_or(Closed::OtherKey)?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed[NONCE]).map_err(|_| Closed::Damaged)?;
        let mut secret = SecretBytes::new(sealed[HEADER..].to_vec());
        let length = master
            .record_key(key)
            .open_in_place(nonce, bound_to(key, version, plain), &mut secret)
            .map_err(|_| Closed::Damaged)?
            .len();
        secret.truncate(length);
        Ok(secret)
    }

    /// A record as it is stored: its plain JSON text and its sealed part.
    pub fn seal_record(&self, key: &Key, record: &Record) -> Result<(String, Vec<u8>)> {
        let unwritable = |_| Error::new(Status::Internal, "a record cannot be written as JSON");
        let plain = serde_json::to_string(record).map_err(unwritable)?;
        // Large enough not to move, which would leave copies behind.
        let mut secret = SecretBytes::new(Vec::with_capacity(room(&record.secrets)));
        serde_json::to_writer(&mut *secret, &record.secrets).map_err(unwritable)?;
        let sealed = self.seal(key, record.version, &plain, &secret)?;
        Ok((plain, sealed))
    }

    /// The record that [`Keys::seal_record`] was given.
    pub fn open_record(
        &self,
        key: &Key,
        version: i64,
        plain: &str,
        sealed: &[u8],
    ) -> std::result::Result<Record, Closed> {
        let secret = self.open(key, version, plain, sealed)?;
        // What opens was written by a party that has our key: text that does not parse is a newer version's.
        let mut record: Record = serde_json::from_str(plain).map_err(|_| Closed::OtherFormat)?;
        record.secrets = serde_json::from_slice(&secret).map_err(|_| Closed::OtherFormat)?;
        record.version = version;
        Ok(record)
    }
}

/// Room for secrets as JSON, with as many escapes as a JSON text in a JSON string needs.
fn room(secrets: &Secrets) -> usize {
    let named = [&secrets.refresh_token, &secrets.access_token, &secrets.members, &secrets.spare];
    let length: usize = named.into_iter().flatten().chain(&secrets.to_revoke).map(|s| s.expose().len() + 8).sum();
    512 + secrets.fingerprint_key.expose().len() + length * 3 / 2
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} keys]", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seeds: &[u8]) -> Keys {
        Keys::new(&seeds.iter().map(|seed| [*seed; 32]).collect::<Vec<_>>()).unwrap()
    }

    fn key(namespace: &str, session: &str) -> Key {
        Key { namespace: namespace.into(), session: session.into() }
    }

    #[test]
    fn opens_what_it_sealed_and_shows_nothing_of_it() {
        let sealed = keys(&[1]).seal(&key("n", "s"), 7, "{}", b"canary-canary").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"canary"));
        assert_eq!(**keys(&[1]).open(&key("n", "s"), 7, "{}", &sealed).unwrap(), *b"canary-canary");
        assert_ne!(sealed, keys(&[1]).seal(&key("n", "s"), 7, "{}", b"canary-canary").unwrap());
    }

    #[test]
    fn opens_nowhere_else() {
        let ring = keys(&[1]);
        let sealed = ring.seal(&key("ab", "c"), 7, "{}", b"secret").unwrap();
        for (place, version, plain) in [
            (key("a", "bc"), 7, "{}"),
            (key("ab", "d"), 7, "{}"),
            (key("ab", "c"), 8, "{}"),
            (key("ab", "c"), 7, "{ }"),
            (key("ab", "c"), 7, ""),
        ] {
            assert_eq!(ring.open(&place, version, plain, &sealed).unwrap_err(), Closed::Damaged);
        }
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(ring.open(&key("ab", "c"), 7, "{}", &changed).is_err(), "bit {bit} of byte {at}");
            }
            assert!(ring.open(&key("ab", "c"), 7, "{}", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn no_nonce_repeats() {
        let mut seen = std::collections::HashSet::new();
        let place = key("n", "s");
        // As many processes that begin anew, with the same key for the same record.
        for _ in 0..100 {
            let ring = keys(&[1]);
            for version in 0..1000 {
                let sealed = ring.seal(&place, version, "{}", b"secret").unwrap();
                assert!(seen.insert(sealed[NONCE].to_vec()), "{:?} came twice", &sealed[NONCE]);
            }
        }
        // They differ in every bit, each about as often as not: no counter, and no part that stands still.
        for bit in 0..8 * NONCE_LEN {
            let ones = seen.iter().filter(|nonce| nonce[bit / 8] >> (bit % 8) & 1 == 1).count();
            assert!((45_000..55_000).contains(&ones), "bit {bit} is set in {ones} of {}", seen.len());
        }
    }

    #[test]
    fn keys_rotate() {
        let place = key("n", "s");
        let old = keys(&[1]).seal(&place, 1, "{}", b"x").unwrap();
        let both = keys(&[2, 1]);
        assert_eq!(**both.open(&place, 1, "{}", &old).unwrap(), *b"x");
        let new = both.seal(&place, 2, "{}", b"x").unwrap();
        assert_eq!(keys(&[1]).open(&place, 2, "{}", &new).unwrap_err(), Closed::OtherKey);
        assert_eq!(**keys(&[2]).open(&place, 2, "{}", &new).unwrap(), *b"x");
        assert!(both.has(&keys(&[1]).sealing()) && !keys(&[1]).has(&both.sealing()));
    }

    #[test]
    fn format_is_stable() {
        // Sealed by the first version: every later one must open it.
        let sealed: Vec<u8> = SEALED_BY_FIRST_VERSION
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(**keys(&[1]).open(&key("n", "s"), 7, "{}", &sealed).unwrap(), *b"secret");
    }

    const SEALED_BY_FIRST_VERSION: &str =
        "010dbc85d4e47532f2d705a082cf2eb4da1b77cdd202806026cb579a96d7b739d73734235cad3836b6240d";
}

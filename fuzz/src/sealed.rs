//! Sealed rows: what opens is what was sealed, in its place; a record of any JSON comes back as it was.
//!
//! The first byte chooses: `p` and patches of a good row, `r` and a record's plain text, `s` and its secrets, else a
//! whole sealed part.

use std::sync::OnceLock;

use evergrant::Secret;
use evergrant::session::record::{Id, Key, Known, Record, Secrets, State};
use evergrant::store::seal::{Closed, Keys};

const VERSION: i64 = 7;

struct Row {
    keys: Keys,
    plain: String,
    sealed: Vec<u8>,
}

fn row() -> &'static Row {
    static ROW: OnceLock<Row> = OnceLock::new();
    ROW.get_or_init(|| {
        let keys = Keys::new(&[[1; 32]]).expect("a key");
        let (plain, sealed) = keys.seal_record(&place(), &record(VERSION, 3, "canary-refresh-token")).expect("sealed");
        Row { keys, plain, sealed }
    })
}

pub(super) fn record(version: i64, generation: u64, refresh_token: &str) -> Record {
    Record {
        version,
        grant: Id(1),
        generation,
        state: State::Active,
        reason: None,
        life: None,
        renewed_at_ms: 0,
        made_by: None,
        attempt: None,
        back_off: None,
        known: Known::default(),
        history: Vec::new(),
        signature_mismatch: false,
        moved: None,
        arrived: Vec::new(),
        delete_after_ms: None,
        others: Default::default(),
        secrets: Secrets { refresh_token: Some(Secret::new(refresh_token)), ..Default::default() },
    }
}

fn place() -> Key {
    Key { namespace: "namespace".into(), session: "session".into() }
}

pub fn run(data: &[u8]) {
    let Some((what, rest)) = data.split_first() else { return };
    match what {
        b'p' => patched(rest),
        b'r' => rewritten(rest, b"{\"fingerprint_key\":\"\"}"),
        b's' => rewritten(row().plain.as_bytes(), rest),
        _ => {
            let opened = row().keys.open_record(&place(), VERSION, &row().plain, data);
            assert!(opened.is_err() || data == row().sealed, "a forged row opens");
        }
    }
}

/// Patches of one row: what (1 byte), where (2), by what it is changed (1).
fn patched(patches: &[u8]) {
    let Row { keys, plain, sealed } = row();
    let (mut namespace, mut session) = (b"namespace".to_vec(), b"session".to_vec());
    let (mut version, mut text, mut changed) =
        (VERSION.to_be_bytes().to_vec(), plain.clone().into_bytes(), sealed.clone());
    for patch in patches.chunks_exact(4) {
        let parts = [&mut changed, &mut text, &mut version, &mut session, &mut namespace];
        let part = parts.into_iter().nth(usize::from(patch[0]) % 5).expect("five parts");
        let at = usize::from(u16::from_be_bytes([patch[1], patch[2]]));
        match at.checked_rem(part.len()) {
            // Cut off.
            Some(at) if patch[0] >= 0xf0 => part.truncate(at),
            Some(at) => part[at] ^= patch[3],
            None => {}
        }
    }
    let (Ok(namespace), Ok(session), Ok(text)) =
        (String::from_utf8(namespace), String::from_utf8(session), String::from_utf8(text))
    else {
        return;
    };
    let Ok(version) = <[u8; 8]>::try_from(version).map(i64::from_be_bytes) else { return };
    let key = Key { namespace: namespace.into(), session: session.into() };
    let same = key == place() && version == VERSION && text == *plain && changed == *sealed;
    match keys.open_record(&key, version, &text, &changed) {
        Ok(opened) => {
            assert!(same, "a changed row opens");
            assert_eq!(opened, record(VERSION, 3, "canary-refresh-token"));
        }
        Err(_) => assert!(!same, "a good row does not open"),
    }
}

/// A record that a party with our key has written, of whatever version, opens or says that it is newer; and what was
/// read is written again without loss.
fn rewritten(plain: &[u8], secrets: &[u8]) {
    let keys = &row().keys;
    let Ok(plain) = std::str::from_utf8(plain) else { return };
    let sealed = keys.seal(&place(), VERSION, plain, secrets).expect("sealed");
    let record = match keys.open_record(&place(), VERSION, plain, &sealed) {
        Ok(record) => record,
        Err(closed) => {
            assert_eq!(closed, Closed::OtherFormat, "what our key has sealed is not damaged");
            return;
        }
    };
    let (plain, sealed) = keys.seal_record(&place(), &record).expect("sealed");
    let again = keys.open_record(&place(), VERSION, &plain, &sealed).expect("what was written can be read");
    assert_eq!(again, record, "a record does not come back as it was");
}

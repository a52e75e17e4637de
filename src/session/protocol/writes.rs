//! The writes that come from the application: a sign-in, a sign-out, an erasure, a confirmed revocation.

use serde_json::Map;

use super::{Moment, TOMBSTONE_MS, remember};
use crate::secret::Secret;
use crate::session::fingerprint::Fingerprints;
use crate::session::record::{Entry, Id, Record, Secrets, State};
use crate::token::{Answer, Expiry, Life};

/// A new session from a token that the application brings: a sign-in. `None`: this token is known, nothing changes.
pub fn save(
    record: Option<&Record>,
    answer: &Answer,
    fresh: Fresh,
    life: Option<Life>,
    moment: &Moment,
) -> Option<Record> {
    replaced(record, answer, Origin::Application, fresh, life, moment)
}

/// A new session from the server's own answer to a sign-in of just now. Some servers give a user the same tokens again.
/// `None`: there is no token in it.
pub fn sign_in(
    record: Option<&Record>,
    answer: &Answer,
    fresh: Fresh,
    life: Option<Life>,
    moment: &Moment,
) -> Option<Record> {
    replaced(record, answer, Origin::Server, fresh, life, moment)
}

/// Who says that a token is good.
#[derive(PartialEq, Eq)]
enum Origin {
    /// It may say so of one that is spent.
    Application,
    Server,
}

fn replaced(
    record: Option<&Record>,
    answer: &Answer,
    origin: Origin,
    fresh: Fresh,
    life: Option<Life>,
    moment: &Moment,
) -> Option<Record> {
    let erased = record.is_none_or(|record| record.state == State::Forgotten);
    let mut next = match record {
        Some(record) if erased => Record { version: record.version, ..Record::new(fresh.version, fresh.grant) }.next(),
        Some(record) => record.next(),
        None => Record::new(fresh.version, fresh.grant),
    };
    if erased {
        next.secrets.fingerprint_key = fresh.fingerprint_key;
    }
    let keys = Fingerprints::of(&next);
    let identity = answer.refresh_token.as_ref().or(answer.access_token.as_ref())?;
    let fingerprint = keys.of_token(identity);
    let known = next.known.saved.contains(&fingerprint) || next.known.spent.contains(&fingerprint);
    if origin == Origin::Application && !erased && (known || next.secrets.holds(identity)) {
        return None;
    }
    if let Some(old) = next.secrets.refresh_token.take() {
        remember(&mut next.known.spent, keys.of_token(&old));
    }
    if origin == Origin::Server {
        // Whatever is noted of it, the server says that it is good: it is neither spent nor to be revoked.
        next.known.spent.retain(|spent| *spent != fingerprint);
        let given = [&answer.refresh_token, &answer.access_token];
        next.secrets.to_revoke.retain(|token| !given.into_iter().flatten().any(|given| given == token));
    }
    remember(&mut next.known.saved, fingerprint.clone());
    next.grant = fresh.grant;
    next.generation = 1;
    next.state = State::Active;
    next.reason = None;
    next.made_by = None;
    next.attempt = None;
    next.back_off = None;
    next.delete_after_ms = None;
    next.secrets.spare = None;
    next.secrets.refresh_token.clone_from(&answer.refresh_token);
    next.take_access_token(answer, life, moment.wall_ms);
    next.push(Entry {
        at_ms: moment.wall_ms,
        party: moment.party.to_owned(),
        outcome: "saved".to_owned(),
        reason: None,
        refresh_token_fingerprint: answer.refresh_token.is_some().then_some(fingerprint),
        duration_ms: None,
    });
    Some(next)
}

/// Random values for a new session.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// 62 bits: the version of a record that is really new.
    pub version: i64,
    /// The grant.
    pub grant: Id,
    /// The key of the fingerprints of a record that is really new.
    pub fingerprint_key: Secret,
}

/// The record with a shorter life of its access token, which the server did not say when it gave that out. `None`: that
/// token is no longer the current one, or nothing changes.
pub fn expires(record: Option<&Record>, access_token: &Secret, until_ms: i64) -> Option<Record> {
    let record = record
        .filter(|record| record.state == State::Active && record.secrets.access_token.as_ref() == Some(access_token))?;
    let life = record.life.filter(|life| life.expiry != Expiry::Known)?;
    let sooner = life.until_ms.is_none_or(|known_ms| until_ms < known_ms);
    let mut next = record.next();
    next.life = Some(Life { until_ms: Some(until_ms), expiry: Expiry::Assumed, ..life });
    sooner.then_some(next)
}

/// The tombstone of a session that its user leaves: it keeps the tokens until the server has revoked them.
/// `revocable`: there is a server to ask. `None`: nothing to leave.
pub fn sign_out(record: Option<&Record>, revocable: bool, moment: &Moment) -> Option<Record> {
    let record = record.filter(|record| matches!(record.state, State::Active | State::Ended))?;
    let mut next = record.next();
    let Secrets { refresh_token, access_token, spare, .. } = &mut next.secrets;
    let tokens: Vec<Secret> = [refresh_token.take(), spare.take(), access_token.take()].into_iter().flatten().collect();
    let keys = Fingerprints::of(record);
    for token in record.secrets.refresh_token.iter().chain(&record.secrets.spare) {
        remember(&mut next.known.spent, keys.of_token(token));
    }
    if revocable {
        next.secrets.to_revoke.extend(tokens);
    }
    next.state = State::SignedOut;
    next.bury(record, moment);
    next.push(Entry {
        at_ms: moment.wall_ms,
        party: moment.party.to_owned(),
        outcome: "signed_out".to_owned(),
        reason: None,
        refresh_token_fingerprint: None,
        duration_ms: None,
    });
    Some(next)
}

/// The tombstone of a session that is erased here only. `None`: nothing to erase.
pub fn forget(record: Option<&Record>, moment: &Moment) -> Option<Record> {
    let record = record.filter(|record| record.state != State::Forgotten)?;
    let mut next = record.next();
    next.state = State::Forgotten;
    next.secrets = Secrets::default();
    next.known = Default::default();
    next.history = Vec::new();
    next.others = Map::new();
    next.bury(record, moment);
    Some(next)
}

/// The record without a token that the server has confirmed revoked. `None`: it is not there.
pub fn revoked(record: Option<&Record>, token: &Secret) -> Option<Record> {
    let record = record.filter(|record| record.secrets.to_revoke.contains(token))?;
    let mut next = record.next();
    next.secrets.to_revoke.retain(|kept| kept != token);
    Some(next)
}

impl Record {
    /// A record of nothing yet.
    fn new(version: i64, grant: Id) -> Self {
        Self {
            version,
            grant,
            generation: 1,
            state: State::Active,
            reason: None,
            life: None,
            renewed_at_ms: 0,
            made_by: None,
            attempt: None,
            back_off: None,
            known: Default::default(),
            history: Vec::new(),
            signature_mismatch: false,
            moved: None,
            arrived: Vec::new(),
            delete_after_ms: None,
            others: Map::new(),
            secrets: Secrets::default(),
        }
    }

    pub(super) fn bury(&mut self, before: &Record, moment: &Moment) {
        let open_ms = before.attempt.as_ref().map_or(0, |attempt| (attempt.until_ms - moment.now.ms).max(0));
        let after_ms = moment.wall_ms.saturating_add(open_ms).saturating_add(TOMBSTONE_MS);
        self.delete_after_ms = self.delete_after_ms.max(Some(after_ms));
        self.reason = None;
        self.life = None;
        self.attempt = None;
        self.back_off = None;
        self.made_by = None;
        self.secrets.members = None;
    }
}

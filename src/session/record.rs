//! What the store keeps for one session.
//!
//! [`Record`] serializes to JSON that contains no secret; [`Secrets`] is what a store seals. Members that a newer
//! version wrote are kept in `others` and written back.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::secret::Secret;
use crate::token::Life;

/// A record's place in a store: sealing binds to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Whose sessions: one client registration at one server.
    pub namespace: Arc<str>,
    /// The name that the application chose.
    pub session: Arc<str>,
}

/// 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u128);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Id).map_err(serde::de::Error::custom)
    }
}

/// Everything that the store keeps for one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// +1 at every write; every write is a compare-and-swap on it. It stands in a column of its own.
    #[serde(skip)]
    pub version: i64,
    /// New at every save and sign-in.
    pub grant: Id,
    /// The refresh token's place in its family: 1 at save, +1 at every Done.
    pub generation: u64,
    /// Whether the session can be used.
    pub state: State,
    /// Why it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The access token's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<Life>,
    /// When this generation was made, Unix time in milliseconds.
    pub renewed_at_ms: i64,
    /// The attempt whose Done made this generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<MadeBy>,
    /// The open attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// Who must wait, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOff>,
    /// Fingerprints of refresh tokens; kept across sign-in and sign-out.
    #[serde(default)]
    pub known: Known,
    /// The last outcomes, oldest first; shared, since a record is copied at every step of a renewal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Arc<Entry>>,
    /// The server's `signature` did not verify in the answer that made this generation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signature_mismatch: bool,
    /// The last move to another store that began here, or was taken back from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
    /// The moves that have ended here, the last 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arrived: Vec<Id>,
    /// A tombstone may be deleted after this time, Unix time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_after_ms: Option<i64>,
    /// Members of a newer version.
    #[serde(flatten)]
    pub others: Map<String, Value>,
    /// What is sealed.
    #[serde(skip)]
    pub secrets: Secrets,
}

/// Whether a session can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It can be renewed.
    Active,
    /// The server has said that it cannot; `reason` says why.
    Ended,
    /// The user has signed out.
    SignedOut,
    /// It was erased here.
    Forgotten,
    /// It is on its way to another store: nobody renews it.
    Moving,
    /// It is in another store.
    Moved,
}

impl State {
    /// All there are.
    pub const ALL: [State; 6] =
        [State::Active, State::Ended, State::SignedOut, State::Forgotten, State::Moving, State::Moved];

    /// The one that stands for this in JSON.
    pub fn named(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Ended => "ended",
            State::SignedOut => "signed_out",
            State::Forgotten => "forgotten",
            State::Moving => "moving",
            State::Moved => "moved",
        }
    }
}

/// A move of a session to another store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// 128 random bits.
    pub id: Id,
    /// Where to.
    pub place: Place,
}

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The store, without secrets, as an application may be shown it.
    pub store: String,
    /// Which sessions of it.
    pub namespace: String,
}

/// The Done that made a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    /// The attempt's id.
    pub attempt: Id,
    /// The attempt's `sends`.
    pub sends: u32,
}

/// A note, written before the refresh token is sent: who renews, since when, until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 128 random bits: settling goes by it.
    pub id: Id,
    /// The generation whose refresh token is sent.
    pub generation: u64,
    /// Who sends it.
    pub owner: Owner,
    /// The store's clock at the claim, in milliseconds.
    pub since_ms: i64,
    /// The store's clock at the deadline, in milliseconds.
    pub until_ms: i64,
    /// How many claims, this one included, may have presented this generation's refresh token.
    pub sends: u32,
    /// Nobody knows its outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubt: bool,
    /// Members of a newer version.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// A process that has a store open.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Random, new for every process (a fork is a new one) and store.
    pub handle: Id,
    /// The machine.
    pub host: String,
    /// The machine's boot.
    pub boot: String,
}

/// A wait before the next try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff {
    /// The store's clock, in milliseconds.
    pub until_ms: i64,
    /// The clock that `until_ms` is read on; on another one the wait is over.
    pub clock: String,
    /// How many times in a row.
    pub count: u32,
    /// Whom it binds.
    pub binds: Binds,
    /// What caused it: the error that those it binds are told.
    #[serde(default)]
    pub cause: String,
    /// The cause's `reason`.
    #[serde(default)]
    pub reason: String,
}

/// Whom a back-off binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binds {
    /// Everybody: the server's own word.
    All,
    /// The machine of this name: it cannot reach the server.
    Host(String),
    /// Clients with this configuration fingerprint: the server refuses them.
    Configuration(String),
}

/// Keyed hashes of refresh tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Given to save, the last 16.
    #[serde(default)]
    pub saved: Vec<Arc<str>>,
    /// Spent, the last 16.
    #[serde(default)]
    pub spent: Vec<Arc<str>>,
}

/// One line of a session's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// Host and handle of the party.
    pub party: String,
    /// What happened.
    pub outcome: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A keyed hash of the refresh token that was sent or saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_fingerprint: Option<Arc<str>>,
    /// How long the exchange took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// The part of a record that is sealed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Secrets {
    /// The refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// The access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Secret>,
    /// The server's answer less `refresh_token`: a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Secret>,
    /// A second successor of the same predecessor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<Secret>,
    /// Tokens of signed-out grants that the server has not yet confirmed revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_revoke: Vec<Secret>,
    /// The key of the fingerprints.
    pub fingerprint_key: Secret,
    /// Members of a newer version.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A newer version's members are secrets, too.
        f.write_str("Secrets")
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            refresh_token: None,
            access_token: None,
            members: None,
            spare: None,
            to_revoke: Vec::new(),
            fingerprint_key: Secret::new(""),
            others: Map::new(),
        }
    }
}

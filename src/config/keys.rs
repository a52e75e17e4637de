//! Every configuration key, once; and the typed reading of a JSON object by that table.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::token::Members;

/// A configuration key. Bindings and documentation are checked against [`KEYS`].
#[derive(Debug)]
pub struct Key {
    /// As it stands in JSON.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
}

/// What a key takes.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string that is not empty and has no control characters.
    Text,
    /// The same, never shown.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number in this range.
    Number {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A list of strings.
    Texts,
    /// A string or a list of strings, never shown.
    Secrets,
    /// An object whose values are strings.
    Parameters,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

const fn number(name: &'static str, min: u64, max: u64) -> Key {
    key(name, Kind::Number { min, max })
}

const HOUR_MS: u64 = 3_600_000;
const YEAR_S: u64 = 31_536_000;

/// Every configuration key.
pub const KEYS: &[Key] = &[
    key("config_file", Kind::Text),
    key("site_url", Kind::Text),
    key("issuer", Kind::Text),
    key("token_endpoint", Kind::Text),
    key("authorization_endpoint", Kind::Text),
    key("introspection_endpoint", Kind::Text),
    key("revocation_endpoint", Kind::Text),
    key("client_id", Kind::Text),
    key("client_secret", Kind::Secret),
    key("client_secret_file", Kind::Text),
    key("client_secret_env", Kind::Text),
    key("private_key_file", Kind::Text),
    key("key_id", Kind::Text),
    key("assertion_algorithm", Kind::Choice(&["RS256", "PS256", "ES256"])),
    key("assertion_audience", Kind::Text),
    key("client_auth", Kind::Choice(&["client_secret_basic", "client_secret_post", "private_key_jwt", "none"])),
    key("basic_encoding", Kind::Choice(&["raw", "form"])),
    key("scope", Kind::Text),
    key("refresh_parameters", Kind::Parameters),
    key("authorize_parameters", Kind::Parameters),
    key("parameters_in", Kind::Choice(&["body", "headers"])),
    key("store", Kind::Secret),
    key("namespace", Kind::Text),
    key("encryption_key", Kind::Secrets),
    key("encryption_key_file", Kind::Text),
    key("encryption_key_env", Kind::Text),
    number("session_lifetime_s", 1, YEAR_S),
    key("expiry_from_introspection", Kind::Flag),
    number("renew_before_s", 0, YEAR_S),
    key("early_renewal", Kind::Choice(&["background", "wait", "off"])),
    number("recheck_s", 0, 86_400),
    key("renews", Kind::Flag),
    key("lost_reply", Kind::Choice(&["replay", "sign_in"])),
    number("reuse_window_s", 0, YEAR_S),
    key("newest_wins", Kind::Flag),
    number("connect_timeout_ms", 1, HOUR_MS),
    number("exchange_timeout_ms", 1, HOUR_MS),
    number("max_wait_ms", 0, HOUR_MS),
    number("exit_wait_ms", 0, HOUR_MS),
    number("max_exchanges", 1, 4_096),
    number("max_cached_sessions", 1, 100_000_000),
    key("origins", Kind::Texts),
    key("ca_file", Kind::Text),
    key("client_certificate_file", Kind::Text),
    key("client_key_file", Kind::Text),
    key("proxy", Kind::Secret),
    key("user_agent", Kind::Text),
];

/// What only the request of [`crate::refresh`] has.
pub(super) const REFRESH_TOKEN: Key = key("refresh_token", Kind::Secret);

/// An error that names its key and says what is wrong, never what was found: it could be a secret.
pub(super) fn wrong(key: &str, problem: impl fmt::Display) -> Error {
    Error::invalid(format!("configuration key \"{key}\": {problem}"))
}

enum Value {
    Text(Secret),
    Flag(bool),
    Number(u64),
    Texts(Vec<Secret>),
    Parameters(Vec<(String, Secret)>),
}

/// A JSON object, read by [`KEYS`].
pub(super) struct Settings {
    values: Vec<(&'static str, Value)>,
    /// What relative paths are relative to; `None`: the working directory.
    pub base: Option<PathBuf>,
}

impl Settings {
    pub fn parse(argument: &str, json: &str, extra: &'static [Key]) -> Result<Self> {
        let members = Members::parse(json).map_err(|problem| Error::invalid(format!("{argument} is {problem}")))?;
        if let Some(name) = &members.duplicate {
            return Err(wrong(&shown(name), "it is there twice"));
        }
        let mut values = Vec::with_capacity(members.list.len());
        for (name, raw) in &members.list {
            let key = KEYS.iter().chain(extra).find(|key| key.name == name).ok_or_else(|| unknown(name))?;
            values.push((key.name, read(key, raw.get())?));
        }
        Ok(Self { values, base: None })
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.values.iter().map(|(name, _)| *name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.names().any(|other| other == name)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text.expose()),
            _ => None,
        }
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|text| self.resolve(Path::new(text)))
    }

    /// A relative path in a configuration file is relative to that file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        match &self.base {
            Some(base) => base.join(path),
            None => path.to_owned(),
        }
    }

    pub fn flag(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            Some(Value::Flag(flag)) => *flag,
            _ => default,
        }
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn texts(&self, name: &str) -> &[Secret] {
        match self.get(name) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    pub fn parameters(&self, name: &str) -> &[(String, Secret)] {
        match self.get(name) {
            Some(Value::Parameters(parameters)) => parameters,
            _ => &[],
        }
    }
}

fn read(key: &Key, json: &str) -> Result<Value> {
    let expected = || wrong(key.name, format_args!("expected {}", key.kind));
    match &key.kind {
        Kind::Text | Kind::Secret => text(key.name, json).map(Value::Text),
        Kind::Flag => serde_json::from_str(json).map(Value::Flag).map_err(|_| expected()),
        Kind::Number { min, max } => match serde_json::from_str(json) {
            Ok(number) if (*min..=*max).contains(&number) => Ok(Value::Number(number)),
            _ => Err(expected()),
        },
        Kind::Choice(choices) => match text(key.name, json) {
            Ok(text) if choices.contains(&text.expose()) => Ok(Value::Text(text)),
            _ => Err(expected()),
        },
        Kind::Secrets if json.starts_with('"') => Ok(Value::Texts(vec![text(key.name, json)?])),
        Kind::Texts | Kind::Secrets => {
            let list: Vec<&serde_json::value::RawValue> = serde_json::from_str(json).map_err(|_| expected())?;
            let texts = list.into_iter().map(|raw| text(key.name, raw.get())).collect::<Result<_>>()?;
            Ok(Value::Texts(texts))
        }
        Kind::Parameters => {
            let members = Members::parse(json).map_err(|_| expected())?;
            if let Some(name) = &members.duplicate {
                return Err(wrong(key.name, format_args!("the parameter \"{}\" is there twice", shown(name))));
            }
            let read = |(name, raw): (String, &serde_json::value::RawValue)| {
                let value: String = serde_json::from_str(raw.get()).map_err(|_| expected())?;
                Ok((name, Secret::new(value)))
            };
            members.list.into_iter().map(read).collect::<Result<_>>().map(Value::Parameters)
        }
    }
}

fn text(key: &str, json: &str) -> Result<Secret> {
    let text: String = serde_json::from_str(json).map_err(|_| wrong(key, "expected a string"))?;
    let text = Secret::new(text);
    check_text(text.expose()).map_err(|problem| wrong(key, problem))?;
    Ok(text)
}

/// What every text and secret must be, wherever it comes from.
pub(crate) fn check_text(text: &str) -> std::result::Result<(), &'static str> {
    if text.trim().is_empty() {
        Err("it is empty")
    } else if text.chars().any(char::is_control) {
        Err("it contains a control character (a line break?)")
    } else {
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Text | Kind::Secret => f.write_str("a string"),
            Kind::Flag => f.write_str("true or false"),
            Kind::Number { min, max } => write!(f, "a whole number from {min} to {max}"),
            Kind::Choice(choices) => write!(f, "one of \"{}\"", choices.join("\", \"")),
            Kind::Texts => f.write_str("a list of strings"),
            Kind::Secrets => f.write_str("a string or a list of strings"),
            Kind::Parameters => f.write_str("an object whose values are strings"),
        }
    }
}

fn unknown(name: &str) -> Error {
    let nearest = KEYS.iter().map(|key| (distance(name, key.name), key.name)).min();
    match nearest {
        Some((distance, likely)) if distance <= 2 || distance * 4 <= likely.len() => {
            wrong(&shown(name), format_args!("there is no such key; did you mean \"{likely}\"?"))
        }
        _ => wrong(&shown(name), "there is no such key"),
    }
}

/// A name that somebody else chose, fit for a message.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Levenshtein's distance of the first 64 bytes, whatever their case.
fn distance(a: &str, b: &str) -> usize {
    let a = &a.as_bytes()[..a.len().min(64)];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

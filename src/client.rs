//! The face of the core: what the C functions, the Rust API and the examples call.

mod sign_in;

use std::fmt;
use std::mem;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::config::{Config, Server, StoreLocation, aside_of, short_hash};
use crate::error::{Error, Result, Status};
use crate::oauth::{self, Deadline, Outcome, endpoints};
use crate::process::tasks::block_on;
use crate::process::{self, lock};
use crate::secret::Secret;
use crate::session::cache::{Held, Vault};
use crate::session::protocol::Want;
use crate::session::renewer::{self, Destination, Renewer};
use crate::session::report;
use crate::store;
use crate::store::aside::Aside;
use crate::store::memory::MemoryStore;
use crate::store::seal::Keys;
#[cfg(unix)]
use crate::store::sqlite::{self, SqliteOptions, SqliteStore};
use crate::sync::atomic::AtomicU32;
use crate::sync::{Instant, Mutex};
use crate::token::{Answer, Members};
use sign_in::Listening;

/// The refresh-token flow itself, once; nothing is stored (RFC 6749 §6).
///
/// `request_json` is a configuration plus `refresh_token`. Returns the token endpoint's answer, a rotated
/// `refresh_token` included.
pub fn refresh(request_json: &str) -> Result<Secret> {
    let (config, refresh_token) = Config::from_refresh_request(request_json)?;
    let registration = &config.registration;
    let deadline = Deadline::from_now(registration);
    let http = renewer::http(&registration.transport);
    match oauth::refresh::refresh(&http, registration, &refresh_token, deadline, &|| Ok(())) {
        Outcome::Done(answer) => answer.whole(),
        outcome => Err(bare_failure(&outcome)),
    }
}

/// An exchange's failure where there is no session.
fn bare_failure(outcome: &Outcome) -> Error {
    let meaning = match outcome {
        Outcome::NotSent(_) => "; the refresh token was not spent",
        Outcome::Busy(_) | Outcome::Unknown(_) => {
            "; nobody can tell whether the refresh token was spent: a session of a client would find out"
        }
        _ => "",
    };
    let mut error = outcome.error(|failure| format!("{}{meaning}", failure.message));
    if error.reason.as_deref() == Some("used_elsewhere_or_revoked") {
        // Only a session knows what was done with its token.
        error.reason = Some("expired_or_revoked".to_owned());
    }
    error
}

pub use crate::oauth::salesforce::is_rejection;

/// One top-level member of a JSON object, as text: a string's content, anything else as the JSON that it is.
pub fn json_member(json: &str, name: &str) -> Result<Secret> {
    let members = object("json", json)?;
    let value =
        members.get(name).ok_or_else(|| Error::invalid(format!("name: the JSON object has no member {name:?}")))?;
    Ok(members.text(name).map_or_else(|| Secret::new(value.get()), Secret::new))
}

/// One OAuth client registration at one authorization server, with one store.
///
/// All functions may be called from any thread at any time. In a forked child a client works on, with a new identity.
pub struct Client {
    config: Arc<Config>,
    here: Link,
}

/// The client in one process, and in the child that was forked from it.
struct Link {
    renewer: Arc<Renewer>,
    /// Sign-ins whose answer this process listens for.
    listening: Mutex<Vec<Listening>>,
    in_child: OnceLock<Box<Link>>,
}

impl Link {
    fn new(renewer: Arc<Renewer>) -> Self {
        Self { renewer, listening: Mutex::default(), in_child: OnceLock::new() }
    }
}

/// How a caller wants to be served.
struct Options {
    max_wait: Duration,
    min_valid_ms: i64,
    anyway: bool,
}

impl Client {
    /// Opens a client from its JSON configuration.
    pub fn open(config_json: &str) -> Result<Self> {
        let config = Arc::new(Config::from_json(config_json)?);
        let renewer = Renewer::open(Arc::clone(&config), open_vault(&config)?)?;
        Ok(Self { config, here: Link::new(renewer) })
    }

    fn renewer(&self) -> Result<&Arc<Renewer>> {
        Ok(&self.link()?.renewer)
    }

    /// The client in this process.
    fn link(&self) -> Result<&Link> {
        let generation = process::generation();
        if self.here.renewer.generation == generation {
            return Ok(&self.here);
        }
        self.after_fork(generation)
    }

    #[cold]
    fn after_fork(&self, generation: u64) -> Result<&Link> {
        let mut link = &self.here;
        loop {
            if link.renewer.generation == generation {
                return Ok(link);
            }
            match link.in_child.get() {
                Some(next) => link = next,
                None => break,
            }
        }
        if link.renewer.is_closing() {
            return Err(closed());
        }
        if self.config.store == StoreLocation::Memory {
            return Err(Error::store(
                "a memory: store stays with the process that opened it: open a new client in the forked child, or set \
                 store to sqlite:PATH, which both can use",
            ));
        }
        let renewer = Renewer::open(Arc::clone(&self.config), open_vault(&self.config)?)?;
        // No fork may happen half-way through this. Another thread may have been faster: then its client counts.
        let _inside = process::enter();
        Ok(link.in_child.get_or_init(|| Box::new(Link::new(renewer))))
    }

    /// Counters since open, as JSON.
    pub fn stats(&self) -> Result<String> {
        let renewer = self.renewer()?;
        Ok(renewer.stats.json(renewer.cached_sessions(), renewer.open_exchanges()).to_string())
    }

    /// Events after the number `after`, as JSON; waits at most `max_wait_ms` for the first.
    pub fn events(&self, after: u64, max_wait_ms: u32) -> Result<String> {
        block_on(self.wait_for_events(after, Instant::now() + Duration::from_millis(max_wait_ms.into())))
    }

    pub(crate) async fn wait_for_events(&self, after: u64, until: Instant) -> Result<String> {
        Ok(self.renewer()?.events.after(after, until).await.to_string())
    }

    /// Lets open exchanges settle for at most `max_wait_ms`; [`Status::TimedOut`] if one is still open then. Waiting
    /// callers get [`Status::Closed`] at once. Closing again is harmless.
    pub fn close(&self, max_wait_ms: u32) -> Status {
        block_on(self.wait_for_close(Some(Instant::now() + Duration::from_millis(max_wait_ms.into()))))
    }

    /// Without `until` it waits as long as at a normal exit (`exit_wait_ms`).
    pub(crate) async fn wait_for_close(&self, until: Option<Instant>) -> Status {
        let until = until.unwrap_or_else(|| Instant::now() + self.config.exit_wait);
        let Ok(link) = self.link() else { return Status::Ok };
        let settled = link.renewer.close(until).await;
        lock(&link.listening).clear();
        if settled { Status::Ok } else { Status::TimedOut }
    }

    /// Closes what is open in this process without waiting for anything.
    #[cfg_attr(not(feature = "capi"), allow(dead_code))]
    pub(crate) fn end(&self) {
        let generation = process::generation();
        let mut link = Some(&self.here);
        while let Some(here) = link {
            if here.renewer.generation == generation {
                block_on(here.renewer.close(Instant::now()));
            }
            link = here.in_child.get().map(|next| &**next);
        }
    }

    /// Keeps a token endpoint's answer as the session's token. A refresh token that this store has seen changes
    /// nothing; a new one is a new sign-in.
    pub fn save(&self, session: &str, token_json: &str) -> Result<()> {
        let renewer = self.renewer()?;
        let slot = renewer.slot(checked(session)?);
        renewer.save(&slot, &Answer::from_json(token_json)?)
    }

    /// A token that is valid now, as JSON.
    pub fn token(&self, session: &str, options_json: Option<&str>) -> Result<Secret> {
        block_on(self.wait_for_token(session, options_json, Instant::now()))
    }

    pub(crate) async fn wait_for_token(&self, session: &str, options: Option<&str>, since: Instant) -> Result<Secret> {
        report::token(session, &*self.obtain(session, options, since).await?)
    }

    /// An access token that is valid now.
    pub fn access_token(&self, session: &str, options_json: Option<&str>) -> Result<Secret> {
        Ok(block_on(self.obtain(session, options_json, Instant::now()))?.access_token().clone())
    }

    pub(crate) async fn obtain(&self, session: &str, options: Option<&str>, since: Instant) -> Result<Arc<Held>> {
        let renewer = self.renewer()?;
        let options = self.options(options)?;
        let slot = renewer.slot(checked(session)?);
        let want = Want::Token { min_valid_ms: options.min_valid_ms };
        renewer.obtain(&slot, want, since + options.max_wait).await
    }

    /// A token other than the rejected one; without one, a token newer than any that is known now.
    pub fn renew(&self, session: &str, rejected: Option<&str>, options_json: Option<&str>) -> Result<Secret> {
        block_on(self.wait_for_renewal(session, rejected, options_json, Instant::now()))
    }

    pub(crate) async fn wait_for_renewal(
        &self,
        session: &str,
        rejected: Option<&str>,
        options: Option<&str>,
        since: Instant,
    ) -> Result<Secret> {
        let renewer = self.renewer()?;
        let options = self.options(options)?;
        let slot = renewer.slot(checked(session)?);
        let want = match rejected {
            Some(token) if !options.anyway => Want::OtherThan(Secret::new(token)),
            _ => Want::Newer { than: None, anyway: options.anyway },
        };
        report::token(session, &*renewer.obtain(&slot, want, since + options.max_wait).await?)
    }

    /// The access token in memory and the Unix time in milliseconds until which memory answers: no I/O, no wait.
    /// `read` is called with the token, if memory has one that is valid now.
    pub fn peek<T>(
        &self,
        session: impl AsRef<[u8]>,
        read: impl FnOnce(&str) -> T,
    ) -> std::result::Result<(T, i64), Status> {
        let renewer = self.renewer().map_err(|error| error.status)?;
        let found = renewer.peek(session.as_ref(), |held| read(held.access_token().expose()));
        found.ok_or_else(|| if renewer.is_closing() { Status::Closed } else { Status::Stale })
    }

    /// A word that changes when anything in this process changes what [`Client::peek`] would answer.
    pub fn stamp(&self, session: &str) -> Result<&'static AtomicU32> {
        let renewer = self.renewer()?;
        renewer.check_open(session)?;
        Ok(renewer.slot(checked(session)?).stamp)
    }

    /// Whether an adapter may send the session's token to this URL: its origin is one of `origins`; without that key, the
    /// origin of `site_url` or of the current `instance_url`; where there is neither, that of `first_url`, the first URL
    /// that the caller's session object was used with.
    pub fn allows(&self, session: &str, url: &str, first_url: Option<&str>) -> Result<bool> {
        let origin = |name: &str, url: &str| {
            endpoints::origin(url).map_err(|problem| Error::invalid(format!("{name} is {problem}")))
        };
        let renewer = self.renewer()?;
        renewer.check_open(session)?;
        let slot = renewer.slot(checked(session)?);
        let first = first_url.map(|url| origin("first_url", url)).transpose()?;
        let Some(wanted) = origin("url", url)? else { return Ok(false) };
        if !self.config.origins.is_empty() {
            return Ok(self.config.origins.contains(&wanted));
        }
        let site = self.config.registration.site_url.as_deref().and_then(|url| endpoints::origin(url).ok().flatten());
        let instance = renewer.instance_url(&slot)?.and_then(|url| endpoints::origin(&url).ok().flatten());
        if site.is_some() || instance.is_some() {
            return Ok([site, instance].into_iter().flatten().any(|origin| origin == wanted));
        }
        Ok(first.is_none_or(|first| first == Some(wanted)))
    }

    /// What the store knows of a session, as JSON without secrets.
    pub fn describe(&self, session: &str) -> Result<String> {
        let renewer = self.renewer()?;
        renewer.check_open(session)?;
        let (record, now) = renewer.load(&renewer.slot(checked(session)?))?;
        let record = record.filter(|record| record.state != crate::session::record::State::Forgotten);
        let record = record.ok_or_else(|| {
            let message =
                format!("session {session:?}: there is none of this name: sign the user in, or save a token first");
            Error::new(Status::SignInRequired, message).because("no_session").about(session)
        })?;
        Ok(report::describe(session, &record, &now).to_string())
    }

    /// One page of sessions, as JSON.
    pub fn list(&self, after: Option<&str>, limit: u32) -> Result<String> {
        let renewer = self.renewer()?;
        renewer.check_open("")?;
        if limit == 0 || limit > 10_000 {
            return Err(Error::invalid("limit must be from 1 to 10000"));
        }
        let mut rows = renewer.vault.store.list(&self.config.namespace, after, limit + 1)?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Ok(report::list(&rows, more).to_string())
    }

    /// What the server says of the session's access token, as JSON (RFC 7662). A token that has ended is renewed first.
    pub fn introspect(&self, session: &str) -> Result<Secret> {
        block_on(self.wait_for_introspection(session, Instant::now()))
    }

    pub(crate) async fn wait_for_introspection(&self, session: &str, since: Instant) -> Result<Secret> {
        let renewer = self.renewer()?;
        renewer.introspect(&renewer.slot(checked(session)?), since + self.config.max_wait).await
    }

    /// Ends the session here and at the server (RFC 7009). What the server cannot be told now, it is told later.
    pub fn sign_out(&self, session: &str) -> Result<()> {
        block_on(self.wait_for_sign_out(session, Instant::now()))
    }

    pub(crate) async fn wait_for_sign_out(&self, session: &str, since: Instant) -> Result<()> {
        let renewer = self.renewer()?;
        renewer.sign_out(&renewer.slot(checked(session)?), since + self.config.max_wait).await
    }

    /// Moves the session to the store that `to_json` names (`store`, and where needed its `encryption_key` and
    /// `namespace`): never do two stores both believe that they hold its refresh token.
    pub fn move_session(&self, session: &str, to_json: &str) -> Result<()> {
        block_on(self.wait_for_move(session, to_json, Instant::now()))
    }

    pub(crate) async fn wait_for_move(&self, session: &str, to_json: &str, since: Instant) -> Result<()> {
        let renewer = self.renewer()?;
        let slot = renewer.slot(checked(session)?);
        let config = self.config.with_store(to_json)?;
        let place = config.place();
        if !config.renews {
            return Err(Error::invalid("this client has renews: false: it changes no store"));
        }
        if place == self.config.place() {
            return Err(Error::invalid("to_json: the session is there already"));
        }
        let to = Destination { vault: open_vault(&config)?, place };
        renewer.move_session(&slot, &to, since + self.config.max_wait).await
    }

    /// Erases the session here only.
    pub fn forget(&self, session: &str) -> Result<()> {
        let renewer = self.renewer()?;
        renewer.forget(&renewer.slot(checked(session)?))
    }

    fn options(&self, json: Option<&str>) -> Result<Options> {
        let mut options = Options { max_wait: self.config.max_wait, min_valid_ms: 0, anyway: false };
        let Some(json) = json else { return Ok(options) };
        object("options_json", json)?;
        let members: Map<String, Value> =
            serde_json::from_str(json).map_err(|_| Error::invalid("options_json has a number out of range"))?;
        let number = |name: &str, value: &Value, most: u64| {
            value
                .as_u64()
                .filter(|number| *number <= most)
                .ok_or_else(|| Error::invalid(format!("options_json: {name} must be a whole number from 0 to {most}")))
        };
        for (name, value) in &members {
            match name.as_str() {
                "max_wait_ms" => options.max_wait = Duration::from_millis(number(name, value, u32::MAX.into())?),
                "min_valid_s" => options.min_valid_ms = number(name, value, 31_536_000)? as i64 * 1000,
                "anyway" => {
                    options.anyway =
                        value.as_bool().ok_or_else(|| Error::invalid("options_json: anyway must be true or false"))?;
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "options_json: unknown option {name:?}; there are max_wait_ms, min_valid_s and anyway"
                    )));
                }
            }
        }
        Ok(options)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let generation = process::generation();
        let renewer = Arc::clone(&self.here.renewer);
        if renewer.generation == generation {
            block_on(renewer.close(Instant::now()));
            return;
        }
        // What a parent opened is the parent's: closing its connections from here would ruin them.
        mem::forget(renewer);
        if let Some(next) = self.here.in_child.take() {
            let mut link = next;
            loop {
                if link.renewer.generation == generation {
                    block_on(link.renewer.close(Instant::now()));
                    break;
                }
                let after = link.in_child.take();
                mem::forget(link);
                match after {
                    Some(after) => link = after,
                    None => break,
                }
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("namespace", &self.config.namespace).finish_non_exhaustive()
    }
}

/// The store that a configuration names, shared by all clients of this process that name it.
fn open_vault(config: &Config) -> Result<Arc<Vault>> {
    match &config.store {
        StoreLocation::Memory => Ok(Vault::new(Arc::new(MemoryStore::new()?))),
        StoreLocation::Sqlite { path, default } => open_sqlite(config, path, *default),
        StoreLocation::Shared { server, url } => open_shared(config, *server, url),
    }
}

/// Connects nothing.
fn open_shared(config: &Config, server: Server, url: &Secret) -> Result<Arc<Vault>> {
    let keys = Keys::new(config.encryption_keys.iter().map(|key| &**key))?;
    // Its URL may have a password, and this name is kept.
    let url_hash = short_hash(&[url.expose()]);
    let name = (Path::new("shared").join(url_hash), format!("{:?} {}", keys.ids(), !config.renews));
    process::runtime().shared(name, || {
        let aside = aside_of(url.expose()).map(|directory| Aside::in_home(directory, keys.clone()));
        Ok(Vault::with_aside(store::open_shared(server, url, keys, !config.renews)?, aside))
    })
}

#[cfg(unix)]
fn open_sqlite(config: &Config, path: &Path, default: bool) -> Result<Arc<Vault>> {
    let keys = config.encryption_keys.iter().map(|key| &**key);
    let keys = (keys.len() > 0).then(|| Keys::new(keys)).transpose()?;
    let options = SqliteOptions {
        path: sqlite::canonical(path, default && config.renews)?,
        make_directory: false,
        keys,
        read_only: !config.renews,
    };
    // Clients with other keys, or that only read, get a connection of their own.
    let keys = options.keys.as_ref().map(Keys::ids);
    let name = (options.path.clone(), format!("{keys:?} {}", options.read_only));
    process::runtime().shared(name, || Ok(Vault::new(SqliteStore::open(options)?)))
}

#[cfg(not(unix))]
fn open_sqlite(_config: &Config, _path: &Path, _default: bool) -> Result<Arc<Vault>> {
    Err(Error::store(format!("the sqlite: store is not built yet for this system in version {}", crate::VERSION)))
}

/// The members of an argument that must be a JSON object.
pub(crate) fn object<'a>(argument: &str, json: &'a str) -> Result<Members<'a>> {
    Members::parse(json).map_err(|problem| Error::invalid(format!("{argument} is {problem}")))
}

/// Session names: 1–255 bytes of UTF-8, no control characters.
fn checked(session: &str) -> Result<&str> {
    if session.is_empty() || session.len() > 255 || session.chars().any(char::is_control) {
        return Err(Error::invalid("session must have 1 to 255 bytes and no control characters"));
    }
    Ok(session)
}

fn closed() -> Error {
    Error::new(Status::Closed, "the client has been closed; open a new one")
}

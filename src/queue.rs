//! Calls that need no thread of the host: submitted, carried by the library's threads, their results taken from a queue.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::client::{self, Client};
use crate::error::{Error, Result, Status};
use crate::process::tasks::{self, Wakers, block_on, wake_at};
use crate::process::{self, lock};
use crate::secret::Secret;
use crate::sync::{Instant, Mutex};
use crate::token::Members;

/// Results of calls. One queue serves any number of clients, in the process that opened it.
pub struct Queue {
    generation: u64,
    results: Arc<Results>,
}

struct Results {
    finished: Mutex<Finished>,
    bell: Bell,
}

#[derive(Default)]
struct Finished {
    /// Each a JSON object.
    results: Vec<Secret>,
    takers: Wakers,
}

impl Queue {
    /// An empty queue.
    pub fn open() -> Result<Self> {
        let results = Results { finished: Mutex::default(), bell: Bell::new().map_err(no_descriptor)? };
        Ok(Self { generation: process::runtime().generation, results: Arc::new(results) })
    }

    /// A descriptor of the caller's own that can be read while results wait; -1 where the system has none.
    pub fn descriptor(&self) -> Result<i32> {
        self.results.bell.descriptor().map_err(no_descriptor)
    }

    /// Starts a call (a JSON object; `evergrant_queue_submit` in `include/evergrant.h` has its shape). `tag` comes back
    /// with the result.
    pub fn submit(&self, client: Option<&Arc<Client>>, tag: u64, call_json: &str) -> Result<()> {
        self.check_process()?;
        let call = Call::from_json(call_json)?;
        let mut promised = Promised { results: Some(Arc::clone(&self.results)), tag, result: Err(unfinished()) };
        let since = Instant::now();
        let runtime = process::runtime();
        // If no thread can be started the promise is dropped, and says so.
        match (client, call.kind) {
            // It waits for the network all the time, so it takes the place of an exchange.
            (None, Kind::Refresh) => {
                let work = move || promised.keep(client::refresh(call.text("request")).map(Some));
                let _ = runtime.workers.run(EXCHANGES, Box::new(work));
            }
            (Some(client), kind) if kind != Kind::Refresh => {
                let client = Arc::clone(client);
                tasks::spawn(&runtime.carriers, async move { promised.keep(call.run(&client, since).await) });
            }
            (client, _) => {
                let must = if client.is_none() { "must not be NULL" } else { "must be NULL" };
                promised.withdraw();
                return Err(Error::invalid(format!("client: {must} for this call")));
            }
        }
        Ok(())
    }

    /// All results as a JSON array; waits at most this long for the first.
    pub fn take(&self, max_wait_ms: u32) -> Result<Secret> {
        self.check_process()?;
        let until = Instant::now() + Duration::from_millis(max_wait_ms.into());
        block_on(poll_fn(|context| {
            let mut finished = lock(&self.results.finished);
            if finished.results.is_empty() && Instant::now() < until {
                finished.takers.add(context);
                wake_at(until);
                return Poll::Pending;
            }
            self.results.bell.silence();
            Poll::Ready(Ok(array(&std::mem::take(&mut finished.results))))
        }))
    }

    fn check_process(&self) -> Result<()> {
        if self.generation == process::generation() {
            return Ok(());
        }
        Err(Error::new(Status::Closed, "the queue stays with the process that opened it: open a new one in this child"))
    }
}

/// As many exchanges as a client runs by default (`max_exchanges`).
const EXCHANGES: usize = 32;

fn no_descriptor(error: std::io::Error) -> Error {
    Error::new(Status::Internal, format!("the system gives this process no more descriptors: {error}"))
}

fn unfinished() -> Error {
    let message = "the call could not be run: the system gives this process no more threads, or a defect of evergrant was \
                   caught, of which standard error has the details";
    Error::new(Status::Internal, message)
}

fn array(results: &[Secret]) -> Secret {
    // Never grows: a reallocation would leave a copy behind.
    let mut json = String::with_capacity(results.iter().map(|result| result.expose().len() + 1).sum::<usize>() + 2);
    json.push('[');
    for result in results {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(result.expose());
    }
    json.push(']');
    Secret::new(json)
}

/// A result that will come, whatever happens to the call: it is delivered when this is dropped.
struct Promised {
    results: Option<Arc<Results>>,
    tag: u64,
    result: Result<Option<Secret>>,
}

impl Promised {
    fn keep(&mut self, result: Result<Option<Secret>>) {
        self.result = result;
    }

    fn withdraw(&mut self) {
        self.results = None;
    }

    fn json(&self) -> Secret {
        let (status, name, value) = match &self.result {
            Ok(value) => (Status::Ok, "value", value.as_ref().map_or("null", Secret::expose).to_owned()),
            Err(error) => (error.status, "error", serde_json::to_string(error).unwrap_or_else(|_| "{}".to_owned())),
        };
        let value = Secret::new(value);
        let (tag, status, value) = (self.tag, status.name(), value.expose());
        Secret::new(format!(r#"{{"tag":{tag},"status":"{status}","{name}":{value}}}"#))
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        let Some(results) = self.results.take() else { return };
        let json = self.json();
        let mut finished = lock(&results.finished);
        finished.results.push(json);
        if finished.results.len() == 1 {
            results.bell.ring();
        }
        let takers = finished.takers.take();
        drop(finished);
        takers.wake();
    }
}

/// What a call can be: the C functions that may do I/O or wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    SessionSave,
    SessionToken,
    SessionAccessToken,
    SessionRenew,
    SessionDescribe,
    SessionList,
    SessionIntrospect,
    SessionSignOut,
    SessionForget,
    SessionMove,
    ClientStats,
    ClientEvents,
    ClientClose,
    SignInStart,
    SignInFinish,
    SignInWithBrowser,
    SignInWithPassword,
    Refresh,
}

/// A member of a call.
struct Member {
    name: &'static str,
    kind: MemberKind,
    required: bool,
}

enum MemberKind {
    Text,
    Object,
    Number { max: u64 },
}

const fn text(name: &'static str) -> Member {
    Member { name, kind: MemberKind::Text, required: true }
}

const fn object(name: &'static str) -> Member {
    Member { name, kind: MemberKind::Object, required: true }
}

const fn number(name: &'static str, max: u64) -> Member {
    Member { name, kind: MemberKind::Number { max }, required: true }
}

const fn optional(member: Member) -> Member {
    Member { required: false, ..member }
}

/// Every call, once.
const CALLS: &[(&str, Kind, &[Member])] = &[
    ("session_save", Kind::SessionSave, &[text("session"), object("token")]),
    ("session_token", Kind::SessionToken, &[text("session"), optional(object("options"))]),
    ("session_access_token", Kind::SessionAccessToken, &[text("session"), optional(object("options"))]),
    (
        "session_renew",
        Kind::SessionRenew,
        &[text("session"), optional(text("rejected_access_token")), optional(object("options"))],
    ),
    ("session_describe", Kind::SessionDescribe, &[text("session")]),
    ("session_list", Kind::SessionList, &[optional(text("after")), number("limit", u32::MAX as u64)]),
    ("session_introspect", Kind::SessionIntrospect, &[text("session")]),
    ("session_sign_out", Kind::SessionSignOut, &[text("session")]),
    ("session_forget", Kind::SessionForget, &[text("session")]),
    ("session_move", Kind::SessionMove, &[text("session"), object("to")]),
    ("client_stats", Kind::ClientStats, &[]),
    ("client_events", Kind::ClientEvents, &[number("after", u64::MAX), number("max_wait_ms", u32::MAX as u64)]),
    ("client_close", Kind::ClientClose, &[optional(number("max_wait_ms", u32::MAX as u64))]),
    ("sign_in_start", Kind::SignInStart, &[object("request")]),
    ("sign_in_finish", Kind::SignInFinish, &[text("session"), object("sign_in"), optional(text("redirect_url"))]),
    ("sign_in_with_browser", Kind::SignInWithBrowser, &[text("session"), object("request")]),
    ("sign_in_with_password", Kind::SignInWithPassword, &[text("session"), object("request")]),
    ("refresh", Kind::Refresh, &[object("request")]),
];

/// A call with its arguments, checked for shape.
struct Call {
    kind: Kind,
    /// Strings as they are, anything else as JSON.
    arguments: Vec<(&'static str, Secret)>,
}

impl Call {
    fn from_json(json: &str) -> Result<Self> {
        let given = client::object("call_json", json)?;
        let wrong = |what: String| Error::invalid(format!("call_json: {what}"));
        let name = given.text("call").ok_or_else(|| wrong("call must be a string".to_owned()))?;
        let known = CALLS.iter().find(|(known, ..)| *known == name);
        let (_, kind, members) = known.ok_or_else(|| wrong(format!("there is no call {name:?}")))?;
        for (other, _) in given.list.iter().filter(|(other, _)| other != "call") {
            if !members.iter().any(|member| member.name == other) {
                return Err(wrong(format!("{name} has no argument {other:?}")));
            }
        }
        let mut arguments = Vec::with_capacity(members.len());
        for member in *members {
            match given.get(member.name).filter(|value| value.get() != "null") {
                Some(value) => {
                    let value = argument(&member.kind, &given, member.name, value);
                    arguments
                        .push((member.name, value.map_err(|what| wrong(format!("{} must be {what}", member.name)))?));
                }
                None if member.required => return Err(wrong(format!("{name} needs {}", member.name))),
                None => {}
            }
        }
        Ok(Self { kind: *kind, arguments })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find(|(other, _)| *other == name).map(|(_, value)| value.expose())
    }

    /// An argument that is required.
    fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    fn number<T: std::str::FromStr + Default>(&self, name: &str) -> T {
        self.text(name).parse().unwrap_or_default()
    }

    /// Waits are counted from `since`.
    async fn run(&self, client: &Client, since: Instant) -> Result<Option<Secret>> {
        let session = self.text("session");
        let options = self.get("options");
        let until = || since + Duration::from_millis(self.number("max_wait_ms"));
        Ok(match self.kind {
            Kind::SessionSave => {
                client.save(session, self.text("token"))?;
                None
            }
            Kind::SessionToken => Some(client.wait_for_token(session, options, since).await?),
            Kind::SessionAccessToken => {
                Some(quoted(client.obtain(session, options, since).await?.access_token().expose()))
            }
            Kind::SessionRenew => {
                Some(client.wait_for_renewal(session, self.get("rejected_access_token"), options, since).await?)
            }
            Kind::SessionDescribe => Some(Secret::new(client.describe(session)?)),
            Kind::SessionList => Some(Secret::new(client.list(self.get("after"), self.number("limit"))?)),
            Kind::SessionIntrospect => Some(client.wait_for_introspection(session, since).await?),
            Kind::SessionSignOut => {
                client.wait_for_sign_out(session, since).await?;
                None
            }
            Kind::SessionForget => {
                client.forget(session)?;
                None
            }
            Kind::SessionMove => {
                client.wait_for_move(session, self.text("to"), since).await?;
                None
            }
            Kind::ClientStats => Some(Secret::new(client.stats()?)),
            Kind::ClientEvents => Some(Secret::new(client.wait_for_events(self.number("after"), until()).await?)),
            Kind::ClientClose => match client.wait_for_close(self.get("max_wait_ms").map(|_| until())).await {
                Status::Ok => None,
                status => {
                    return Err(Error::new(
                        status,
                        "a renewal is still under way; the client is closed, and a later run settles what is open",
                    ));
                }
            },
            Kind::SignInStart => Some(client.wait_to_start(self.text("request")).await?),
            Kind::SignInFinish => {
                Some(client.wait_for_sign_in(session, self.text("sign_in"), self.get("redirect_url")).await?)
            }
            Kind::SignInWithBrowser => Some(client.wait_for_browser(session, self.text("request")).await?),
            Kind::SignInWithPassword => Some(client.wait_for_password(session, self.text("request")).await?),
            Kind::Refresh => None,
        })
    }
}

fn argument(
    kind: &MemberKind,
    given: &Members<'_>,
    name: &str,
    value: &RawValue,
) -> std::result::Result<Secret, String> {
    match kind {
        MemberKind::Text => match given.text(name) {
            // As in the C functions, which cannot take it.
            Some(text) if !text.contains('\0') => Ok(Secret::new(text)),
            _ => Err("a string without NUL".to_owned()),
        },
        MemberKind::Object if value.get().starts_with('{') => Ok(Secret::new(value.get())),
        MemberKind::Object => Err("an object".to_owned()),
        MemberKind::Number { max } => match value.get().parse::<u64>() {
            Ok(number) if number <= *max => Ok(Secret::new(value.get())),
            _ => Err(format!("a whole number from 0 to {max}")),
        },
    }
}

fn quoted(text: &str) -> Secret {
    // Room for any escape: a reallocation would leave a copy behind.
    let mut json = Vec::with_capacity(text.len() * 6 + 2);
    let _ = text.serialize(&mut serde_json::Serializer::new(&mut json));
    Secret::new(String::from_utf8(json).unwrap_or_default())
}

/// Rings where event loops listen: a descriptor that can be read.
#[cfg(unix)]
struct Bell {
    near: std::os::unix::net::UnixStream,
    far: std::os::unix::net::UnixStream,
}

#[cfg(unix)]
impl Bell {
    fn new() -> std::io::Result<Self> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Self { near, far })
    }

    fn descriptor(&self) -> std::io::Result<i32> {
        use std::os::fd::IntoRawFd;
        Ok(self.far.try_clone()?.into_raw_fd())
    }

    fn ring(&self) {
        use std::io::Write;
        // A full buffer rings, too.
        let _ = (&self.near).write(&[1]);
    }

    fn silence(&self) {
        use std::io::Read;
        while matches!((&self.far).read(&mut [0; 16]), Ok(16)) {}
    }
}

#[cfg(not(unix))]
struct Bell;

#[cfg(not(unix))]
impl Bell {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    fn descriptor(&self) -> std::io::Result<i32> {
        Ok(-1)
    }

    fn ring(&self) {}

    fn silence(&self) {}
}

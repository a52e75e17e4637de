//! Waiters learn of other parties' writes by LISTEN (in PostgreSQL's manual: "Asynchronous Notification").
//!
//! A notification names a grant, a random number that means nothing to others. One connection of the process listens,
//! made when somebody waits and closed when nobody has waited for a while. A pooler that gives each transaction another
//! connection accepts LISTEN and delivers nothing; so a notification of our own must arrive first, over a channel that
//! nobody else has. Until then, and where it does not, waiters look at the table as often as before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::connect::{Connection, Connector, Told};
use super::text;
use super::trouble::Failed;
use crate::process::lock;
use crate::process::workers::Workers;
use crate::session::record::Id;
use crate::store::pool::{CONNECT, Does, Pool};
use crate::store::{Wake, Watch, seal};

/// Where it is told that a record has been written that nobody is busy with.
const CHANNEL: &str = "evergrant";
/// Nothing of it has to reach the disk.
pub const NOTIFY: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify('evergrant', $1)";
/// How long a notification may be on its way to ourselves.
const PROBE: Duration = Duration::from_secs(5);
/// How long the connection is kept while nobody waits.
const IDLE: Duration = Duration::from_secs(10);
/// How often it is looked whether anybody does.
const TICK: Duration = Duration::from_millis(500);
/// Until the next try where the server was away, and where notifications do not arrive.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// Those of a process who wait.
#[derive(Default)]
pub struct Listener {
    waiting: Mutex<Waiting>,
    /// Notifications arrive.
    hears: AtomicBool,
    workers: Arc<Workers>,
}

#[derive(Default)]
struct Waiting {
    wakes: HashMap<u64, (String, Wake)>,
    last: u64,
    /// A thread listens, or tries to.
    running: bool,
    not_before: Option<Instant>,
}

impl Listener {
    /// See [`crate::store::Store::watch`].
    pub fn watch(self: &Arc<Self>, pool: &Pool<Connector>, grant: Id, wake: Wake) -> Box<dyn Watch> {
        let mut waiting = lock(&self.waiting);
        waiting.last += 1;
        let number = waiting.last;
        waiting.wakes.insert(number, (grant.to_string(), wake));
        let may_start = waiting.not_before.is_none_or(|not_before| Instant::now() >= not_before);
        if !waiting.running && may_start {
            waiting.running = true;
            let (me, pool) = (Arc::downgrade(self), pool.clone());
            if self.workers.run(1, Box::new(move || listen(&me, &pool))).is_err() {
                waiting.running = false;
            }
        }
        Box::new(Registered { listener: Arc::clone(self), number })
    }

    /// Wakes those who wait for this grant; without one, everybody.
    fn wake(&self, grant: Option<&str>) {
        let waiting = lock(&self.waiting);
        let concerned = |(of, _): &&(String, Wake)| grant.is_none_or(|grant| grant == of);
        let wakes: Vec<Wake> = waiting.wakes.values().filter(concerned).map(|(_, wake)| Arc::clone(wake)).collect();
        drop(waiting);
        wakes.iter().for_each(|wake| wake());
    }

    fn ended(&self, again: Option<Duration>) {
        self.hears.store(false, Ordering::Release);
        let mut waiting = lock(&self.waiting);
        waiting.running = false;
        waiting.not_before = again.map(|again| Instant::now() + again);
    }
}

struct Registered {
    listener: Arc<Listener>,
    number: u64,
}

impl Watch for Registered {
    fn hears(&self) -> bool {
        self.listener.hears.load(Ordering::Acquire)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.listener.waiting).wakes.remove(&self.number);
    }
}

/// Runs on a thread of its own.
fn listen(listener: &Weak<Listener>, pool: &Pool<Connector>) {
    let again = match open(listener, pool) {
        Ok(Some(connection)) => hear(listener, connection),
        Ok(None) => Some(AGAIN.1),
        // The server knows no LISTEN, or the user may not.
        Err(failed) if failed.is_said() => Some(AGAIN.1),
        Err(_) => Some(AGAIN.0),
    };
    if let Some(listener) = listener.upgrade() {
        listener.ended(again);
    }
}

/// A connection on which notifications arrive; `None` if they do not.
fn open(listener: &Weak<Listener>, pool: &Pool<Connector>) -> Result<Option<Connection>, Failed> {
    let probe = format!("evergrant_{}", Id(u128::from_be_bytes(seal::random().unwrap_or_default())));
    let arrived = Arc::new(AtomicBool::new(false));
    let told: Told = {
        let (listener, probe, arrived) = (Weak::clone(listener), probe.clone(), Arc::clone(&arrived));
        Arc::new(move |channel, payload| {
            if channel == probe {
                arrived.store(true, Ordering::Release);
            } else if let Some(listener) = listener.upgrade() {
                listener.wake(Some(payload));
            }
        })
    };
    let until = Instant::now() + CONNECT;
    let mut connection = pool.connector().connect_told(until, Some(told)).map_err(Failed::Ours)?;
    connection.batch(until, &format!("LISTEN \"{probe}\""))?;
    let notify = |another: &mut Connection, until: Instant| {
        another.query(until, "SELECT pg_notify($1, '')", &[text(&probe)]).map_err(Failed::trouble)
    };
    if let Err(error) = pool.call(Does::Read(CONNECT), notify) {
        return if error.retry_after_ms.is_some() { Err(Failed::Late) } else { Ok(None) };
    }
    let until = Instant::now() + PROBE;
    while !arrived.load(Ordering::Acquire) {
        if Instant::now() >= until {
            return Ok(None);
        }
        if !connection.drive(TICK / 50) {
            return Err(Failed::Late);
        }
    }
    connection.batch(until + CONNECT, &format!("LISTEN {CHANNEL}; UNLISTEN \"{probe}\""))?;
    Ok(Some(connection))
}

/// Until nobody has waited for a while, or the connection ends.
fn hear(listener: &Weak<Listener>, mut connection: Connection) -> Option<Duration> {
    let mut waited = Instant::now();
    {
        let listener = listener.upgrade()?;
        listener.hears.store(true, Ordering::Release);
        // What was written before anybody listened is told to nobody.
        listener.wake(None);
    }
    loop {
        let alive = connection.drive(TICK);
        let listener = listener.upgrade()?;
        if !alive {
            listener.hears.store(false, Ordering::Release);
            listener.wake(None);
            return Some(AGAIN.0);
        }
        let now = Instant::now();
        let waiting = lock(&listener.waiting);
        if !waiting.wakes.is_empty() {
            waited = now;
        } else if now - waited > IDLE {
            return None;
        }
    }
}

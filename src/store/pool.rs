//! Connections to the server of a shared store: few, made on demand, and nobody waits long for a server that is away.
//!
//! - A call takes at most [`CALL`], connecting included.
//! - A server that did not answer is left alone for a while (longer each time, with jitter): calls fail at once, with
//!   the time after which to try again. Then a thread of the library looks whether it is back; one caller waits for
//!   that, a moment only.
//! - A forked child opens a store of its own and never drops this one. So nothing has to happen at a fork, and a fork
//!   never waits for the network.

use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process::lock;
use crate::process::workers::Workers;

/// Connections of one process to one store.
pub const LARGEST: usize = 4;
/// Until a connection stands: names, TCP, TLS and log-in, of all hosts together.
pub const CONNECT: Duration = Duration::from_secs(3);
/// For all that one call does, connecting included.
pub const CALL: Duration = Duration::from_secs(5);
/// How long a caller waits for the look at a server that was away.
const GLANCE: Duration = Duration::from_millis(250);
/// The first and the longest time for which it is left alone.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A connection that idled longer may have been dropped by something in between.
const IDLE: Duration = Duration::from_secs(60);

/// Makes connections to one server.
pub trait Connect: Send + Sync + 'static {
    /// Dropped where nobody waits for it: that must not block.
    type Connection: Send + 'static;

    /// A connection that is ready for work.
    fn connect(&self, until: Instant) -> std::result::Result<Self::Connection, Trouble>;

    /// "the PostgreSQL store at host:port/database": no user, no password.
    fn name(&self) -> &str;
}

/// What a call does.
#[derive(Clone, Copy)]
pub enum Does {
    /// Within this time; once more if a connection that was there already turns out to be broken.
    Read(Duration),
    /// Once.
    Write,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The connection broke, and with it the outcome may be unknown. Another may do.
    Lost(String),
    /// The server cannot be reached, or does not answer in time.
    Away(String),
    /// The server answers, and refuses, for a reason that does not pass by itself.
    Refused(String),
}

/// The connections of this process to one store.
pub struct Pool<C: Connect>(Arc<Inner<C>>);

struct Inner<C: Connect> {
    connector: C,
    state: Mutex<State<C::Connection>>,
    /// Rings when a connection is free, or an outage begins or ends.
    bell: Condvar,
    looking: Arc<Workers>,
}

struct State<T> {
    idle: Vec<(T, Instant)>,
    /// Connections, idle, busy or in the making.
    open: usize,
    outage: Option<Outage>,
}

/// The server was away when somebody last looked.
struct Outage {
    trouble: Trouble,
    looks: u32,
    until: Instant,
    /// A thread looks now.
    looking: bool,
}

impl<C: Connect> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Connect> Pool<C> {
    /// Connects nothing.
    pub fn new(connector: C) -> Self {
        Self(Arc::new(Inner {
            connector,
            state: Mutex::new(State { idle: Vec::new(), open: 0, outage: None }),
            bell: Condvar::new(),
            looking: Arc::default(),
        }))
    }

    /// See [`Connect::name`].
    pub fn name(&self) -> &str {
        self.0.connector.name()
    }

    /// What makes the connections.
    pub fn connector(&self) -> &C {
        &self.0.connector
    }

    /// Uses none of its idle connections again.
    #[cfg(feature = "redis")]
    pub fn forget(&self) {
        drop(self.0.forget_idle());
    }

    /// What a caller is told.
    #[cfg(feature = "redis")]
    pub fn error(&self, trouble: &Trouble) -> Error {
        self.0.error(trouble, Instant::now())
    }

    /// Does `work` with a connection, until the time that it is given.
    pub fn call<T>(
        &self,
        does: Does,
        mut work: impl FnMut(&mut C::Connection, Instant) -> std::result::Result<T, Trouble>,
    ) -> Result<T> {
        let (limit, repeatable) = match does {
            Does::Read(limit) => (limit, true),
            Does::Write => (CALL, false),
        };
        let until = Instant::now() + limit;
        loop {
            let mut lease = self.0.lease(until)?;
            let Some(connection) = &mut lease.connection else { continue };
            let trouble = match work(connection, until) {
                Ok(value) => {
                    lease.give_back();
                    return Ok(value);
                }
                Err(trouble) => trouble,
            };
            match &trouble {
                Trouble::Refused(_) => lease.give_back(),
                Trouble::Lost(_) => {
                    // What broke this one, a restart perhaps, will have broken the older ones too.
                    let (reused, old) = (lease.reused, self.0.forget_idle());
                    drop((lease, old));
                    if reused && repeatable {
                        continue;
                    }
                }
                Trouble::Away(_) => {
                    drop((lease, self.0.forget_idle()));
                    self.0.note_outage(trouble.clone());
                }
            }
            return Err(self.0.error(&trouble, Instant::now()));
        }
    }
}

impl<C: Connect> Inner<C> {
    fn lease(self: &Arc<Self>, until: Instant) -> Result<Lease<C>> {
        let mut state = lock(&self.state);
        let mut stale = Vec::new();
        loop {
            let now = Instant::now();
            while let Some((connection, since)) = state.idle.pop() {
                if now - since < IDLE {
                    return Ok(Lease { pool: Arc::clone(self), connection: Some(connection), reused: true });
                }
                state.open -= 1;
                stale.push(connection);
            }
            if state.outage.is_some() {
                state = self.look(state, now)?;
                continue;
            }
            if state.open < LARGEST {
                state.open += 1;
                break;
            }
            if now >= until {
                let busy = format!("all {LARGEST} connections of this process have been busy for too long");
                return Err(self.error(&Trouble::Away(busy), now));
            }
            state = self.bell.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop((state, stale));
        // Counted from here on: it is given back, or dropped.
        let mut lease = Lease { pool: Arc::clone(self), connection: None, reused: false };
        match self.connector.connect(until.min(Instant::now() + CONNECT)) {
            Ok(connection) => lease.connection = Some(connection),
            Err(trouble) => {
                drop(lease);
                self.note_outage(trouble.clone());
                return Err(self.error(&trouble, Instant::now()));
            }
        }
        Ok(lease)
    }

    /// After an outage: has a thread look, and waits a moment for it, unless it is too early or somebody does already.
    fn look<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State<C::Connection>>,
        now: Instant,
    ) -> Result<MutexGuard<'a, State<C::Connection>>> {
        let Some(outage) = &mut state.outage else { return Ok(state) };
        if outage.looking || now < outage.until {
            let trouble = outage.trouble.clone();
            let again = if outage.looking { now + GLANCE } else { outage.until };
            return Err(self.error(&trouble, again));
        }
        outage.looking = true;
        drop(state);
        let pool = Arc::clone(self);
        if let Err(look) = self.looking.run(1, Box::new(move || pool.try_again())) {
            look();
        }
        let still = |state: &mut State<C::Connection>| state.outage.as_ref().is_some_and(|outage| outage.looking);
        let waited = self.bell.wait_timeout_while(lock(&self.state), GLANCE, still);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn try_again(&self) {
        let connected = self.connector.connect(Instant::now() + CONNECT);
        let mut state = lock(&self.state);
        match connected {
            Ok(connection) => {
                state.outage = None;
                state.open += 1;
                state.idle.push((connection, Instant::now()));
                self.bell.notify_all();
            }
            Err(trouble) => {
                drop(state);
                self.note_outage(trouble);
            }
        }
    }

    fn note_outage(&self, trouble: Trouble) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let looks = match &state.outage {
            Some(outage) if outage.looking || now >= outage.until => outage.looks + 1,
            // One outage, noticed by several callers.
            Some(outage) => outage.looks,
            None => 0,
        };
        let longest = (BACK_OFF.0 * 2_u32.pow(looks.min(10))).min(BACK_OFF.1);
        let until = now + longest.mul_f64(jitter());
        state.outage = Some(Outage { trouble, looks, until, looking: false });
        self.bell.notify_all();
    }

    /// All idle connections, to be dropped when no lock is held.
    fn forget_idle(&self) -> Vec<(C::Connection, Instant)> {
        let mut state = lock(&self.state);
        state.open -= state.idle.len();
        std::mem::take(&mut state.idle)
    }

    fn error(&self, trouble: &Trouble, again: Instant) -> Error {
        let name = self.connector.name();
        let (Trouble::Lost(why) | Trouble::Away(why)) = trouble else {
            let Trouble::Refused(why) = trouble else { unreachable!("the third of three") };
            return Error::store(format!("{name} cannot be used: {why}"));
        };
        let mut error = Error::store(format!(
            "{name} cannot be reached: {why}. Check the server and the network between; the sessions in it are kept."
        ));
        let wait = again.saturating_duration_since(Instant::now()).max(BACK_OFF.0 / 4);
        error.retry_after_ms = Some(wait.as_millis() as u64);
        error
    }
}

/// From a half to one.
fn jitter() -> f64 {
    let random: [u8; 1] = super::seal::random().unwrap_or_default();
    0.5 + f64::from(random[0]) / 512.0
}

/// A connection in use, or a place for one.
struct Lease<C: Connect> {
    pool: Arc<Inner<C>>,
    connection: Option<C::Connection>,
    reused: bool,
}

impl<C: Connect> Lease<C> {
    fn give_back(mut self) {
        let mut state = lock(&self.pool.state);
        state.idle.extend(self.connection.take().map(|connection| (connection, Instant::now())));
        state.open += 1; // The drop takes it off again.
    }
}

impl<C: Connect> Drop for Lease<C> {
    fn drop(&mut self) {
        drop(self.connection.take());
        lock(&self.pool.state).open -= 1;
        self.pool.bell.notify_one();
    }
}

/// Does on a thread of the library what knows no time limit of its own, resolving a name for one. `None`: it takes too
/// long, and ends unheard.
pub fn within<T: Send + 'static>(
    workers: &Arc<Workers>,
    until: Instant,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::sync_channel(1);
    let work = move || _ = send.try_send(work());
    if let Err(work) = workers.run(LARGEST, Box::new(work)) {
        work();
    }
    receive.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::Status;

    /// A server that can be away.
    #[derive(Default)]
    struct Fake {
        away: Mutex<Option<Trouble>>,
        made: AtomicUsize,
        open: Arc<AtomicUsize>,
    }

    struct Connection {
        number: usize,
        open: Arc<AtomicUsize>,
    }

    impl Drop for Connection {
        fn drop(&mut self) {
            self.open.fetch_sub(1, Relaxed);
        }
    }

    impl Connect for Fake {
        type Connection = Connection;

        fn connect(&self, _until: Instant) -> std::result::Result<Connection, Trouble> {
            let number = self.made.fetch_add(1, Relaxed);
            if let Some(trouble) = lock(&self.away).clone() {
                return Err(trouble);
            }
            self.open.fetch_add(1, Relaxed);
            Ok(Connection { number, open: Arc::clone(&self.open) })
        }

        fn name(&self) -> &str {
            "the fake store"
        }
    }

    fn number(pool: &Pool<Fake>) -> Result<usize> {
        pool.call(Does::Read(CALL), |connection, _| Ok(connection.number))
    }

    #[test]
    fn connections_are_made_on_demand_reused_and_never_too_many() {
        let pool = Pool::new(Fake::default());
        assert_eq!(pool.connector().made.load(Relaxed), 0);
        assert_eq!((number(&pool).unwrap(), number(&pool).unwrap()), (0, 0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let open = pool.call(Does::Read(CALL), |connection, _| {
                        std::thread::sleep(Duration::from_millis(20));
                        Ok(connection.open.load(Relaxed))
                    });
                    assert!(open.unwrap() <= LARGEST);
                });
            }
        });
        assert!(pool.connector().made.load(Relaxed) <= LARGEST);
    }

    #[test]
    fn a_panic_costs_one_connection_and_no_place() {
        let pool = Pool::new(Fake::default());
        for _ in 0..2 * LARGEST {
            let work = || {
                pool.call(Does::Read(CALL), |_, _| -> std::result::Result<(), _> {
                    std::panic::resume_unwind(Box::new(()))
                })
            };
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
        }
        assert_eq!(pool.connector().open.load(Relaxed), 0);
        assert!(number(&pool).is_ok());
    }

    #[test]
    fn a_broken_connection_is_replaced_for_reads_only() {
        let pool = Pool::new(Fake::default());
        number(&pool).unwrap();
        let broken = |connection: &mut Connection, _| match connection.number {
            0 | 1 => Err(Trouble::Lost("it broke".into())),
            number => Ok(number),
        };
        // The old one breaks, and so does the new one: that is no accident any more.
        assert!(pool.call(Does::Read(CALL), broken).unwrap_err().retry_after_ms.is_some());
        assert_eq!(pool.call(Does::Read(CALL), broken).unwrap(), 2);
        let lost = |_: &mut Connection, _| -> std::result::Result<(), _> { Err(Trouble::Lost("it broke".into())) };
        assert!(pool.call(Does::Write, lost).is_err());
        assert_eq!(pool.connector().made.load(Relaxed), 3, "a write is not repeated");
    }

    #[test]
    fn a_server_that_is_away_is_left_alone_and_found_again() {
        let pool = Pool::new(Fake::default());
        *lock(&pool.connector().away) = Some(Trouble::Away("connection refused".into()));
        let start = Instant::now();
        let mut calls = 0;
        while start.elapsed() < Duration::from_millis(500) {
            let error = number(&pool).unwrap_err();
            assert_eq!(error.status, Status::Store);
            assert!(
                error.message.contains("the fake store") && error.retry_after_ms.is_some_and(|ms| ms > 0),
                "{error}"
            );
            calls += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        let looks = pool.connector().made.load(Relaxed);
        assert!(calls > 20 && looks <= 6, "{looks} looks, {calls} calls");
        *lock(&pool.connector().away) = None;
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = number(&pool) {
            assert!(Instant::now() < until, "{error}");
            std::thread::sleep(Duration::from_millis(error.retry_after_ms.unwrap()));
        }
    }

    #[test]
    fn a_refusal_says_nothing_of_trying_again() {
        let pool = Pool::new(Fake::default());
        *lock(&pool.connector().away) = Some(Trouble::Refused("the password is wrong.".into()));
        for _ in 0..3 {
            let error = number(&pool).unwrap_err();
            assert!(error.message.contains("the password is wrong") && error.retry_after_ms.is_none(), "{error}");
        }
        assert_eq!(pool.connector().made.load(Relaxed), 1);
    }

    #[test]
    fn what_takes_too_long_is_left_behind() {
        let workers = Arc::default();
        let until = Instant::now() + Duration::from_secs(30);
        assert_eq!(within(&workers, until, || 5), Some(5));
        let slow = || std::thread::sleep(Duration::from_secs(1));
        assert_eq!(within(&workers, Instant::now() + Duration::from_millis(10), slow), None);
    }
}

//! Fork, exit, and the library's own threads.
//!
//! Everything that threads share lives in a [`Runtime`]. A forked child gets a new one and leaks its parent's: it takes
//! no lock that a thread of the parent may have held, and closes nothing that the parent still uses.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::sync::{Instant, LazyLock, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

mod os;
pub mod tasks;
pub mod workers;

use workers::Workers;

/// Something that a fork must not tear.
pub trait AtFork: Send + Sync {
    /// In the parent, before the fork, when no thread is [inside](enter): close idle database connections.
    fn prepare(&self);
    /// In the child: close the owner descriptor, leak the rest. The child never uses this object again.
    fn child(&self);
}

/// Something that wants to finish before a normal exit.
pub trait AtExit: Send + Sync {
    /// How long it may take.
    fn wait(&self) -> Duration;
    /// Finish until then.
    fn exit(&self, until: Instant);
}

/// A name among what clients share: for a store, its canonical path and how it is opened.
pub type Name = (PathBuf, String);

/// What the threads of one process share.
pub struct Runtime {
    /// Which process: 0, +1 in every forked child.
    pub generation: u64,
    /// Threads that run exchanges.
    pub workers: Arc<Workers>,
    /// Threads that carry the waits of those who have no thread to wait with.
    pub carriers: Arc<Workers>,
    gate: RwLock<()>,
    forks: Mutex<Vec<Weak<dyn AtFork>>>,
    exits: Mutex<Vec<Weak<dyn AtExit>>>,
    shared: Mutex<BTreeMap<Name, Weak<dyn Any + Send + Sync>>>,
    /// In a child that was forked from this process: what takes this one's place.
    child: OnceLock<&'static Runtime>,
}

impl Runtime {
    fn new(generation: u64) -> &'static Self {
        Box::leak(Box::new(Self {
            generation,
            workers: Arc::default(),
            carriers: Arc::default(),
            gate: RwLock::new(()),
            forks: Mutex::default(),
            exits: Mutex::default(),
            shared: Mutex::default(),
            child: OnceLock::new(),
        }))
    }

    /// What the clients of this process share under this name, for as long as one of them has it. The first makes it.
    pub fn shared<T: Any + Send + Sync, E>(
        &self,
        name: Name,
        make: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        let mut shared = lock(&self.shared);
        if let Some(Ok(found)) = shared.get(&name).and_then(Weak::upgrade).map(Arc::downcast) {
            return Ok(found);
        }
        let made = make()?;
        shared.retain(|_, kept| kept.strong_count() > 0);
        let kept: Weak<T> = Arc::downgrade(&made);
        shared.insert(name, kept);
        Ok(made)
    }
}

static GENERATION: AtomicU64 = AtomicU64::new(0);
static FIRST: LazyLock<&'static Runtime> = LazyLock::new(|| Runtime::new(0));

/// A fork that is on its way: nobody is inside until it is dropped.
struct Forking {
    _gate: RwLockWriteGuard<'static, ()>,
    // Dropped behind the gate: the last reference to a store closes it, and that happens inside.
    objects: Vec<Arc<dyn AtFork>>,
}

thread_local! {
    static FORKING: RefCell<Option<Forking>> = const { RefCell::new(None) };
}

/// Which process this is: a number that changes in a forked child. Cheap enough for every call.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// What the threads of this process share.
pub fn runtime() -> &'static Runtime {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // Neither is simulated.
        if cfg!(feature = "shuttle") {
            return;
        }
        #[cfg(unix)]
        os::at_fork(before_fork, after_fork_in_parent, after_fork_in_child);
        os::at_exit(at_exit);
    });
    let mut runtime = *FIRST;
    while let Some(child) = runtime.child.get() {
        runtime = child;
    }
    runtime
}

/// While this lives, no fork happens. Never take it twice on one thread.
pub struct Inside {
    _gate: RwLockReadGuard<'static, ()>,
}

/// Waits while a fork is being prepared. Every use of SQLite and of owner files happens inside.
pub fn enter() -> Inside {
    Inside { _gate: runtime().gate.read().unwrap_or_else(PoisonError::into_inner) }
}

/// Has `object` told of forks for as long as it lives.
pub fn register(object: Weak<dyn AtFork>) {
    let _inside = enter();
    let mut forks = lock(&runtime().forks);
    forks.retain(|object| object.strong_count() > 0);
    forks.push(object);
}

/// Has `object` told of a normal exit for as long as it lives.
pub fn register_exit(object: Weak<dyn AtExit>) {
    let mut exits = lock(&runtime().exits);
    // Thousands of clients: the list is swept only when it has doubled.
    if exits.len() == exits.capacity() {
        exits.retain(|object| object.strong_count() > 0);
    }
    exits.push(object);
}

/// Runs `work` on a thread of its own; if none can be started, not at all.
pub fn start_thread(work: impl FnOnce() + Send + 'static) {
    let builder = std::thread::Builder::new().name("evergrant".into()).stack_size(128 * 1024);
    let _ = os::with_signals_blocked(|| builder.spawn(work));
}

/// A lock whose data stays consistent at every panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn before_fork() {
    let runtime = runtime();
    let gate = runtime.gate.write().unwrap_or_else(PoisonError::into_inner);
    let objects: Vec<_> = lock(&runtime.forks).iter().filter_map(Weak::upgrade).collect();
    objects.iter().for_each(|object| object.prepare());
    FORKING.with_borrow_mut(|forking| *forking = Some(Forking { _gate: gate, objects }));
}

extern "C" fn after_fork_in_parent() {
    drop(FORKING.take());
}

extern "C" fn after_fork_in_child() {
    let Some(forking) = FORKING.take() else { return };
    forking.objects.iter().for_each(|object| object.child());
    mem::forget(forking);
    let parent = runtime();
    let child = parent.child.get_or_init(|| Runtime::new(parent.generation + 1));
    GENERATION.store(child.generation, Ordering::Release);
}

extern "C" fn at_exit() {
    let exits: Vec<_> = lock(&runtime().exits).iter().filter_map(Weak::upgrade).collect();
    let longest = exits.iter().map(|object| object.wait()).max().unwrap_or_default();
    let until = Instant::now() + longest;
    for object in &exits {
        object.exit(until.min(Instant::now() + object.wait()));
    }
    // Other threads may still use these.
    mem::forget(exits);
}

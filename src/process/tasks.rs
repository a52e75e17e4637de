//! Waiting: a wait is a future, so that a thread can block on it, or a few threads of the library can carry thousands.
//!
//! Futures here name the time at which they want to be looked at again by [`wake_at`]; nothing else is special.

use std::cell::Cell;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::lock;
use super::workers::Workers;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Instant, Mutex, thread_local};

/// How many threads carry waits. They only look, and a look into a store takes a moment.
const CARRIERS: usize = 4;

thread_local! {
    static NEXT_LOOK: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Has the future that is being polled on this thread polled again by then, if nothing wakes it before.
pub fn wake_at(at: Instant) {
    NEXT_LOOK.with(|look| look.set(Some(look.get().map_or(at, |next| next.min(at)))));
}

/// Polls once; with the time at which the future wants to be polled again.
fn look<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>, waker: &Waker) -> (Poll<T>, Option<Instant>) {
    let outer = NEXT_LOOK.with(Cell::take);
    let poll = future.poll(&mut Context::from_waker(waker));
    (poll, NEXT_LOOK.with(|next| next.replace(outer)))
}

/// Waits on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let first = look(future.as_mut(), Waker::noop());
    if let (Poll::Ready(value), _) = first {
        return value;
    }
    // It has to wait: from here on it must be able to wake this thread, and nothing was promised to the first look.
    let sleeper = Arc::new(Sleeper::default());
    let waker = Waker::from(Arc::clone(&sleeper));
    loop {
        let (poll, next) = look(future.as_mut(), &waker);
        if let Poll::Ready(value) = poll {
            return value;
        }
        sleeper.sleep(next);
    }
}

/// A thread that waits. Not by `thread::park()`: a host in Rust may use that for its own ends.
#[derive(Default)]
struct Sleeper {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Sleeper {
    /// Until somebody wakes it, or has since it slept last.
    fn sleep(&self, until: Option<Instant>) {
        let mut woken = lock(&self.woken);
        while !*woken {
            woken = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => break,
                Some(left) => self.bell.wait_timeout(woken, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.bell.wait(woken).unwrap_or_else(PoisonError::into_inner),
            };
        }
        *woken = false;
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *lock(&self.woken) = true;
        self.bell.notify_one();
    }
}

/// Has the library's threads wait. If there is none, and none can be started, the future is dropped.
pub fn spawn(carriers: &Arc<Workers>, future: impl Future<Output = ()> + Send + 'static) {
    let task = Arc::new(Task {
        future: Mutex::new(Some(Box::pin(future))),
        scheduled: AtomicBool::new(false),
        carriers: Arc::clone(carriers),
    });
    task.schedule();
}

struct Task {
    /// None once it is done.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// A look at it is queued and has not begun.
    scheduled: AtomicBool,
    carriers: Arc<Workers>,
}

impl Task {
    fn schedule(self: Arc<Self>) {
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            let carriers = Arc::clone(&self.carriers);
            let _ = carriers.run(CARRIERS, Box::new(move || self.look()));
        }
    }

    fn look(self: Arc<Self>) {
        // One look at a time; whoever wakes it from now on has it looked at once more.
        let mut future = lock(&self.future);
        self.scheduled.store(false, Ordering::Release);
        // Taken out: a panic drops it, and with it whatever it was to tell somebody.
        let Some(mut pending) = future.take() else { return };
        let (poll, next) = look(pending.as_mut(), &Waker::from(Arc::clone(&self)));
        if poll.is_ready() {
            return;
        }
        *future = Some(pending);
        drop(future);
        if let Some(next) = next {
            let task = Arc::downgrade(&self);
            let wake = move || _ = task.upgrade().map(Task::schedule);
            let delay = next.saturating_duration_since(Instant::now());
            let (carriers, task) = (Arc::clone(&self.carriers), Arc::downgrade(&self));
            drop(self);
            carriers.run_later(delay, CARRIERS, task, Box::new(wake));
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.schedule();
    }
}

/// A value that another thread will bring, and the wait for it.
pub fn promise<T>() -> (Promise<T>, Promised<T>) {
    let shared = Arc::new(Mutex::new(Delivery { value: None, broken: false, waiters: Wakers::default() }));
    (Promise(Arc::clone(&shared)), Promised(shared))
}

/// Whoever has it brings the value.
pub struct Promise<T>(Arc<Mutex<Delivery<T>>>);

/// Whoever has it waits.
pub struct Promised<T>(Arc<Mutex<Delivery<T>>>);

struct Delivery<T> {
    value: Option<T>,
    broken: bool,
    waiters: Wakers,
}

impl<T> Promise<T> {
    /// Brings it.
    pub fn keep(self, value: T) {
        lock(&self.0).value = Some(value);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut delivery = lock(&self.0);
        delivery.broken = true;
        let waiters = delivery.waiters.take();
        drop(delivery);
        waiters.wake();
    }
}

impl<T> Promised<T> {
    /// The value if it has come; `Err`: nobody brings it any more.
    pub fn poll(&self, context: &Context<'_>) -> Poll<Result<T, ()>> {
        let mut delivery = lock(&self.0);
        match delivery.value.take() {
            Some(value) => Poll::Ready(Ok(value)),
            None if delivery.broken => Poll::Ready(Err(())),
            None => {
                delivery.waiters.add(context);
                Poll::Pending
            }
        }
    }
}

/// Who is to be woken when something happens.
#[derive(Default)]
pub struct Wakers(Vec<Waker>);

impl Wakers {
    /// Adds the future that is being polled, once.
    pub fn add(&mut self, context: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(context.waker())) {
            self.0.push(context.waker().clone());
        }
    }

    /// Takes everybody out, to be woken when no lock is held.
    pub fn take(&mut self) -> Self {
        mem::take(self)
    }

    /// Wakes everybody.
    pub fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

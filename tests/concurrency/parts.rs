//! The parts by themselves: threads that work, threads that carry waits, wakers, the queue of results, the map of slots.

use std::any::Any;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use super::explore;
use crate::process::lock;
use crate::process::tasks::{self, Wakers, block_on};
use crate::process::workers::Workers;
use crate::session::cache::Vault;
use crate::session::record::Key;
use crate::store::memory::MemoryStore;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, Timers, thread};

/// A number that is waited for, as the library waits: checked and registered under one lock.
#[derive(Default)]
pub struct Count(Mutex<(usize, Wakers)>);

impl Count {
    pub fn raise(&self) {
        let mut state = lock(&self.0);
        state.0 += 1;
        let waiters = state.1.take();
        drop(state);
        waiters.wake();
    }

    pub fn get(&self) -> usize {
        lock(&self.0).0
    }

    pub async fn reaches(&self, wanted: usize) {
        poll_fn(|context| {
            let mut state = lock(&self.0);
            if state.0 >= wanted {
                return Poll::Ready(());
            }
            state.1.add(context);
            Poll::Pending
        })
        .await;
    }
}

#[test]
fn a_job_that_comes_as_a_thread_ends_is_run() {
    explore("a_job_that_comes_as_a_thread_ends_is_run", Timers::AnyTime, || {
        let workers = Arc::new(Workers::default());
        let done = Arc::new(Count::default());
        let givers: Vec<_> = (0..2)
            .map(|_| {
                let (workers, done) = (Arc::clone(&workers), Arc::clone(&done));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let done = Arc::clone(&done);
                        assert!(workers.run(2, Box::new(move || done.raise())).is_ok());
                    }
                })
            })
            .collect();
        givers.into_iter().for_each(|giver| giver.join().unwrap());
        block_on(done.reaches(4));
    });
}

#[test]
fn what_is_due_later_is_run_if_it_is_wanted() {
    explore("what_is_due_later_is_run_if_it_is_wanted", Timers::AnyTime, || {
        let workers = Arc::new(Workers::default());
        let done = Arc::new(Count::default());
        let unwanted = Arc::new(Count::default());
        let kept: Arc<dyn Any + Send + Sync> = Arc::new(());
        let dropped: Arc<dyn Any + Send + Sync> = Arc::new(());
        for (by, seconds, count) in [(&kept, 5, &done), (&dropped, 7, &unwanted)] {
            let count = Arc::clone(count);
            workers.run_later(Duration::from_secs(seconds), 1, Arc::downgrade(by), Box::new(move || count.raise()));
        }
        drop(dropped);
        let other = {
            let (workers, done) = (Arc::clone(&workers), Arc::clone(&done));
            thread::spawn(move || assert!(workers.run(1, Box::new(move || done.raise())).is_ok()))
        };
        other.join().unwrap();
        block_on(done.reaches(2));
        while Arc::strong_count(&unwanted) > 1 {
            thread::yield_now();
        }
        assert_eq!(unwanted.get(), 0, "what nobody wants was run");
    });
}

#[test]
fn a_wait_that_is_carried_ends() {
    explore("a_wait_that_is_carried_ends", Timers::AtRest, || {
        let carriers = Arc::new(Workers::default());
        let (first, second, done) =
            (Arc::new(Count::default()), Arc::new(Count::default()), Arc::new(Count::default()));
        for _ in 0..2 {
            let (first, second, done) = (Arc::clone(&first), Arc::clone(&second), Arc::clone(&done));
            tasks::spawn(&carriers, async move {
                first.reaches(1).await;
                second.reaches(2).await;
                done.raise();
            });
        }
        let raiser = {
            let (first, second) = (Arc::clone(&first), Arc::clone(&second));
            thread::spawn(move || {
                second.raise();
                first.raise();
                second.raise();
            })
        };
        block_on(done.reaches(2));
        raiser.join().unwrap();
    });
}

#[test]
fn a_thread_that_waits_is_woken() {
    explore("a_thread_that_waits_is_woken", Timers::AtRest, || {
        let count = Arc::new(Count::default());
        let waiters: Vec<_> = (1..=2)
            .map(|wanted| {
                let count = Arc::clone(&count);
                thread::spawn(move || block_on(count.reaches(wanted)))
            })
            .collect();
        count.raise();
        count.raise();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

#[test]
fn one_slot_for_each_session() {
    explore("one_slot_for_each_session", Timers::AtRest, || {
        let vault = Vault::new(Arc::new(MemoryStore::new().unwrap()));
        let holders = Arc::new(AtomicUsize::new(0));
        let place = Arc::new(Mutex::new(Weak::new()));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (vault, holders, place) = (Arc::clone(&vault), Arc::clone(&holders), Arc::clone(&place));
                thread::spawn(move || {
                    let key = Key { namespace: "n".into(), session: "s".into() };
                    let slot = vault.slot(&key);
                    holders.fetch_add(1, Ordering::SeqCst);
                    // Whoever else holds one says which.
                    let other = std::mem::replace(&mut *lock(&place), Arc::downgrade(&slot)).upgrade();
                    assert!(other.is_none_or(|other| Arc::ptr_eq(&other, &slot)), "two slots of one session");
                    assert!(Arc::ptr_eq(&vault.slot(&key), &slot));
                    holders.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

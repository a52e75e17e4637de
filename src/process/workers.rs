//! The threads that run exchanges: started on demand, reused, gone after two idle seconds.
//!
//! A caller's wait is cut loose from its exchange: the exchange always finishes and always settles.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::{lock, os};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, thread};

const IDLE: Duration = Duration::from_secs(2);

/// Work for one thread. It must not panic; if it does, only it is lost.
pub type Job = Box<dyn FnOnce() + Send>;

/// The threads and their work.
#[derive(Default)]
pub struct Workers {
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Job>,
    later: BinaryHeap<Reverse<Later>>,
    threads: usize,
    idle: usize,
}

struct Later {
    due: Instant,
    wanted_by: Weak<dyn Any + Send + Sync>,
    job: Job,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Later {}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

impl Workers {
    /// Runs `job` on a thread of this library, at most `limit` at one time. `Err`: no thread can be started.
    pub fn run(self: &Arc<Self>, limit: usize, job: Job) -> Result<(), Job> {
        let mut queue = lock(&self.queue);
        queue.ready.push_back(job);
        if !self.provide(&mut queue, limit) {
            return queue.ready.pop_back().map_or(Ok(()), Err);
        }
        self.wake(queue);
        Ok(())
    }

    /// Runs `job` after `delay`, if a thread can be started, and if whoever wants it still exists then.
    pub fn run_later(
        self: &Arc<Self>,
        delay: Duration,
        limit: usize,
        wanted_by: Weak<dyn Any + Send + Sync>,
        job: Job,
    ) {
        let mut queue = lock(&self.queue);
        queue.later.push(Reverse(Later { due: Instant::now() + delay, wanted_by, job }));
        self.provide(&mut queue, limit);
        self.wake(queue);
    }

    /// A busy thread takes what is new next; an idle one takes it now, or looks at its due time anew. It would only wait
    /// for the lock if it were woken before that is free.
    fn wake(&self, queue: MutexGuard<'_, Queue>) {
        drop(queue);
        self.work.notify_one();
    }

    /// Starts a thread if there are too few. `false`: there is none, and none can be started.
    fn provide(self: &Arc<Self>, queue: &mut Queue, limit: usize) -> bool {
        if queue.idle >= queue.ready.len().max(1) || queue.threads >= limit.max(1) {
            return true;
        }
        let workers = Arc::clone(self);
        let started = os::with_signals_blocked(|| {
            thread::Builder::new().name("evergrant".into()).stack_size(512 * 1024).spawn(move || workers.work_off())
        });
        match started {
            Ok(_) => queue.threads += 1,
            Err(_) if queue.threads == 0 => return false,
            Err(_) => {}
        }
        true
    }

    fn work_off(&self) {
        let mut queue = lock(&self.queue);
        let mut idle_since = Instant::now();
        loop {
            let now = Instant::now();
            while let Some(Reverse(later)) = queue.later.peek() {
                let wanted = later.wanted_by.strong_count() > 0;
                if wanted && later.due > now {
                    break;
                }
                let Some(Reverse(later)) = queue.later.pop() else { break };
                if wanted {
                    queue.ready.push_back(later.job);
                }
            }
            if let Some(job) = queue.ready.pop_front() {
                drop(queue);
                // A panic is a defect; the job's own guards have told its waiters.
                let _ = panic::catch_unwind(AssertUnwindSafe(job));
                queue = lock(&self.queue);
                idle_since = Instant::now();
                continue;
            }
            let left = IDLE.saturating_sub(now - idle_since);
            let wait = match queue.later.peek() {
                // One thread stays for what is due later, and looks whether it is still wanted.
                Some(Reverse(later)) if queue.idle == 0 => IDLE.min(later.due - now),
                _ if left.is_zero() => break,
                Some(Reverse(later)) => left.min(later.due - now),
                None => left,
            };
            queue.idle += 1;
            queue = self.work.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
            queue.idle -= 1;
        }
        queue.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn wait_for(condition: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < until, "it did not happen");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn never_more_threads_than_the_limit_and_none_after_two_idle_seconds() {
        let workers = Arc::new(Workers::default());
        let (send, receive) = mpsc::channel();
        for number in 0..20 {
            let send = send.clone();
            let _ = workers.run(
                3,
                Box::new(move || {
                    thread::sleep(Duration::from_millis(10));
                    send.send((number, thread::current().id())).unwrap();
                }),
            );
        }
        let done: Vec<_> = (0..20).map(|_| receive.recv().unwrap()).collect();
        let threads: std::collections::HashSet<_> = done.iter().map(|(_, thread)| *thread).collect();
        assert!(threads.len() <= 3, "{} threads", threads.len());
        wait_for(|| lock(&workers.queue).threads == 0);
    }

    #[test]
    fn a_thread_stays_for_what_is_due_later_and_survives_a_panic() {
        let workers = Arc::new(Workers::default());
        let (send, receive) = mpsc::channel();
        let _ = workers.run(1, Box::new(|| panic::resume_unwind(Box::new("on purpose"))));
        let due = Duration::from_millis(2300);
        let asked = Instant::now();
        let wants: Arc<dyn Any + Send + Sync> = Arc::new(());
        workers.run_later(due, 1, Arc::downgrade(&wants), Box::new(move || send.send(Instant::now()).unwrap()));
        let ran = receive.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(ran - asked >= due);
        wait_for(|| lock(&workers.queue).threads == 0);
    }

    #[test]
    fn no_thread_stays_for_what_nobody_wants_any_more() {
        let workers = Arc::new(Workers::default());
        let (send, receive) = mpsc::channel();
        let wants: Arc<dyn Any + Send + Sync> = Arc::new(());
        let job = Box::new(move || send.send(()).unwrap());
        workers.run_later(Duration::from_secs(3600), 1, Arc::downgrade(&wants), job);
        drop(wants);
        wait_for(|| lock(&workers.queue).threads == 0);
        assert!(receive.recv().is_err(), "it was dropped, not run");
    }

    #[test]
    fn threads_block_all_signals() {
        let workers = Arc::new(Workers::default());
        let (send, receive) = mpsc::channel();
        let _ = workers
            .run(1, Box::new(move || send.send(std::fs::read_to_string("/proc/thread-self/status").unwrap()).unwrap()));
        let status = receive.recv().unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        // All but SIGKILL, SIGSTOP and the two that the C library keeps.
        assert_eq!(u64::from_str_radix(blocked, 16).unwrap() | 0x1_8004_0100, 0xffff_ffff_ffff_ffff, "{blocked}");
    }
}

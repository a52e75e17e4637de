//! Clients on one session: one exchange for all, everybody woken, nothing stale, and an end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::parts::Count;
use super::server::{self, Renewal};
use super::{LONG, explore};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Result, Status};
use crate::process::tasks::block_on;
use crate::queue::Queue;
use crate::secret::Secret;
use crate::session::cache::Vault;
use crate::session::protocol::Want;
use crate::session::renewer::Renewer;
use crate::store::memory::MemoryStore;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Instant, Timers, thread};
use crate::token::Answer;

const CONFIG: &str = r#"{"token_endpoint": "https://as.example/token",
    "revocation_endpoint": "https://as.example/revoke", "client_id": "client", "store": "memory:", "connect_timeout_ms": 600000}"#;
const SAVED: &str = r#"{"refresh_token": "refresh-0"}"#;
const SAVED_WITH_TOKEN: &str = r#"{"refresh_token": "refresh-0", "access_token": "access-0", "expires_in": 5184000}"#;

fn client(renewal: Renewal, saved: &str) -> Arc<Client> {
    server::start(renewal);
    let client = Client::open(CONFIG).unwrap();
    client.save("s", saved).unwrap();
    Arc::new(client)
}

/// As long a wait as there is.
fn token(client: &Client) -> Result<Secret> {
    client.access_token("s", Some(&format!(r#"{{"max_wait_ms": {}}}"#, LONG.as_millis())))
}

#[test]
fn callers_share_one_exchange() {
    explore("callers_share_one_exchange", Timers::AtRest, || {
        let client = client(Renewal::Grant, SAVED);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let client = Arc::clone(&client);
                thread::spawn(move || assert_eq!(token(&client).unwrap().expose(), "access-1"))
            })
            .collect();
        let started = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(started.elapsed(), Duration::ZERO, "somebody was not woken");
        assert_eq!(server::requests(), 1);
    });
}

#[test]
fn a_failure_is_told_to_everybody() {
    explore("a_failure_is_told_to_everybody", Timers::AtRest, || {
        let client = client(Renewal::Refuse, SAVED);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let client = Arc::clone(&client);
                thread::spawn(move || assert_eq!(token(&client).unwrap_err().status, Status::SignInRequired))
            })
            .collect();
        let started = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(started.elapsed(), Duration::ZERO, "somebody was not woken");
        assert_eq!(server::requests(), 1);
    });
}

#[test]
fn a_job_that_panics_leaves_nobody_waiting() {
    explore("a_job_that_panics_leaves_nobody_waiting", Timers::AnyTime, || {
        let client = client(Renewal::Panic, SAVED);
        let other = {
            let client = Arc::clone(&client);
            thread::spawn(move || token(&client).unwrap_err().status)
        };
        assert_eq!(token(&client).unwrap_err().status, Status::Internal);
        assert_eq!(other.join().unwrap(), Status::Internal);
    });
}

/// Who is woken, and how many still may wake it.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, StdOrdering::Relaxed);
    }
}

#[test]
fn a_caller_that_gives_up_leaves_nothing_behind() {
    explore("a_caller_that_gives_up_leaves_nothing_behind", Timers::AtRest, || {
        let client = client(Renewal::Grant, SAVED);
        let stays = {
            let client = Arc::clone(&client);
            thread::spawn(move || assert_eq!(token(&client).unwrap().expose(), "access-1"))
        };
        let bell = Arc::new(Bell::default());
        {
            let mut future = pin!(client.wait_for_token("s", None, Instant::now()));
            let _ = future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&bell))));
        }
        stays.join().unwrap();
        assert_eq!(server::requests(), 1);
        while !client.stats().unwrap().contains(r#""open_exchanges":0"#) {
            thread::yield_now();
        }
        assert_eq!(Arc::strong_count(&bell), 1, "a waker was left behind");
    });
}

#[test]
fn a_wait_that_ends_by_its_time_ends_no_renewal() {
    explore("a_wait_that_ends_by_its_time_ends_no_renewal", Timers::AnyTime, || {
        let client = client(Renewal::Grant, SAVED);
        let short = {
            let client = Arc::clone(&client);
            thread::spawn(move || match client.access_token("s", Some(r#"{"max_wait_ms": 1000}"#)) {
                Ok(token) => assert_eq!(token.expose(), "access-1"),
                Err(error) => assert_eq!(error.status, Status::TimedOut),
            })
        };
        assert_eq!(token(&client).unwrap().expose(), "access-1");
        short.join().unwrap();
        assert_eq!(server::requests(), 1);
    });
}

/// Callers, some with the token kept for their thread, while `close` runs. Afterwards nothing serves one.
fn close(max_wait: u32) {
    let client = client(Renewal::Grant, SAVED_WITH_TOKEN);
    let closed = Arc::new(AtomicBool::new(false));
    let renewers: Vec<_> = (0..2)
        .map(|_| {
            let client = Arc::clone(&client);
            thread::spawn(move || match client.renew("s", None, None) {
                Ok(token) => assert!(token.expose().contains("access-")),
                Err(error) => assert_eq!(error.status, Status::Closed, "{error}"),
            })
        })
        .collect();
    let listener = {
        let client = Arc::clone(&client);
        thread::spawn(move || while !client.events(99, u32::MAX).unwrap().contains("[]") {})
    };
    let peeker = {
        let (client, closed) = (Arc::clone(&client), Arc::clone(&closed));
        thread::spawn(move || {
            for _ in 0..6 {
                let before = closed.load(Ordering::SeqCst);
                let peeked = client.peek("s", str::to_owned);
                assert!(!before || peeked.is_err(), "a token was served after close");
            }
        })
    };
    let started = Instant::now();
    let status = client.close(max_wait);
    closed.store(true, Ordering::SeqCst);
    if status == Status::Ok {
        assert_eq!(server::open(), 0, "a request is open");
    }
    let requests = server::requests();
    renewers.into_iter().for_each(|renewer| renewer.join().unwrap());
    listener.join().unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO, "somebody was not told");
    peeker.join().unwrap();
    if status == Status::Ok {
        assert_eq!(server::requests(), requests, "a request was sent after close");
    }
    assert_eq!(client.peek("s", |_| ()).unwrap_err(), Status::Closed);
}

#[test]
fn close_tells_everybody_and_waits_for_what_is_open() {
    explore("close_tells_everybody_and_waits_for_what_is_open", Timers::AtRest, || close(u32::MAX));
}

#[test]
fn close_without_a_wait_serves_nothing_afterwards() {
    explore("close_without_a_wait_serves_nothing_afterwards", Timers::AtRest, || close(0));
}

#[test]
fn close_tells_those_who_wait_for_a_renewal() {
    explore("close_tells_those_who_wait_for_a_renewal", Timers::AtRest, || {
        let client = client(Renewal::Hold, SAVED);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let client = Arc::clone(&client);
                thread::spawn(move || assert_eq!(token(&client).unwrap_err().status, Status::Closed))
            })
            .collect();
        let closer = {
            let client = Arc::clone(&client);
            thread::spawn(move || client.close(u32::MAX))
        };
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        server::let_go();
        assert_eq!(closer.join().unwrap(), Status::Ok);
    });
}

#[test]
fn close_tells_those_who_wait_for_a_replay() {
    explore("close_tells_those_who_wait_for_a_replay", Timers::AtRest, || {
        let client = client(Renewal::Fail, SAVED);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let client = Arc::clone(&client);
                thread::spawn(move || {
                    let status = token(&client).unwrap_err().status;
                    assert!(matches!(status, Status::Closed | Status::Unavailable), "{status:?}");
                })
            })
            .collect();
        let started = Instant::now();
        client.close(u32::MAX);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(started.elapsed(), Duration::ZERO, "somebody was not told");
    });
}

#[test]
fn nothing_is_sent_once_close_has_returned() {
    explore("nothing_is_sent_once_close_has_returned", Timers::AtRest, || {
        let client = client(Renewal::Grant, SAVED);
        let leaver = {
            let client = Arc::clone(&client);
            thread::spawn(move || drop(client.sign_out("s")))
        };
        assert_eq!(client.close(u32::MAX), Status::Ok);
        let requests = server::requests();
        leaver.join().unwrap();
        // Threads of the library, too.
        thread::sleep(Duration::ZERO);
        assert_eq!((server::requests(), server::open()), (requests, 0), "a request was sent after close");
    });
}

#[test]
fn a_client_that_is_closed_leaves_the_others_alone() {
    explore("a_client_that_is_closed_leaves_the_others_alone", Timers::AtRest, || {
        server::start(Renewal::Grant);
        let config = Arc::new(Config::from_json(CONFIG).unwrap());
        let vault = Vault::new(Arc::new(MemoryStore::new().unwrap()));
        let stays = Renewer::open(Arc::clone(&config), Arc::clone(&vault)).unwrap();
        let closes = Renewer::open(config, vault).unwrap();
        stays.save(&stays.slot("s"), &Answer::from_json(SAVED).unwrap()).unwrap();
        let callers: Vec<_> = [&stays, &closes]
            .into_iter()
            .map(|renewer| {
                let (renewer, stays) = (Arc::clone(renewer), Arc::ptr_eq(renewer, &stays));
                thread::spawn(move || {
                    let obtained = block_on(renewer.obtain(
                        &renewer.slot("s"),
                        Want::Token { min_valid_ms: 0 },
                        Instant::now() + LONG,
                    ));
                    match obtained {
                        Ok(_) => {}
                        Err(error) => assert!(!stays && error.status == Status::Closed, "{error}"),
                    }
                })
            })
            .collect();
        block_on(closes.close(Instant::now() + LONG));
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert!(server::requests() <= 1);
    });
}

/// A caller that keeps a token next to the stamp, as a program does.
struct Keeper {
    client: Arc<Client>,
    stamp: &'static AtomicU32,
    kept: Option<(u32, String)>,
}

impl Keeper {
    fn serve(&mut self) -> Option<String> {
        let stamp = self.stamp.load(Ordering::Acquire);
        if self.kept.as_ref().is_none_or(|(kept, _)| *kept != stamp) {
            self.kept = self.client.peek("s", str::to_owned).ok().map(|(token, _)| (stamp, token));
        }
        self.kept.as_ref().map(|(_, token)| token.clone())
    }
}

/// No token of before is served once `change` has returned, neither from memory nor by one who keeps it, whatever
/// `other` does meanwhile.
fn nothing_stale(before: &'static [&str], other: fn(&Client), change: fn(&Client)) {
    let stale = |served: Option<String>| served.is_some_and(|token| before.contains(&&*token));
    let client = client(Renewal::Grant, SAVED_WITH_TOKEN);
    let changed = Arc::new(AtomicBool::new(false));
    let keeper = {
        let stamp = client.stamp("s").unwrap();
        let (mut keeper, changed) = (Keeper { client: Arc::clone(&client), stamp, kept: None }, Arc::clone(&changed));
        thread::spawn(move || {
            for _ in 0..4 {
                let is_changed = changed.load(Ordering::SeqCst);
                let served = keeper.serve();
                assert!(!(is_changed && stale(served)), "a stale token was served");
            }
            keeper
        })
    };
    let other = {
        let client = Arc::clone(&client);
        thread::spawn(move || other(&client))
    };
    change(&client);
    changed.store(true, Ordering::SeqCst);
    let mut keeper = keeper.join().unwrap();
    other.join().unwrap();
    assert!(!stale(keeper.serve()), "a stale token is kept");
    assert!(!stale(client.peek("s", str::to_owned).ok().map(|(token, _)| token)), "memory has a stale token");
}

fn look(client: &Client) {
    drop(client.describe("s"));
}

fn renew(client: &Client) {
    drop(client.renew("s", Some("access-0"), None));
}

#[test]
fn nothing_stale_after_a_renewal() {
    explore("nothing_stale_after_a_renewal", Timers::AtRest, || {
        nothing_stale(&["access-0"], look, renew);
    });
}

#[test]
fn nothing_kept_past_a_sign_in() {
    explore("nothing_kept_past_a_sign_in", Timers::AtRest, || {
        nothing_stale(&["access-0"], |_| {}, |client| client.save("s", r#"{"refresh_token": "refresh-x"}"#).unwrap());
    });
}

#[test]
fn nothing_stale_after_a_sign_in() {
    explore("nothing_stale_after_a_sign_in", Timers::AtRest, || {
        nothing_stale(&["access-0"], look, |client| client.save("s", r#"{"refresh_token": "refresh-x"}"#).unwrap());
    });
}

#[test]
fn nothing_served_after_a_sign_out() {
    explore("nothing_served_after_a_sign_out", Timers::AtRest, || {
        nothing_stale(&["access-0"], look, |client| client.sign_out("s").unwrap());
    });
}

#[test]
fn nothing_served_after_a_sign_out_during_a_renewal() {
    explore("nothing_served_after_a_sign_out_during_a_renewal", Timers::AtRest, || {
        nothing_stale(&["access-0", "access-1", "access-2"], renew, |client| client.sign_out("s").unwrap());
    });
}

#[test]
fn nothing_served_after_close() {
    explore("nothing_served_after_close", Timers::AtRest, || {
        nothing_stale(&["access-0"], look, |client| _ = client.close(0));
    });
}

/// Whether a descriptor can be read.
#[allow(unsafe_code)]
fn readable(descriptor: i32) -> bool {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, for the time of the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

#[test]
fn every_result_is_taken_once_and_announced() {
    explore("every_result_is_taken_once_and_announced", Timers::AtRest, || {
        let client = client(Renewal::Grant, SAVED);
        let queue = Arc::new(Queue::open().unwrap());
        let descriptor = queue.descriptor().unwrap();
        let submitters: Vec<_> = (0..2)
            .map(|tag| {
                let (client, queue) = (Arc::clone(&client), Arc::clone(&queue));
                thread::spawn(move || {
                    queue.submit(Some(&client), tag, r#"{"call": "session_token", "session": "s"}"#).unwrap();
                })
            })
            .collect();
        // As an event loop does: it takes when the descriptor can be read.
        let mut taken = String::new();
        while taken.matches("\"tag\"").count() < 2 {
            if readable(descriptor) {
                taken += queue.take(0).unwrap().expose();
            } else {
                thread::yield_now();
            }
        }
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        assert!(taken.contains("\"tag\":0,") && taken.contains("\"tag\":1,"), "{taken}");
        assert_eq!(taken.matches("access-1").count(), 2, "{taken}");
        assert!(!readable(descriptor), "nothing is left, but the descriptor can be read");
        close_descriptor(descriptor);
    });
}

#[test]
fn threads_that_take_share_the_results() {
    explore("threads_that_take_share_the_results", Timers::AtRest, || {
        let client = client(Renewal::Grant, SAVED);
        let queue = Arc::new(Queue::open().unwrap());
        let taken = Arc::new(Count::default());
        let started = Instant::now();
        for tag in 0..3 {
            queue.submit(Some(&client), tag, r#"{"call": "session_token", "session": "s"}"#).unwrap();
        }
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, taken) = (Arc::clone(&queue), Arc::clone(&taken));
                thread::spawn(move || {
                    while taken.get() < 3 {
                        let results = queue.take(10).unwrap();
                        results.expose().matches("\"tag\"").for_each(|_| taken.raise());
                    }
                })
            })
            .collect();
        block_on(taken.reaches(3));
        assert_eq!(started.elapsed(), Duration::ZERO, "nobody was woken to take");
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert_eq!(taken.get(), 3);
    });
}

#[test]
fn a_queue_is_freed_while_calls_are_open() {
    explore("a_queue_is_freed_while_calls_are_open", Timers::AtRest, || {
        let client = client(Renewal::Grant, SAVED);
        let queue = Queue::open().unwrap();
        for tag in 0..2 {
            queue.submit(Some(&client), tag, r#"{"call": "session_token", "session": "s"}"#).unwrap();
        }
        drop(queue);
        assert_eq!(token(&client).unwrap().expose(), "access-1");
        assert_eq!(server::requests(), 1);
    });
}

#[allow(unsafe_code)]
fn close_descriptor(descriptor: i32) {
    // SAFETY: this test's own.
    unsafe { libc::close(descriptor) };
}

//! The authorization server, behind `oauth::http::Http`: one for each execution.

use std::cell::RefCell;
use std::io::{self, Read};
use std::panic;
use std::time::Duration;

use crate::oauth::http::Response;
use crate::secret::SecretBytes;
use crate::sync::thread;

/// What it does about a renewal.
#[derive(Clone, Copy, Default)]
pub enum Renewal {
    #[default]
    Grant,
    /// `invalid_grant`: the session has ended.
    Refuse,
    /// 503: nobody knows, so it is tried again.
    Fail,
    /// The answer comes when it is [let go](let_go).
    Hold,
    /// A defect of the library.
    Panic,
}

#[derive(Clone, Copy, Default)]
struct Server {
    renewal: Renewal,
    requests: usize,
    open: usize,
    held: bool,
}

// Shuttle runs all tasks of an execution on one thread of the system.
thread_local! {
    static SERVER: RefCell<Server> = RefCell::default();
}

/// A new one.
pub fn start(renewal: Renewal) {
    SERVER.set(Server { renewal, held: matches!(renewal, Renewal::Hold), ..Server::default() });
}

/// Sends what was held.
pub fn let_go() {
    SERVER.with_borrow_mut(|server| server.held = false);
}

/// How many requests have come.
pub fn requests() -> usize {
    SERVER.with_borrow(|server| server.requests)
}

/// How many of them are without an answer.
pub fn open() -> usize {
    SERVER.with_borrow(|server| server.open)
}

/// One exchange. Reading the body asks the gate.
pub fn answer(mut request: impl Read) -> io::Result<Response> {
    let mut form = String::new();
    request.read_to_string(&mut form)?;
    let (number, renewal) = SERVER.with_borrow_mut(|server| {
        server.requests += 1;
        server.open += 1;
        (server.requests, server.renewal)
    });
    // Others come in.
    thread::sleep(Duration::ZERO);
    while SERVER.with_borrow(|server| server.held) {
        thread::yield_now();
    }
    SERVER.with_borrow_mut(|server| server.open -= 1);
    let (status, body) = match renewal {
        _ if !form.contains("grant_type=refresh_token") => (200, String::new()),
        Renewal::Grant | Renewal::Hold => (
            200,
            format!(
                r#"{{"access_token": "access-{number}", "refresh_token": "refresh-{number}", "expires_in": 5184000}}"#
            ),
        ),
        Renewal::Refuse => (400, r#"{"error":"invalid_grant","error_description":"revoked"}"#.to_owned()),
        Renewal::Fail => (503, String::new()),
        // Without the panic hook.
        Renewal::Panic => panic::resume_unwind(Box::new("on purpose")),
    };
    Ok(Response {
        status,
        retry_after_ms: None,
        redirects_to: None,
        max_age_s: None,
        body: SecretBytes::new(body.into_bytes()),
    })
}

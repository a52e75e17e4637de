//! The listeners, their threads, and what a test that runs the server in-process can do with it.

use crate::authority::FamilyView;
use crate::control;
use crate::endpoints;
use crate::exchange;
use crate::faults::{Fault, FaultKind};
use crate::http::{Connection, reset_on_close};
use crate::log::{Entry, Stats};
use crate::options::{Client, Options};
use crate::state::{State, now_ms};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// std's own backlog of 128 makes bursts of connections wait for a second.
const BACKLOG: i32 = 4096;

/// A running server; dropping it stops it.
pub struct Server {
    shared: Arc<Shared>,
    control: SocketAddr,
    listeners: Vec<JoinHandle<()>>,
}

/// The answer to a sign-in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The token endpoint's answer, a refresh token included.
    pub json: String,
    /// Its access token.
    pub access_token: String,
    /// Its refresh token.
    pub refresh_token: String,
    /// The family that starts with it.
    pub family: u64,
}

impl Server {
    /// Starts a server on the loopback address.
    ///
    /// # Panics
    ///
    /// If a port cannot be had.
    pub fn start(options: Options) -> Self {
        Self::try_start(options).expect("a port for the test server")
    }

    /// The same, for callers that want to know why it failed.
    pub fn try_start(options: Options) -> io::Result<Self> {
        let listener = listen(options.port)?;
        let control_listener = listen(options.control_port)?;
        let (address, control) = (listener.local_addr()?, control_listener.local_addr()?);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(options, format!("http://{address}"))),
            gate: Mutex::default(),
            gate_moved: Condvar::new(),
            address,
            control,
        });
        let main = start(&shared, "listener", move |shared| accept(&shared, listener, exchange::serve));
        let side = start(&shared, "control", move |shared| accept(&shared, control_listener, control::serve));
        Ok(Self { shared, control, listeners: vec![main?, side?] })
    }

    /// `http://127.0.0.1:PORT`, to which a path prefix may be added.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// The token endpoint's URL without a prefix.
    pub fn token_endpoint(&self) -> String {
        let path = if self.shared.state().options.is_salesforce() { "/services/oauth2/token" } else { "/token" };
        self.url() + path
    }

    /// The base of the control endpoints, on a port of its own that no fault touches: `http://127.0.0.1:PORT/control`.
    pub fn control_url(&self) -> String {
        format!("http://{}/control", self.control)
    }

    /// Signs a user in without a browser.
    ///
    /// # Panics
    ///
    /// If there is no such client.
    pub fn sign_in(&self, client_id: &str, user: &str, scope: &str) -> SignedIn {
        self.shared.sign_in(client_id, user, scope).expect("a registered client")
    }

    /// Arms a fault behind those that are armed already. A bare [`FaultKind`] strikes the next token request.
    pub fn fault(&self, fault: impl Into<Fault>) {
        self.shared.arm(fault.into());
    }

    /// Disarms all faults.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// Changes settings; ports and mode stay as they are.
    pub fn update(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.shared.state().options);
    }

    /// Registers a client, instead of one with the same id.
    pub fn add_client(&self, client: Client) {
        self.shared.add_client(client);
    }

    /// Every request so far (the last `log_limit`), in the order in which they were read.
    pub fn log(&self) -> Vec<Entry> {
        self.shared.state().log.iter().cloned().collect()
    }

    /// The token requests among them.
    pub fn token_requests(&self) -> Vec<Entry> {
        let mut log = self.log();
        log.retain(|entry| entry.endpoint == endpoints::Endpoint::Token);
        log
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.shared.state().stats.clone()
    }

    /// Every sign-in with all of its tokens.
    pub fn families(&self) -> Vec<FamilyView> {
        self.shared.state().authority.view(now_ms())
    }

    /// How often a refresh token was presented in a request that was read, whatever became of it.
    pub fn presentations(&self, refresh_token: &str) -> u32 {
        self.shared.state().authority.presentations(refresh_token)
    }

    /// Whether a token, of either kind, would be accepted now.
    pub fn is_live(&self, token: &str) -> bool {
        self.shared.state().authority.live(now_ms(), token).is_some()
    }

    /// Ends one access token.
    pub fn expire_access_token(&self, access_token: &str) -> bool {
        self.shared.state().authority.expire_access_token(access_token)
    }

    /// Ends all access tokens, or those of one user; refresh tokens stay good.
    pub fn expire_access_tokens(&self, user: Option<&str>) -> usize {
        self.shared.state().authority.expire_access_tokens(now_ms(), user)
    }

    /// As an administrator would: an access token alone, a refresh token with its family.
    pub fn revoke(&self, token: &str) -> bool {
        self.shared.state().authority.revoke(now_ms(), token)
    }

    /// Deactivates or reactivates a user.
    pub fn set_user_active(&self, user: &str, active: bool) {
        self.shared.state().authority.set_user_active(user, active);
    }

    /// Closes the listener for so long; returns once connections are refused.
    pub fn refuse_connections(&self, duration: Duration) {
        self.shared.refuse_connections(duration);
    }

    /// Closes all open client connections, by FIN or by RST.
    pub fn close_connections(&self, by_reset: bool) -> usize {
        self.shared.close_connections(by_reset)
    }

    /// Forgets all tokens, requests, counters and faults, and goes back to the options of the start.
    pub fn reset(&self) {
        self.shared.state().reset();
    }

    /// Waits until something stops the server.
    pub fn wait(&self) {
        let gate = self.shared.gate();
        drop(self.shared.gate_moved.wait_while(gate, |gate| !gate.stopped).unwrap_or_else(PoisonError::into_inner));
    }

    /// A handle that can stop the server from another thread.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let shared = self.shared.clone();
        move || shared.stop()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop();
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
        // Threads with a ghost or a pause notice the stop; give them a moment, so that nothing happens after this.
        let gate = self.shared.gate();
        let open = |gate: &mut Gate| !gate.connections.is_empty();
        drop(self.shared.gate_moved.wait_timeout_while(gate, Duration::from_secs(2), open));
    }
}

/// What all threads share.
pub(crate) struct Shared {
    state: Mutex<State>,
    gate: Mutex<Gate>,
    gate_moved: Condvar,
    address: SocketAddr,
    control: SocketAddr,
}

/// Who may come in and who is in.
#[derive(Default)]
struct Gate {
    stopped: bool,
    refuse_until: Option<Instant>,
    /// The listener is in fact closed.
    refusing: bool,
    connections: HashMap<u64, (Door, TcpStream)>,
    last_connection: u64,
}

/// Which listener a connection came through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Front,
    Control,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, but not beyond the server's end.
    pub(crate) fn pause(&self, ms: u64) {
        if ms > 0 {
            let (gate, time) = (self.gate(), Duration::from_millis(ms));
            drop(self.gate_moved.wait_timeout_while(gate, time, |gate| !gate.stopped));
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.gate().stopped
    }

    pub(crate) fn sign_in(&self, client_id: &str, user: &str, scope: &str) -> Option<SignedIn> {
        let mut state = self.state();
        let State { options, authority, url, .. } = &mut *state;
        let client = options.client(client_id)?;
        let now = now_ms();
        let grant = authority.sign_in(options, now, client_id, user, scope);
        let prefix = options.prefixes.as_ref().and_then(|all| all.first()).map_or("", String::as_str);
        let answer = endpoints::token_answer(options, url, prefix, Some(client), &grant, now);
        Some(SignedIn {
            json: answer,
            access_token: grant.access_token.to_string(),
            refresh_token: grant.refresh_token.as_deref().unwrap_or_default().into(),
            family: grant.family,
        })
    }

    pub(crate) fn arm(&self, fault: Fault) {
        match fault.kind {
            FaultKind::RefuseConnections { ms } => self.refuse_connections(Duration::from_millis(ms)),
            _ => self.state().faults.arm(fault),
        }
    }

    pub(crate) fn add_client(&self, client: Client) {
        let mut state = self.state();
        state.options.clients.retain(|known| known.id != client.id);
        state.options.clients.push(client);
    }

    fn refuse_connections(&self, duration: Duration) {
        let mut gate = self.gate();
        gate.refuse_until = Some(Instant::now() + duration);
        self.gate_moved.notify_all();
        if gate.refusing {
            return;
        }
        drop(gate);
        let _ = TcpStream::connect(self.address); // wakes the listener's thread
        let gate = self.gate();
        let pending = |gate: &mut Gate| !gate.refusing && gate.refuse_until.is_some() && !gate.stopped;
        drop(self.gate_moved.wait_while(gate, pending));
    }

    pub(crate) fn close_connections(&self, by_reset: bool) -> usize {
        let gate = self.gate();
        let front = gate.connections.values().filter(|(door, _)| *door == Door::Front);
        front
            .map(|(_, stream)| {
                if by_reset {
                    reset_on_close(stream);
                }
                // With SO_LINGER set, the thread that reads here closes with RST.
                let _ = stream.shutdown(if by_reset { Shutdown::Read } else { Shutdown::Both });
            })
            .count()
    }

    pub(crate) fn stop(&self) {
        let mut gate = self.gate();
        gate.stopped = true;
        for (_, stream) in gate.connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(gate);
        self.gate_moved.notify_all();
        for address in [self.address, self.control] {
            let _ = TcpStream::connect(address); // wakes the listener's thread
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn start(
    shared: &Arc<Shared>,
    name: &str,
    run: impl FnOnce(Arc<Shared>) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let shared = shared.clone();
    thread::Builder::new().name(name.into()).stack_size(512 * 1024).spawn(move || run(shared))
}

/// Takes connections until the server stops; a thread for each.
fn accept(shared: &Arc<Shared>, mut listener: TcpListener, serve: fn(&Shared, &mut Connection)) {
    let address = listener.local_addr().unwrap_or(shared.address);
    let door = if address == shared.address { Door::Front } else { Door::Control };
    loop {
        let accepted = listener.accept();
        let mut gate = shared.gate();
        if gate.stopped {
            return;
        }
        if door == Door::Front && gate.refuse_until.is_some() {
            drop((accepted, listener));
            gate.refusing = true;
            shared.gate_moved.notify_all();
            match reopen(shared, gate, address) {
                Some(reopened) => listener = reopened,
                None => return,
            }
            continue;
        }
        let Ok((stream, _)) = accepted else { continue };
        let Ok(second) = stream.try_clone() else { continue };
        gate.last_connection += 1;
        let number = gate.last_connection;
        gate.connections.insert(number, (door, second));
        drop(gate);
        // Before its thread runs: who asks after a later connection must not find this one unopened.
        count_open(shared, door, 1);
        let started = start(shared, "connection", move |shared| converse(&shared, door, number, stream, serve));
        if started.is_err() {
            shared.gate().connections.remove(&number);
            count_open(shared, door, -1);
        }
    }
}

fn count_open(shared: &Shared, door: Door, change: i64) {
    if door == Door::Front {
        let stats = &mut shared.state().stats;
        stats.connections += u64::from(change > 0);
        stats.connections_open = stats.connections_open.saturating_add_signed(change);
    }
}

fn converse(shared: &Shared, door: Door, number: u64, stream: TcpStream, serve: fn(&Shared, &mut Connection)) {
    let idle = shared.state().options.idle_timeout_ms.map(Duration::from_millis).filter(|_| door == Door::Front);
    let connection = Connection::new(number, stream, idle);
    if let Ok(mut connection) = connection {
        serve(shared, &mut connection);
        // The second handle goes first: the socket closes, or resets, with the last one.
        let second = shared.gate().connections.remove(&number);
        drop(second);
        drop(connection);
    } else {
        shared.gate().connections.remove(&number);
    }
    count_open(shared, door, -1);
    shared.gate_moved.notify_all();
}

/// Waits until connections are to be taken again and gets the port back. None: the server stops.
fn reopen(shared: &Shared, mut gate: MutexGuard<Gate>, address: SocketAddr) -> Option<TcpListener> {
    loop {
        if gate.stopped {
            return None;
        }
        let left = gate.refuse_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        if !left.is_zero() {
            gate = shared.gate_moved.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        if let Ok(listener) = listen(address.port()) {
            gate.refuse_until = None;
            gate.refusing = false;
            return Some(listener);
        }
        let retry = Duration::from_millis(5);
        gate = shared.gate_moved.wait_timeout(gate, retry).unwrap_or_else(PoisonError::into_inner).0;
    }
}

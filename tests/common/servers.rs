//! Servers of shared stores, from Debian's packages (tests/setup.sh), each with its own directory and ports, gone when
//! it is dropped or when this process ends; and a proxy that plays a bad network between.
#![allow(dead_code)] // Every test program uses a part of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[path = "redis_server.rs"]
mod redis_server;
#[allow(unused_imports)] // As above.
pub use redis_server::{Redis, SAFE};

/// The password of the user "postgres"; it must be percent-encoded in a URL, and must not be in any error.
pub const PASSWORD: &str = "canary/pass?wörd@";
const ENCODED: &str = "canary%2Fpass%3Fw%C3%B6rd%40";

/// For everything that must happen.
const LIMIT: Duration = Duration::from_secs(60);

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until it is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A command that runs as `user`, since servers refuse root, and ends with the thread that starts it.
fn unprivileged(program: &Path, user: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=INT");
    if rustix::process::getuid().is_root() {
        command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
    }
    command.arg("--").arg(program).stdin(Stdio::null());
    command
}

/// Starts a server from a thread that lives as long as this process.
fn start(mut command: Command) -> Child {
    let (send, receive) = std::sync::mpsc::channel();
    thread::spawn(move || {
        send.send(command.spawn().expect("it is installed: tests/setup.sh")).unwrap();
        loop {
            thread::park();
        }
    });
    receive.recv().unwrap()
}

fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A directory that this user of the system may write.
fn directory_of(user: &str) -> TempDir {
    let directory = tempfile::Builder::new().prefix("evergrant-server").tempdir().unwrap();
    if rustix::process::getuid().is_root() {
        let mut chown = Command::new("chown");
        chown.arg(user).arg(directory.path());
        run(chown);
    }
    directory
}

fn postgres_program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("it is installed: tests/setup.sh");
    let mut versions: Vec<_> = versions.flatten().map(|entry| entry.path().join("bin").join(name)).collect();
    versions.sort();
    versions.pop().unwrap_or_else(|| name.into())
}

/// A PostgreSQL server with durable writes.
pub struct Postgres {
    pub port: u16,
    directory: TempDir,
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    pub fn start() -> Self {
        let directory = directory_of("postgres");
        let password = directory.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        let mut initdb = unprivileged(&postgres_program("initdb"), "postgres");
        initdb.args(["-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        initdb.arg("-D").arg(directory.path().join("data")).arg("--pwfile").arg(password);
        run(initdb);
        let server = Self { port: free_port(), directory, server: Mutex::new(None), databases: AtomicU32::new(0) };
        server.resume(&[]);
        server
    }

    /// One for all tests of this process that only need a database of their own.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    /// Starts it again after [`Postgres::stop`], with more settings ("name=value").
    pub fn resume(&self, settings: &[&str]) {
        let mut command = unprivileged(&postgres_program("postgres"), "postgres");
        command.arg("-D").arg(self.data());
        let (port, sockets) = (format!("port={}", self.port), format!("unix_socket_directories={}", self.sockets()));
        for setting in [&*port, &*sockets, "listen_addresses=127.0.0.1", "max_connections=200"].iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        *self.server.lock().unwrap() = Some(start(command));
        wait_until("PostgreSQL", || self.psql("postgres", "SELECT 1").is_ok());
    }

    /// `Signal::INT` is "fast", `Signal::QUIT` is "immediate".
    pub fn stop(&self, signal: Signal) {
        if let Some(mut server) = self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            let _ = kill_process(Pid::from_child(&server), signal);
            let _ = server.wait();
        }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn sockets(&self) -> String {
        self.directory.path().display().to_string()
    }

    /// Puts a file where the server can read it, for nobody else.
    pub fn add_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        let mut owned = Command::new("chmod");
        owned.arg("0600").arg(&path);
        run(owned);
        if rustix::process::getuid().is_root() {
            let mut chown = Command::new("chown");
            chown.arg("postgres").arg(&path);
            run(chown);
        }
        path
    }

    /// Runs SQL as the superuser; what it prints.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = Command::new(postgres_program("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"])
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// A new database.
    pub fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}")).unwrap();
        name
    }

    /// Ends all connections to a database, as its administrator can.
    pub fn end_connections(&self, database: &str) {
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
        self.psql("postgres", &end).unwrap();
    }

    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop(Signal::QUIT);
    }
}

/// The superuser's URL of a database behind this port.
pub fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres:{ENCODED}@127.0.0.1:{port}/{database}")
}

/// PgBouncer in transaction mode before a server: every statement may get another of its two connections.
pub struct PgBouncer {
    pub port: u16,
    _directory: TempDir,
    server: Child,
}

impl PgBouncer {
    pub fn before(postgres: &Postgres) -> Self {
        let directory = directory_of("postgres");
        let path = |name: &str| directory.path().join(name);
        let port = free_port();
        fs::write(path("users"), format!("\"postgres\" \"{PASSWORD}\"\n")).unwrap();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 2\nserver_round_robin = 1\nlogfile = {}\n",
            postgres.port,
            path("users").display(),
            path("log").display(),
        );
        fs::write(path("ini"), settings).unwrap();
        let mut command = unprivileged(Path::new("/usr/sbin/pgbouncer"), "postgres");
        command.arg("-q").arg(path("ini"));
        let server = start(command);
        wait_until("PgBouncer", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, _directory: directory, server }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// For TLS.
pub struct Certificates {
    /// The root's.
    pub file: tempfile::NamedTempFile,
    pub server: String,
    pub server_key: String,
}

/// A root, and a server "localhost".
pub fn certificates() -> Certificates {
    let directory = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
    openssl(&format!("{new} -subj /CN=root -keyout ca.key -out ca.crt"));
    openssl(&format!(
        "{new} -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
         -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt"
    ));
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), read("ca.crt")).unwrap();
    Certificates { file, server: read("server.crt"), server_key: read("server.key") }
}

const PASS: u8 = 0;
const LOSE_REPLY: u8 = 1;
const LOSE_COMMIT: u8 = 4;
const SILENT: u8 = 2;
const REFUSE: u8 = 3;

/// A network between a client and a server on this machine.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    mode: AtomicU8,
    stopped: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    connections: AtomicU32,
}

impl Proxy {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(PASS),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
            connections: AtomicU32::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                if accepting.mode.load(Ordering::SeqCst) == REFUSE {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let mut open = accepting.open.lock().unwrap();
                open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                drop(open);
                let (back, forth) = (Arc::clone(&accepting), Arc::clone(&accepting));
                let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || forth.carry(client, server, false));
                thread::spawn(move || back.carry(server2, client2, true));
            }
        });
        Self { port, shared }
    }

    /// The server's next words are lost, and with them the connection.
    pub fn lose_next_reply(&self) {
        self.shared.mode.store(LOSE_REPLY, Ordering::SeqCst);
    }

    /// The answer to the next statement that writes a row is lost, and with it the connection.
    pub fn lose_next_commit(&self) {
        self.shared.mode.store(LOSE_COMMIT, Ordering::SeqCst);
    }

    /// Nothing arrives any more, and nobody is told.
    pub fn fall_silent(&self) {
        self.shared.mode.store(SILENT, Ordering::SeqCst);
    }

    /// Breaks all connections, and lets new ones be closed at once.
    pub fn refuse(&self) {
        self.shared.mode.store(REFUSE, Ordering::SeqCst);
        self.cut();
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.shared.mode.store(PASS, Ordering::SeqCst);
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many there have been.
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, is_reply: bool) {
        let mut buffer = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let is_commit = [&b"UPDATE 1"[..], b"INSERT 0 1"]
                .iter()
                .any(|tag| buffer[..length].windows(tag.len()).any(|part| part == *tag))
                || buffer[..length].starts_with(b":1\r\n");
            let now_lost = |mode| self.mode.compare_exchange(mode, PASS, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if is_reply && (now_lost(LOSE_REPLY) || is_commit && now_lost(LOSE_COMMIT)) {
                break;
            }
            if self.mode.load(Ordering::SeqCst) == SILENT {
                continue;
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.cut();
    }
}

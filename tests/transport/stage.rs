//! What stands between a client and the test server: TLS (socat, OpenSSL) and proxies, from Debian's packages.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use evergrant_test_server::{GraceKind, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use crate::common::authority::{ANYBODY, Authority, MEMBERS, Program};
use crate::common::servers::{free_port, wait_until};
use crate::common::{Party, SESSION, Scene, grace, lay_over};

/// In the URL of a proxy it must be percent-encoded; it must not be in any error.
pub const PASSWORD: &str = "canary-word";
pub const ENCODED: &str = "canary%2Dword";

/// The usual scene, and TLS before its server.
pub struct Secured {
    pub scene: Scene,
    pub authority: Authority,
    pub host: &'static str,
    pub port: u16,
    _front: Program,
}

impl Secured {
    pub fn new() -> Self {
        Self::with("127.0.0.1", grace(GraceKind::SiblingsAll), ANYBODY)
    }

    /// `verify`: as for [`Authority::front`].
    pub fn with(host: &'static str, options: Options, verify: &str) -> Self {
        let (scene, authority) = (Scene::new(options), Authority::new());
        let (front, port) = authority.front(host, port_of(&scene), verify);
        Self { scene, authority, host, port, _front: front }
    }

    /// With the root of its authority, and `more`.
    pub fn config(&self, more: Value) -> Value {
        let endpoint = format!("https://{}:{}/token", self.host, self.port);
        let usual = json!({
            "token_endpoint": endpoint,
            "revocation_endpoint": null,
            "ca_file": self.authority.path("ca.crt"),
            "namespace": "transport",
            "max_wait_ms": 30_000,
        });
        self.scene.config(lay_over(usual, more))
    }

    /// Asks for a first token; what is wrong if there is none.
    pub fn renewal(&self, more: Value) -> Result<(), evergrant::Error> {
        let config = lay_over(self.config(more), json!({"store": "memory:"}));
        let client = evergrant::Client::open(&config.to_string()).unwrap();
        self.scene.saved(&client, SESSION);
        client.access_token(SESSION, None).map(|_| ())
    }

    /// What is wrong, where nothing was sent.
    #[track_caller]
    pub fn not_sent(&self, more: Value) -> String {
        let before = self.scene.requests();
        let error = self.renewal(more).expect_err("nothing is sent");
        assert_eq!((error.status, error.outcome), (evergrant::Status::Unavailable, Some("not_sent")), "{error}");
        assert_eq!(self.scene.requests(), before, "{error}");
        assert!(!error.message.contains("canary"), "{error}");
        error.message.clone()
    }

    #[track_caller]
    pub fn renews(&self, more: Value) {
        let before = self.scene.requests();
        self.renewal(more).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(self.scene.requests(), before + 1);
    }

    /// The same in another process, under `wrapper`.
    pub fn party(&self, wrapper: &[&str], more: Value) -> Party {
        let mut party = Party::start_under(wrapper);
        party.ask(json!({"do": "open", "config": lay_over(self.config(more), json!({"store": "memory:"}))})).unwrap();
        let refresh_token = self.scene.sign_in().refresh_token;
        let token = json!({"refresh_token": refresh_token});
        party.ask(json!({"do": "save", "session": SESSION, "token": token})).unwrap();
        party
    }
}

pub fn port_of(scene: &Scene) -> u16 {
    scene.server.url().rsplit(':').next().unwrap().parse().unwrap()
}

/// tinyproxy. `more`: lines of its configuration.
pub struct TinyProxy {
    pub port: u16,
    directory: TempDir,
    program: Option<Program>,
}

impl TinyProxy {
    pub fn start(more: &str) -> Self {
        let mut proxy = Self { port: free_port(), directory: tempfile::tempdir().unwrap(), program: None };
        let settings = format!("Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\n{more}\n", proxy.port);
        fs::write(proxy.directory.path().join("conf"), settings).unwrap();
        proxy.resume();
        proxy
    }

    pub fn resume(&mut self) {
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(self.directory.path().join("conf"));
        self.program = Some(Program::listening(&mut command, &format!("127.0.0.1:{}", self.port)));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.program = None;
    }
}

/// microsocks, whose user has [`PASSWORD`] if it has one.
pub fn socks(user: Option<&str>) -> (Program, u16) {
    let port = free_port();
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
    if let Some(user) = user {
        command.args(["-u", user, "-P", PASSWORD]);
    }
    (Program::listening(&mut command, &format!("127.0.0.1:{port}")), port)
}

/// An address whose host never answers, until this is dropped.
pub struct Dead {
    _program: Program,
    _waiting: Vec<TcpStream>,
}

impl Dead {
    /// A server that accepts nobody: the kernel takes as many connections as have room, and ignores all others.
    pub fn at(address: SocketAddr) -> Self {
        let listen = format!("TCP4-LISTEN:{},bind={},backlog=0,fork,max-children=1", address.port(), address.ip());
        let program = Program::start(Command::new("socat").args([&listen, "PIPE"]));
        let mut waiting = Vec::new();
        wait_until("a host that does not answer", || {
            match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                Ok(stream) => waiting.push(stream),
                Err(error) => return error.kind() == std::io::ErrorKind::TimedOut,
            }
            false
        });
        Self { _program: program, _waiting: waiting }
    }
}

/// A shell's words that have this name mean these addresses to the command behind them.
pub fn with_hosts(directory: &Path, lines: &str) -> Vec<String> {
    let hosts = directory.join("hosts");
    fs::write(&hosts, lines).unwrap();
    let script = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
    ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned).to_vec()
}

/// All that a program prints.
pub fn output_of(words: &[&str]) -> String {
    let mut child = Command::new(words[0]).args(&words[1..]).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{words:?}: run it as root");
    text
}

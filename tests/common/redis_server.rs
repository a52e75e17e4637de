//! A Redis server with a directory and a port of its own.

use super::*;

const ENCODED_PASSWORD: &str = ENCODED;

/// A Redis server that syncs every write to its disk.
pub struct Redis {
    pub port: u16,
    directory: TempDir,
    server: Mutex<Option<Child>>,
}

/// What a test would otherwise be warned of.
pub const SAFE: [&str; 2] = ["appendonly=yes", "appendfsync=always"];

impl Redis {
    pub fn start() -> Self {
        Self::with(&SAFE)
    }

    /// With these settings ("name=value").
    pub fn with(settings: &[&str]) -> Self {
        let redis = Self { port: free_port(), directory: directory_of("redis"), server: Mutex::new(None) };
        redis.resume(settings);
        redis
    }

    /// A replica of `master` that has caught up.
    pub fn replica_of(master: &Self) -> Self {
        let of = format!("replicaof=127.0.0.1 {}", master.port);
        let replica = Self::with(&[&SAFE[..], &[&of, "repl-diskless-sync-delay=0"]].concat());
        wait_until("the replica", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
        // The master notices later, and does not wait for it before.
        wait_until("the master", || {
            let followers = master.cli(&["INFO", "replication"]);
            followers
                .lines()
                .any(|line| line.contains(&format!("port={}", replica.port)) && line.contains("state=online"))
        });
        replica
    }

    /// Starts it again after [`Redis::stop`], on the same files.
    pub fn resume(&self, settings: &[&str]) {
        let mut command = unprivileged(Path::new("redis-server"), "redis");
        let port = format!("port={}", self.port);
        let directory = format!("dir={}", self.directory.path().display());
        let (password, master) = (format!("requirepass={PASSWORD}"), format!("masterauth={PASSWORD}"));
        let usual =
            [&*port, &*directory, &*password, &*master, "bind=127.0.0.1", "save=", "repl-diskless-sync-delay=0"];
        for setting in usual.iter().chain(settings) {
            let (name, value) = setting.split_once('=').unwrap();
            command.arg(format!("--{name}")).args(value.split(' '));
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        *self.server.lock().unwrap() = Some(super::start(command));
        wait_until("Redis", || self.cli(&["PING"]) == "PONG");
    }

    /// Ends it: SIGTERM is a shutdown, SIGKILL a crash.
    pub fn stop(&self, signal: Signal) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            kill_process(Pid::from_child(&server), signal).unwrap();
            server.wait().unwrap();
        }
    }

    /// SIGSTOP and SIGCONT.
    pub fn signal(&self, signal: Signal) {
        let server = self.server.lock().unwrap();
        let pid = Pid::from_child(server.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
        if signal == Signal::STOP {
            let state = || fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
            wait_until("the stop", || state().rsplit(')').next().unwrap().starts_with(" T"));
        }
    }

    /// Writes a file that the server may read.
    pub fn add_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A command as the default user; what the server says.
    pub fn cli(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(words)
            .env("REDISCLI_AUTH", PASSWORD)
            .output()
            .expect("it is installed: tests/setup.sh");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn url(&self) -> String {
        Self::url_of(&[self.port])
    }

    /// The URL of these ports, in this order.
    pub fn url_of(ports: &[u16]) -> String {
        let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis://:{ENCODED_PASSWORD}@{}/0", hosts.join(","))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop(Signal::KILL);
    }
}

//! Certificates, and TLS before a server that has none: OpenSSL and socat, from Debian's packages.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::servers::{free_port, wait_until};

/// Whom a server lets in: socat's option. [`MEMBERS`] need a client certificate of its authority.
pub const ANYBODY: &str = "verify=0";
pub const MEMBERS: &str = "verify=1";

/// A program that ends when this is dropped.
pub struct Program(Child);

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().expect("it is installed: tests/setup.sh"))
    }

    /// One that listens there.
    pub fn listening(command: &mut Command, address: &str) -> Self {
        let program = Self::start(command);
        wait_until("a listening port", || TcpStream::connect(address).is_ok());
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate authority, and what it has signed: `NAME.crt`, `NAME.key`, and both in `NAME.pem`.
pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl("-subj /CN=root -keyout ca.key -out ca.crt");
        let names = "subjectAltName=DNS:localhost,DNS:two.test,IP:127.0.0.1,IP:::1";
        authority.sign("server", &format!("-subj /CN=server -addext {names}"));
        authority.sign("client", "-subj /CN=client");
        authority
    }

    fn sign(&self, name: &str, more: &str) {
        let leaf = "-addext basicConstraints=critical,CA:FALSE -CA ca.crt -CAkey ca.key";
        self.openssl(&format!("{more} {leaf} -keyout {name}.key -out {name}.crt"));
        let both = ["crt", "key"].map(|kind| fs::read_to_string(self.path(&format!("{name}.{kind}"))).unwrap());
        fs::write(self.path(&format!("{name}.pem")), both.concat()).unwrap();
    }

    fn openssl(&self, arguments: &str) {
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
        let arguments = format!("{new} {arguments}");
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// TLS on `host`, in clear to this port. `verify`, and more: options of socat's OPENSSL-LISTEN.
    pub fn front(&self, host: &str, to: u16, verify: &str) -> (Program, u16) {
        let port = free_port();
        let family = if host.starts_with('[') { "pf=ip6" } else { "pf=ip4" };
        let (pem, root) = (self.path("server.pem"), self.path("ca.crt"));
        let listen = format!(
            "OPENSSL-LISTEN:{port},bind={host},{family},reuseaddr,fork,cert={},cafile={},{verify}",
            pem.display(),
            root.display(),
        );
        let mut socat = Command::new("socat");
        socat.args([listen, format!("TCP4:127.0.0.1:{to}")]);
        (Program::listening(&mut socat, &format!("{host}:{port}")), port)
    }
}

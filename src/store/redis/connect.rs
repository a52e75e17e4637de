//! One connection: the driver, run on the thread of whoever uses it, and only then.

use std::collections::HashMap;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use redis::aio::{AsyncStream, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisResult, Value, cmd};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant as TokioInstant, timeout_at};
use tokio_rustls::TlsConnector;

use super::safety;
use super::trouble::Failed;
use super::url::{self, Server};
use crate::process::lock;
use crate::process::workers::Workers;
use crate::store::Warning;
use crate::store::pool::{Connect, Trouble, within};
use crate::tls;

/// How long a write waits for one replica to have it.
const REPLICA: Duration = Duration::from_secs(1);

/// What all connections of one store share.
pub struct Common {
    pub server: Server,
    tls: OnceLock<Arc<ClientConfig>>,
    resolving: Arc<Workers>,
    warnings: Mutex<Vec<Warning>>,
}

impl Common {
    pub fn new(server: Server) -> Arc<Self> {
        Arc::new(Self { server, tls: OnceLock::new(), resolving: Arc::default(), warnings: Mutex::default() })
    }

    pub fn warnings(&self, told: usize) -> Vec<Warning> {
        lock(&self.warnings).get(told..).unwrap_or_default().to_vec()
    }

    fn warn(&self, message: String) {
        let warning = Warning { reason: "store_not_durable", message };
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Reads certificates when the first connection is made.
    fn tls(&self) -> Result<Option<TlsConnector>, Failed> {
        let Some(roots) = &self.server.tls else { return Ok(None) };
        if self.tls.get().is_none() {
            let verifier = roots.verifier("ssl_ca_certs")?;
            let config = ClientConfig::builder_with_provider(Arc::clone(tls::provider()))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            _ = self.tls.set(Arc::new(config));
        }
        Ok(self.tls.get().map(|config| TlsConnector::from(Arc::clone(config))))
    }
}

/// Makes connections to one server, or to whichever of several is the master.
pub struct Connector {
    common: Arc<Common>,
    hosts: Vec<(String, u16)>,
    name: String,
    /// Its warnings have been told.
    examined: AtomicBool,
}

impl Connector {
    pub fn new(common: &Arc<Common>, hosts: Vec<(String, u16)>) -> Self {
        let name = url::name(&hosts, common.server.database);
        Self { common: Arc::clone(common), hosts, name, examined: AtomicBool::new(false) }
    }

    /// Every address of every host, in the order in which to try them.
    fn addresses(&self, until: Instant) -> Result<Vec<(&str, SocketAddr)>, Trouble> {
        let mut found = Vec::new();
        let mut unknown = None;
        for (name, port) in &self.hosts {
            if let Ok(address) = name.parse() {
                found.push((&**name, SocketAddr::new(address, *port)));
                continue;
            }
            let target = (name.clone(), *port);
            match within(&self.common.resolving, until, move || target.to_socket_addrs().map(Vec::from_iter)) {
                Some(Ok(addresses)) => found.extend(addresses.into_iter().map(|address| (&**name, address))),
                Some(Err(error)) => unknown = Some(format!("the host name {name} cannot be resolved: {error}")),
                None => unknown = Some(format!("the host name {name} was not resolved in time")),
            }
        }
        match unknown {
            Some(why) if found.is_empty() => Err(Trouble::Away(why)),
            _ => Ok(found),
        }
    }

    fn connect_to(&self, (host, address): (&str, SocketAddr), until: Instant) -> Result<Connection, Failed> {
        let tls = self.common.tls()?;
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let client = block_on(&runtime, until, async {
            let plain = TcpStream::connect(address).await?;
            plain.set_nodelay(true)?;
            let stream: Pin<Box<dyn AsyncStream + Send>> = match tls {
                None => Box::pin(plain),
                Some(tls) => {
                    let name = ServerName::try_from(host.to_owned())
                        .map_err(|_| rustls::Error::General(format!("{host} cannot be in a certificate")))?;
                    Box::pin(tls.connect(name, plain).await?)
                }
            };
            // The limits of time are ours. What the connection needs to be told is told below, to see what fails.
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let info = RedisConnectionInfo::default().set_skip_set_lib_name();
            let (client, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
            // Driven whenever this runtime is; its end is seen in what the client says.
            tokio::spawn(driver);
            Ok(client)
        })?;
        let mut connection = Connection { client, runtime: Some(runtime) };
        self.log_in(&mut connection, until)?;
        Ok(connection)
    }

    fn log_in(&self, connection: &mut Connection, until: Instant) -> Result<(), Failed> {
        let Server { user, password, database, .. } = &self.common.server;
        if let Some(password) = password {
            let mut auth = cmd("AUTH");
            auth.arg(user.as_deref()).arg(password.expose());
            connection.query(until, &auth).map_err(Failed::at_log_in)?;
        }
        if *database != 0 {
            connection.query(until, cmd("SELECT").arg(*database)).map_err(Failed::at_select)?;
        }
        self.examine(connection, until)
    }

    /// A replica is not what is meant; and what the server's settings may cost is told, once.
    fn examine(&self, connection: &mut Connection, until: Instant) -> Result<(), Failed> {
        let info = match connection.query(until, &cmd("INFO")) {
            Ok(value) => Info::of(&value),
            Err(failed) if failed.is_forbidden() => Info::default(),
            Err(failed) => return Err(failed),
        };
        let is_cluster = info.get("cluster_enabled") == Some("1");
        if info.get("role") == Some("slave") && !is_cluster {
            return Err(Failed::is_replica());
        }
        if !self.examined.swap(true, Ordering::AcqRel) {
            let mut settings = redis::pipe();
            settings.ignore_errors().cmd("CONFIG").arg("GET").arg("appendfsync");
            settings.cmd("CONFIG").arg("GET").arg("save");
            let mut answers = connection.pipeline(until, &settings)?.into_iter();
            let mut setting = || match answers.next() {
                Some(Ok(Value::Array(pair))) => pair.get(1).and_then(text),
                _ => None,
            };
            let (fsync, save) = (setting(), setting());
            for risk in safety::risks(&info, fsync.as_deref(), save.as_deref()) {
                self.common.warn(format!("{} {risk}", self.name));
            }
        }
        Ok(())
    }

    /// After a write, whose answer was followed by `replication`: waits until a replica has it too, if there is one.
    /// An error if this server is gone before: a replica that takes its place may have the write, or not.
    pub fn replicate(&self, connection: &mut Connection, replication: RedisResult<Value>) -> Result<(), Failed> {
        if !replication.is_ok_and(|value| Info::of(&value).has_replica()) {
            return Ok(());
        }
        let mut wait = cmd("WAIT");
        wait.arg(1).arg(REPLICA.as_millis() as u64);
        match connection.query(Instant::now() + REPLICA * 2, &wait).map_err(Failed::trouble) {
            // The last: this user may not wait, or the server knows no such command.
            Ok(Value::Int(1..)) | Err(Trouble::Refused(_)) => Ok(()),
            Ok(_) => {
                self.common.warn(format!(
                    "{} has replicas, but none has confirmed a write in {} s: if one of them takes over now, the last \
                     renewals may be lost, and users have to sign in again.",
                    self.name,
                    REPLICA.as_secs()
                ));
                Ok(())
            }
            Err(gone) => Err(Failed::Ours(gone)),
        }
    }
}

impl Connect for Connector {
    type Connection = Connection;

    fn connect(&self, until: Instant) -> Result<Connection, Trouble> {
        let addresses = self.addresses(until)?;
        let mut last = Failed::Late;
        for (at, address) in addresses.iter().enumerate() {
            // A host that is silent must leave time for the others.
            let left = until.saturating_duration_since(Instant::now());
            let share = Instant::now() + left / (addresses.len() - at) as u32;
            match self.connect_to(*address, share) {
                Ok(connection) => return Ok(connection),
                Err(failed) => last = failed,
            }
        }
        Err(last.at_connect())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A connection, with all that drives it.
pub struct Connection {
    client: MultiplexedConnection,
    runtime: Option<Runtime>,
}

impl Connection {
    pub fn query(&mut self, until: Instant, command: &Cmd) -> Result<Value, Failed> {
        let Some(runtime) = &self.runtime else { return Err(Failed::Late) };
        let client = &mut self.client;
        block_on(runtime, until, async { Ok(command.query_async(client).await?) })
    }

    /// Several commands at once, each with an answer of its own.
    pub fn pipeline(&mut self, until: Instant, commands: &Pipeline) -> Result<Vec<RedisResult<Value>>, Failed> {
        let Some(runtime) = &self.runtime else { return Err(Failed::Late) };
        let client = &mut self.client;
        block_on(runtime, until, async { Ok(commands.query_async(client).await?) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Without a wait, also where a runtime of the host's surrounds us.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn block_on<T>(runtime: &Runtime, until: Instant, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let limited = async { timeout_at(TokioInstant::from_std(until), work).await };
    runtime.block_on(limited).unwrap_or(Err(Failed::Late))
}

/// What a bulk string says.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// What INFO tells.
#[derive(Default)]
pub struct Info(HashMap<String, String>);

impl Info {
    pub fn of(value: &Value) -> Self {
        let text = text(value).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
    /// One that follows: one that is still being filled says nothing yet.
    fn has_replica(&self) -> bool {
        self.0.iter().any(|(name, value)| name.starts_with("slave") && value.contains("state=online"))
    }
}

//! One connection: a driver that runs on the thread of whoever uses it, and only then.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant as TokioInstant, timeout_at};
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};
use tokio_postgres::{AsyncMessage, Client, Config, Row};

use super::listen::NOTIFY;
use super::trouble::Failed;
use super::url::Server;
use super::{Parameter, schema, text, tls::Tls};
use crate::error::Result;
use crate::process::lock;
use crate::process::workers::Workers;
use crate::store::pool::{Connect, Trouble, within};
use crate::store::{Warning, seal};

/// One of a host's addresses, unless it is a socket in the file system; the host; the port.
type Address<'a> = (Option<IpAddr>, &'a Host, u16);

/// Called with the channel and the payload of each notification.
pub type Told = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Makes connections to one server, or to whichever of several can be written.
pub struct Connector {
    server: Server,
    tls: Tls,
    read_only: bool,
    /// The tables are there.
    prepared: AtomicBool,
    /// The server takes notifications.
    notifies: AtomicBool,
    warnings: Mutex<Vec<Warning>>,
    resolving: Arc<Workers>,
}

impl Connector {
    pub fn new(server: Server, read_only: bool) -> Result<Self> {
        Ok(Self {
            tls: Tls::new(server.mode, server.roots.clone()),
            server,
            read_only,
            prepared: AtomicBool::new(false),
            notifies: AtomicBool::new(false),
            warnings: Mutex::default(),
            resolving: Arc::default(),
        })
    }

    pub fn warnings(&self, told: usize) -> Vec<Warning> {
        lock(&self.warnings).get(told..).unwrap_or_default().to_vec()
    }

    /// Whether the server takes notifications.
    pub fn notifies(&self) -> bool {
        self.notifies.load(Ordering::Relaxed)
    }

    /// Every address of every host, in the order in which to try them.
    fn addresses(&self, until: Instant) -> std::result::Result<Vec<Address<'_>>, Trouble> {
        let mut found = Vec::new();
        let mut unknown = None;
        for (at, (host, port)) in self.server.hosts.iter().enumerate() {
            let explicit = self.server.config.get_hostaddrs().get(at).copied();
            let name = match host {
                Host::Tcp(name) => name,
                #[cfg(unix)]
                Host::Unix(_) => {
                    found.push((None, host, *port));
                    continue;
                }
            };
            if let Some(address) = explicit.or_else(|| name.parse().ok()) {
                found.push((Some(address), host, *port));
                continue;
            }
            let target = (name.clone(), *port);
            match within(&self.resolving, until, move || target.to_socket_addrs().map(Vec::from_iter)) {
                Some(Ok(addresses)) => {
                    found.extend(addresses.into_iter().map(|address| (Some(address.ip()), host, *port)));
                }
                Some(Err(error)) => unknown = Some(format!("the host name {name} cannot be resolved: {error}")),
                None => unknown = Some(format!("the host name {name} was not resolved in time")),
            }
        }
        if self.server.config.get_load_balance_hosts() == LoadBalanceHosts::Random && found.len() > 1 {
            let random: [u8; 1] = seal::random().unwrap_or_default();
            let first = usize::from(random[0]) % found.len();
            found.rotate_left(first);
        }
        match unknown {
            Some(why) if found.is_empty() => Err(Trouble::Away(why)),
            _ => Ok(found),
        }
    }

    fn connect_to(
        &self,
        (address, host, port): Address<'_>,
        until: Instant,
        told: Option<Told>,
    ) -> std::result::Result<Connection, Failed> {
        let mut config = one_host(&self.server.config);
        config.port(port);
        match host {
            Host::Tcp(name) => _ = config.host(name),
            #[cfg(unix)]
            Host::Unix(path) => _ = config.host_path(path).ssl_mode(SslMode::Disable),
        }
        config.hostaddr_if(address);
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime =
            runtime.map_err(|error| Failed::Ours(Trouble::Away(format!("no connection can be made: {error}"))))?;
        let client = block_on(&runtime, until, async {
            let (client, mut driver) = config.connect(&self.tls).await?;
            // Driven whenever this runtime is; its end is seen in what the client says.
            tokio::spawn(async move {
                while let Some(Ok(message)) = poll_fn(|context| driver.poll_message(context)).await {
                    if let (AsyncMessage::Notification(note), Some(told)) = (message, &told) {
                        told(note.channel(), note.payload());
                    }
                }
            });
            Ok(client)
        })?;
        Ok(Connection { client, runtime: Some(runtime) })
    }

    /// What holds for the server as long as it runs.
    fn examine(&self, connection: &mut Connection, until: Instant) -> std::result::Result<(), Failed> {
        if self.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        schema::prepare(connection, until, self.read_only)?;
        let rows = connection.query(until, "SELECT current_setting('fsync', true)", &[])?;
        let fsync: Option<String> = rows.first().and_then(|row| row.try_get(0).ok().flatten());
        if fsync.as_deref() == Some("off") {
            self.warn(
                "store_not_durable",
                format!(
                    "{} runs with fsync=off: if its machine crashes, it may lose the last renewals or all of it, and \
                     users have to sign in again. Set fsync = on.",
                    self.name()
                ),
            );
        }
        if !self.read_only {
            match connection.query(until, NOTIFY, &[text(&"")]) {
                Ok(_) => self.notifies.store(true, Ordering::Relaxed),
                Err(failed) if failed.is_said() => {}
                Err(failed) => return Err(failed),
            }
        }
        self.prepared.store(true, Ordering::Release);
        Ok(())
    }

    fn warn(&self, reason: &'static str, message: String) {
        let warning = Warning { reason, message };
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

impl Connector {
    /// A connection whose notifications `told` is called with, while it is driven.
    pub fn connect_told(&self, until: Instant, told: Option<Told>) -> std::result::Result<Connection, Trouble> {
        let addresses = self.addresses(until)?;
        let mut last = Failed::Late;
        for (at, address) in addresses.iter().enumerate() {
            // A host that is silent must leave time for the others.
            let left = until.saturating_duration_since(Instant::now());
            let share = Instant::now() + left / (addresses.len() - at) as u32;
            match self.connect_to(*address, share, told.clone()) {
                Ok(mut connection) => {
                    self.examine(&mut connection, until).map_err(Failed::at_connect)?;
                    return Ok(connection);
                }
                Err(failed) => last = failed,
            }
        }
        Err(last.at_connect())
    }
}

impl Connect for Connector {
    type Connection = Connection;

    fn connect(&self, until: Instant) -> std::result::Result<Connection, Trouble> {
        self.connect_told(until, None)
    }

    fn name(&self) -> &str {
        &self.server.name
    }
}

/// All but the hosts, of which the driver would take several.
fn one_host(whole: &Config) -> Config {
    let mut config = Config::new();
    config
        .ssl_mode(whole.get_ssl_mode())
        .ssl_negotiation(whole.get_ssl_negotiation())
        .target_session_attrs(whole.get_target_session_attrs())
        .channel_binding(whole.get_channel_binding())
        .keepalives(whole.get_keepalives())
        .keepalives_idle(whole.get_keepalives_idle());
    if let Some(user) = whole.get_user() {
        config.user(user);
    }
    if let Some(password) = whole.get_password() {
        config.password(password);
    }
    if let Some(database) = whole.get_dbname() {
        config.dbname(database);
    }
    if let Some(options) = whole.get_options() {
        config.options(options);
    }
    if let Some(name) = whole.get_application_name() {
        config.application_name(name);
    }
    if let Some(interval) = whole.get_keepalives_interval() {
        config.keepalives_interval(interval);
    }
    if let Some(retries) = whole.get_keepalives_retries() {
        config.keepalives_retries(retries);
    }
    if let Some(timeout) = whole.get_tcp_user_timeout() {
        config.tcp_user_timeout(*timeout);
    }
    config
}

trait HostaddrIf {
    fn hostaddr_if(&mut self, address: Option<IpAddr>);
}

impl HostaddrIf for Config {
    fn hostaddr_if(&mut self, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.hostaddr(address);
        }
    }
}

/// A connection, with all that drives it.
pub struct Connection {
    client: Client,
    runtime: Option<Runtime>,
}

impl Connection {
    pub fn query(
        &mut self,
        until: Instant,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> std::result::Result<Vec<Row>, Failed> {
        self.run(until, |client| client.query_typed(statement, parameters))
    }

    /// How many rows were written.
    pub fn execute(
        &mut self,
        until: Instant,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> std::result::Result<u64, Failed> {
        self.run(until, |client| client.execute_typed(statement, parameters))
    }

    /// The same, and without a wait for it the server is asked to tell others of it.
    pub fn execute_and_tell(
        &mut self,
        until: Instant,
        statement: &str,
        parameters: &[Parameter<'_>],
        payload: &str,
    ) -> std::result::Result<u64, Failed> {
        self.run(until, |client| async move {
            let payload = [text(&payload)];
            let mut write = pin!(client.execute_typed(statement, parameters));
            let mut notify = Some(Box::pin(client.execute_typed(NOTIFY, &payload)));
            poll_fn(|context| {
                let written = write.as_mut().poll(context);
                // Once is enough to send it, behind the other.
                if let Some(mut notify) = notify.take() {
                    _ = notify.as_mut().poll(context);
                }
                written
            })
            .await
        })
    }

    /// Lets what comes in be heard for so long. `false`: the connection has ended.
    pub fn drive(&mut self, time: Duration) -> bool {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(async { tokio::time::sleep(time).await });
        }
        !self.client.is_closed()
    }

    /// Several statements, in one transaction.
    pub fn batch(&mut self, until: Instant, statements: &str) -> std::result::Result<(), Failed> {
        self.run(until, |client| client.batch_execute(statements))
    }

    fn run<'a, T, F>(&'a mut self, until: Instant, work: impl FnOnce(&'a Client) -> F) -> std::result::Result<T, Failed>
    where
        F: Future<Output = std::result::Result<T, tokio_postgres::Error>> + 'a,
    {
        match &self.runtime {
            Some(runtime) => block_on(runtime, until, work(&self.client)),
            None => Err(Failed::Late),
        }
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

fn block_on<T>(
    runtime: &Runtime,
    until: Instant,
    work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> std::result::Result<T, Failed> {
    let limited = async { timeout_at(TokioInstant::from_std(until), work).await };
    match runtime.block_on(limited) {
        Ok(result) => result.map_err(Failed::Said),
        Err(_) => Err(Failed::Late),
    }
}

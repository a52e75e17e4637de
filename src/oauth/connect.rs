//! The connectors under ureq: names are resolved only for new connections, and no byte of a request leaves before its
//! body is asked for.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
};
use ureq::{Error, Timeout};
use zeroize::Zeroize;

use crate::process::lock;
use crate::secret::SecretBytes;
use crate::sync::Mutex;
use crate::tls::{self, Files, Stamp};

/// Resolves nothing: ureq asks before it looks for a pooled connection. [`Dial`] resolves.
#[derive(Debug)]
pub struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Asks the system.
#[derive(Debug)]
pub struct System;

impl Resolver for System {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let found = (bare_host(uri), port).to_socket_addrs();
        let found = found.map_err(|error| explain("the host name cannot be resolved", error.into()))?;
        let mut addresses = self.empty();
        found.take(MOST_ADDRESSES).for_each(|address| addresses.push(address));
        Ok(addresses)
    }
}

/// What [`ResolvedSocketAddrs`] has room for.
const MOST_ADDRESSES: usize = 16;

/// How long an address may take while there are others to try: as long as TCP waits before it knocks again.
const FIRST_LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// Resolves the host and connects, trying all addresses within the time that is left.
#[derive(Debug, Default)]
pub struct Dial(TcpConnector);

type Tcp = <TcpConnector as Connector<()>>::Out;

impl Connector<()> for Dial {
    type Out = Tcp;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Tcp>, Error> {
        let addresses = System.resolve(details.uri, details.config, details.timeout)?;
        self.first_of(&addresses, details).map_err(|error| explain("no connection", error))
    }
}

impl Dial {
    /// Every address for a moment, so that a dead one does not use up the time of the others. Then those that were
    /// silent, for as long as there is time.
    fn first_of(&self, addresses: &[SocketAddr], details: &ConnectionDetails) -> Result<Option<Tcp>, Error> {
        let mut silent = details.resolver.empty();
        let mut refused = None;
        for address in addresses {
            let mut addrs = details.resolver.empty();
            addrs.push(*address);
            let mut details = remaining(details, addrs)?;
            if addresses.len() > 1 {
                let share = *details.timeout.after / (addresses.len() as u32 + 1);
                details.timeout.after = share.min(FIRST_LOOK).into();
            }
            match self.0.connect(&details, None) {
                Err(Error::Timeout(_)) => silent.push(*address),
                Err(error) => refused = Some(error),
                connected => return connected,
            }
        }
        match refused {
            Some(error) if silent.is_empty() => Err(error),
            _ => self.0.connect(&remaining(details, silent)?, None),
        }
    }
}

/// The host of a URL, an IPv6 address without its brackets.
fn bare_host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// The same details for the next step: with addresses, less the time that has passed.
pub fn remaining<'a>(
    details: &ConnectionDetails<'a>,
    addrs: ResolvedSocketAddrs,
) -> Result<ConnectionDetails<'a>, Error> {
    let now = (details.current_time)();
    let mut timeout = details.timeout;
    if let (Duration::Exact(left), Instant::Exact(now), Instant::Exact(then)) = (timeout.after, now, details.now) {
        let left = left.saturating_sub(now.saturating_duration_since(then));
        if left.is_zero() {
            return Err(Error::Timeout(Timeout::Connect));
        }
        timeout.after = Duration::Exact(left);
    }
    Ok(ConnectionDetails {
        uri: details.uri,
        addrs,
        config: details.config,
        request_level: details.request_level,
        resolver: details.resolver,
        now,
        timeout,
        current_time: details.current_time.clone(),
        run_connector: details.run_connector.clone(),
        register_shutdown: details.register_shutdown.clone(),
    })
}

/// The TLS handshake, within the time that is left.
#[derive(Debug, Default)]
pub struct Tls {
    files: Files,
    /// Made for the first connection, and anew when a file has changed.
    made: Mutex<Option<(Stamp, Arc<ClientConfig>)>>,
}

impl Tls {
    pub fn new(files: &Files) -> Self {
        Self { files: files.clone(), made: Mutex::default() }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let stamp = self.files.stamp();
        let mut made = lock(&self.made);
        if let Some((_, config)) = made.as_ref().filter(|(then, _)| *then == stamp) {
            return Ok(Arc::clone(config));
        }
        let config = self.files.read().map_err(|unfit| unfit.to_string());
        match config.and_then(|content| content.config().map_err(|error| words(&error, false))) {
            Ok(config) => Ok(Arc::clone(&made.insert((stamp, Arc::new(config))).1)),
            // Caught while somebody writes: what was read before serves until all files fit again.
            Err(problem) => made.as_ref().map(|(_, config)| Arc::clone(config)).ok_or(problem),
        }
    }

    fn handshake(&self, details: &ConnectionDetails, transport: Box<dyn Transport>) -> Result<Encrypted, Error> {
        let name = ServerName::try_from(bare_host(details.uri)).map_err(io::Error::other)?.to_owned();
        let config = self.config().map_err(io::Error::other)?;
        let mut conn = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut sock = TransportAdapter::new(transport, details.current_time.clone());
        let left = || remaining(details, details.resolver.empty()).map(|details| details.timeout);
        sock.set_timeout(left()?);
        tls::was_asked();
        let done = conn.complete_io(&mut sock);
        let asked = tls::was_asked();
        let done = match done {
            Ok(_) if asked && conn.protocol_version() == Some(ProtocolVersion::TLSv1_3) => {
                verdict(&mut conn, &mut sock, left()?)
            }
            done => done.map(|_| ()),
        };
        done.map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<Error>() => error,
            Some(inner) => inner.downcast_ref().map(|inner| io::Error::other(words(inner, asked))).unwrap_or(error),
            // It may be gone before its alert is read.
            None if asked => io::Error::new(error.kind(), format!("{error}; {SHOW_CERTIFICATE}")),
            None => error,
        })?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Encrypted { buffers, stream: StreamOwned { conn, sock } })
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Encrypted>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let encrypted = self.handshake(details, transport.boxed());
        encrypted.map(|encrypted| Some(Either::B(encrypted))).map_err(|error| explain("no TLS connection", error))
    }
}

/// How long a server may take to look at a client's certificate.
const VERDICT: std::time::Duration = std::time::Duration::from_secs(1);

/// In TLS 1.3 a server looks at the client's certificate when the client is through with the handshake. What it says
/// next is an alert or a ticket. A request that is sent before may be lost in a connection that the server ends, and
/// nobody could tell what has become of it. (Some servers give no tickets, and say nothing.)
fn verdict(conn: &mut ClientConnection, sock: &mut TransportAdapter, timeout: NextTimeout) -> io::Result<()> {
    let after = VERDICT.min(*timeout.after).into();
    sock.set_timeout(NextTimeout { after, ..timeout });
    match conn.read_tls(sock).map_err(Error::from) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => conn.process_new_packets().map(|_| ()).map_err(io::Error::other),
        Err(Error::Timeout(_)) => Ok(()),
        Err(error) => Err(error.into_io()),
    }
}

const SHOW_CERTIFICATE: &str = "it asks for a client certificate: look at client_certificate_file and client_key_file";

/// What happened, and what to do about it. `asked`: the server has asked for the client's certificate.
fn words(error: &rustls::Error, asked: bool) -> String {
    use rustls::AlertDescription::ProtocolVersion;
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    use rustls::Error::{AlertReceived, General, InvalidCertificate, PeerIncompatible};
    let advice = match error {
        AlertReceived(ProtocolVersion) | PeerIncompatible(_) => "does it speak TLS 1.2 or later?",
        AlertReceived(_) if asked => SHOW_CERTIFICATE,
        InvalidCertificate(UnknownIssuer | BadSignature) => {
            "if an authority of your own has signed for it, set ca_file"
        }
        General(_) => "install the system's root certificates, or set ca_file",
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

/// A connection inside TLS.
pub struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted").field("inside", &self.stream.sock.inner()).finish()
    }
}

pub fn explain(what: &str, error: Error) -> Error {
    match error {
        Error::Timeout(_) => error,
        Error::Io(error) => io::Error::new(error.kind(), format!("{what}: {error}")).into(),
        error => io::Error::other(format!("{what}: {error}")).into(),
    }
}

/// Wraps connections so that they hold a request's head back until its body comes.
#[derive(Debug)]
pub struct HoldHead;

impl<In: Transport> Connector<In> for HoldHead {
    type Out = Whole<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Whole { inner, phase: Phase::Head(Vec::new()), late_looks: LATE_LOOKS, answer: None }))
    }
}

/// What stands for an empty body, which ureq would not ask for. It never leaves.
pub const EMPTY_BODY: &[u8] = b"\0";

/// What ureq is told to wait beyond an exchange's deadline, and [`Whole`] takes off again: when the time is over, ureq
/// gives up without a look at the connection. A process that was stopped, or got no time, may have an answer there that
/// came in time, with a rotated refresh token in it.
pub const LATE: std::time::Duration = std::time::Duration::from_secs(3600);
/// How often, and for how long, a connection is looked at once more when the time is over.
const LATE_LOOKS: u8 = 16;
const LATE_LOOK: Duration = Duration::from_millis(1);

/// Sends head and body in one write, so that whoever provides the body decides, with the connection ready, whether
/// anything is sent at all.
#[derive(Debug)]
pub struct Whole<In> {
    inner: In,
    phase: Phase,
    late_looks: u8,
    /// Until when the answer may come: for as long after the request has left as there was time before. A process that
    /// was stopped between the gate and the write sends late, and has to wait for what it has asked for all the same.
    answer: Option<std::time::Instant>,
}

#[derive(Debug)]
enum Phase {
    /// The head so far; it is complete when it ends with an empty line.
    Head(Vec<u8>),
    /// The head has been sent.
    Body,
}

/// The time that is left, without [`LATE`], but at least until `least`.
fn left(timeout: NextTimeout, least: Option<std::time::Instant>) -> Option<NextTimeout> {
    let least = least.map(|at| at.saturating_duration_since(std::time::Instant::now())).unwrap_or_default();
    let left = timeout.after.saturating_sub(LATE).max(least);
    (!left.is_zero()).then(|| NextTimeout { after: left.into(), ..timeout })
}

impl<In: Transport> Whole<In> {
    fn send(&mut self, bytes: &[u8], timeout: NextTimeout) -> Result<(), Error> {
        let size = self.inner.buffers().output().len();
        for chunk in bytes.chunks(size) {
            self.inner.buffers().output()[..chunk.len()].copy_from_slice(chunk);
            let sent = self.inner.transmit_output(chunk.len(), timeout);
            self.inner.buffers().output()[..chunk.len()].zeroize();
            sent?;
        }
        self.answer = std::time::Instant::now().checked_add(*timeout.after);
        Ok(())
    }
}

impl<In: Transport> Transport for Whole<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = left(timeout, None).ok_or(Error::Timeout(timeout.reason))?;
        let Phase::Head(head) = &mut self.phase else { return self.inner.transmit_output(amount, timeout) };
        let output = &mut self.inner.buffers().output()[..amount];
        if !head.ends_with(b"\r\n\r\n") {
            head.extend_from_slice(output);
            output.zeroize();
            return Ok(());
        }
        let mut request = SecretBytes::new(Vec::with_capacity(head.len() + amount));
        request.extend_from_slice(head);
        head.as_mut_slice().zeroize();
        if output == EMPTY_BODY {
            announce_no_body(&mut request);
        } else {
            request.extend_from_slice(output);
        }
        self.phase = Phase::Body;
        self.send(&request, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.phase = Phase::Head(Vec::new());
        let input = match left(timeout, self.answer) {
            Some(timeout) => self.inner.await_input(timeout),
            None => Err(Error::Timeout(timeout.reason)),
        };
        match input {
            Err(Error::Timeout(_)) if self.late_looks > 0 => {
                self.late_looks -= 1;
                self.inner.await_input(NextTimeout { after: LATE_LOOK, ..timeout })
            }
            input => input,
        }
    }

    /// Asked when a connection has served and is put aside: what it has read must not lie there.
    fn is_open(&mut self) -> bool {
        let buffers = self.inner.buffers();
        if buffers.input().is_empty() {
            buffers.input_append_buf().fill(0);
        }
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// `content-length: 1`, which [`EMPTY_BODY`] needs, becomes `content-length: 0`, or nothing in a GET (RFC 9110 §8.6).
fn announce_no_body(head: &mut Vec<u8>) {
    const LENGTH: &[u8] = b"content-length: 1\r\n";
    let Some(at) = head.windows(LENGTH.len()).position(|window| window.eq_ignore_ascii_case(LENGTH)) else { return };
    if head.starts_with(b"GET ") {
        head.drain(at..at + LENGTH.len());
    } else {
        head[at + LENGTH.len() - 3] = b'0';
    }
}

//! The connectors under ureq: names are resolved only for new connections, and no byte of a request leaves before its
//! body is asked for.

use std::io;
use std::net::ToSocketAddrs;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
};
use ureq::{Error, Timeout};
use zeroize::Zeroize;

use crate::secret::SecretBytes;

/// Resolves nothing: ureq asks before it looks for a pooled connection. [`Dial`] resolves.
#[derive(Debug)]
pub struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Resolves the host and connects, trying all addresses within the time that is left.
#[derive(Debug, Default)]
pub struct Dial(TcpConnector);

impl Connector<()> for Dial {
    type Out = <TcpConnector as Connector<()>>::Out;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let mut addrs = details.resolver.empty();
        resolve(details.uri)?.take(16).for_each(|address| addrs.push(address));
        let details = remaining(details, addrs)?;
        self.0.connect(&details, None).map_err(|error| explain("no connection", error))
    }
}

fn resolve(uri: &Uri) -> Result<impl Iterator<Item = std::net::SocketAddr>, Error> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    (host, port).to_socket_addrs().map_err(|error| explain("the host name cannot be resolved", error.into()))
}

/// The same details for the next step: with addresses, less the time that has passed.
///
/// `request_level` is off because rustls' configuration, roots included, is only kept for an agent's own configuration;
/// requests change nothing but time-outs.
fn remaining<'a>(details: &ConnectionDetails<'a>, addrs: ResolvedSocketAddrs) -> Result<ConnectionDetails<'a>, Error> {
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
        request_level: false,
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
pub struct Tls(RustlsConnector);

impl<In: Transport> Connector<In> for Tls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let details = remaining(details, details.resolver.empty())?;
        self.0.connect(&details, chained).map_err(|error| explain("no TLS connection", error))
    }
}

fn explain(what: &str, error: Error) -> Error {
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

//! Connections through a proxy: a tunnel by CONNECT (RFC 9110 §9.3.6), or SOCKS5 (RFC 1928). All of it comes before the
//! request: what fails here has sent nothing.

use std::fmt;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::transport::{ConnectionDetails, Connector, SocksConnector, Transport, TransportAdapter};
use ureq::{Agent, Error, ProxyProtocol};
use zeroize::Zeroize;

use super::connect::{Dial, System, Tls, explain, remaining};
use crate::secret::{Secret, SecretBytes};
use crate::tls::Files;

/// The longest answer to a CONNECT that is read.
const LONGEST_HEAD: usize = 16 << 10;

/// `proxy`, checked.
#[derive(Clone)]
pub struct Proxy {
    kind: Kind,
    /// Where it is: `http://host:port`, or `https://host:port` if it speaks TLS.
    uri: Uri,
    user: Option<(Secret, Secret)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Https,
    Socks,
}

impl Proxy {
    /// Reads `scheme://host`, with `user:password@` before the host and `:port` behind it if need be.
    ///
    /// The error says what is wrong without showing the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let expected = "expected http://host:port, https://host:port or socks5://host:port, with user:password@ before \
                        the host if the proxy wants it; in these, % is written %25, and : is written %3A";
        let (scheme, rest) = url.trim().split_once("://").ok_or(expected)?;
        let (kind, scheme, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, "http", 80),
            "https" => (Kind::Https, "https", 443),
            "socks5" | "socks5h" => (Kind::Socks, "http", 1080),
            _ => return Err(expected.to_owned()),
        };
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let uri: Uri =
            format!("{scheme}://{}", host.strip_suffix('/').unwrap_or(host)).parse().map_err(|_| expected)?;
        let authority = uri.authority().ok_or(expected)?;
        let has_port = authority.as_str().len() > authority.host().len();
        if authority.host().is_empty()
            || has_port != uri.port_u16().is_some()
            || uri.path() != "/"
            || uri.query().is_some()
        {
            return Err(expected.to_owned());
        }
        let port = uri.port_u16().unwrap_or(port);
        let uri = format!("{scheme}://{}:{port}", authority.host()).parse().map_err(|_| expected)?;
        let user = user.map(|user| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8().map(Secret::new).map_err(|_| expected);
            Ok::<_, &str>((decoded(user)?, decoded(password)?))
        });
        let user = user.transpose()?;
        let fits = |text: &Secret| (1..=255).contains(&text.expose().len());
        match &user {
            Some((name, _)) if name.expose().is_empty() => Err(expected.to_owned()),
            Some((name, password)) if kind == Kind::Socks && !(fits(name) && fits(password)) => {
                Err("SOCKS5 has room for a user and a password of 1 to 255 bytes each".to_owned())
            }
            _ => Ok(Self { kind, uri, user }),
        }
    }

    /// All that tells it from another.
    pub(crate) fn parts(&self) -> [&str; 5] {
        let kind = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks => "socks5",
        };
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        match &self.user {
            Some((user, password)) => [kind, host, "user", user.expose(), password.expose()],
            None => [kind, host, "", "", ""],
        }
    }

    /// As ureq wants it for SOCKS. The proxy resolves the server's name: it may know names that this machine does not.
    fn socks(&self, like: &Config) -> Result<Config, Error> {
        let host = self.uri.host().unwrap_or_default();
        let port = self.uri.port_u16().unwrap_or_default();
        let mut proxy = ureq::Proxy::builder(ProxyProtocol::Socks5h).host(host).port(port);
        if let Some((user, password)) = &self.user {
            proxy = proxy.username(user.expose()).password(password.expose());
        }
        let config = Agent::config_builder().proxy(Some(proxy.build()?)).no_delay(like.no_delay());
        let config = config.input_buffer_size(like.input_buffer_size()).output_buffer_size(like.output_buffer_size());
        Ok(config.build())
    }

    fn connect_request(&self, target: &Uri) -> Secret {
        let target = format!("{}:{}", target.host().unwrap_or_default(), target.port_u16().unwrap_or(443));
        let pair = self.user.as_ref().map(|(user, password)| {
            let mut pair = Vec::with_capacity(user.expose().len() + 1 + password.expose().len());
            pair.extend_from_slice(user.expose().as_bytes());
            pair.push(b':');
            pair.extend_from_slice(password.expose().as_bytes());
            SecretBytes::new(pair)
        });
        // Never grows: a reallocation would leave a copy behind.
        let length = 100 + target.len() * 2 + pair.as_ref().map_or(0, |pair| pair.len() * 2);
        let mut request = String::with_capacity(length);
        request.extend(["CONNECT ", &target, " HTTP/1.1\r\nHost: ", &target, "\r\n"]);
        if let Some(pair) = pair {
            request.push_str("Proxy-Authorization: Basic ");
            BASE64_STANDARD.encode_string(&*pair, &mut request);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        Secret::new(request)
    }
}

/// Without user and password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("kind", &self.kind).field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Connects through a proxy. Plain http never goes there: it is for this machine's own addresses.
#[derive(Debug)]
pub(super) struct Tunnel {
    proxy: Proxy,
    dial: Dial,
    /// To the proxy itself, which learns of no client certificate.
    tls: Tls,
}

impl Tunnel {
    pub(super) fn new(proxy: &Proxy, files: &Files) -> Self {
        let tls = Tls::new(&Files { client: None, ..files.clone() });
        Self { proxy: proxy.clone(), dial: Dial::default(), tls }
    }

    fn through_socks(&self, details: &ConnectionDetails) -> Result<Box<dyn Transport>, Error> {
        let config = self.proxy.socks(details.config)?;
        let details =
            ConnectionDetails { config: &config, resolver: &System, ..remaining(details, details.resolver.empty())? };
        let connected = SocksConnector::default().connect(&details, None::<()>).map_err(trouble)?;
        connected.map(Transport::boxed).ok_or(Error::ConnectionFailed)
    }

    fn through_http(&self, details: &ConnectionDetails) -> Result<Box<dyn Transport>, Error> {
        let hop = ConnectionDetails { uri: &self.proxy.uri, ..remaining(details, details.resolver.empty())? };
        let connected = self.dial.connect(&hop, None).and_then(|tcp| self.tls.connect(&hop, tcp)).map_err(trouble)?;
        let connected = connected.ok_or(Error::ConnectionFailed)?;
        let left = remaining(details, details.resolver.empty())?.timeout;
        let mut stream = TransportAdapter::new(connected, details.current_time.clone());
        stream.set_timeout(left);
        let request = self.proxy.connect_request(details.uri);
        let answer = stream.write_all(request.expose().as_bytes()).and_then(|()| read_head(&mut stream));
        match answer.map_err(|error| trouble(error.into()))? {
            200..=299 => Ok(stream.into_inner().boxed()),
            // Some say 401.
            status @ (401 | 407) => Err(match self.proxy.user {
                Some(_) => refusal("refuses the user and the password in it", status),
                None => refusal("wants a user and a password: http://USER:PASSWORD@host:port", status),
            }),
            status => Err(refusal("does not connect to the server", status)),
        }
    }
}

impl Connector<()> for Tunnel {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        if !details.needs_tls() {
            return Ok(self.dial.connect(details, None)?.map(Transport::boxed));
        }
        let mut transport = match self.proxy.kind {
            Kind::Http | Kind::Https => self.through_http(details)?,
            Kind::Socks => self.through_socks(details)?,
        };
        // The proxy's password was in it.
        transport.buffers().output().zeroize();
        Ok(Some(transport))
    }
}

fn trouble(error: Error) -> Error {
    explain("no connection through the proxy (configuration key \"proxy\")", error)
}

fn refusal(what: &str, status: u16) -> Error {
    io::Error::other(format!("the proxy (configuration key \"proxy\") {what} (HTTP status {status})")).into()
}

/// Reads the answer to a CONNECT, which has no body, and not a byte of what follows. Returns its status.
fn read_head(stream: &mut impl Read) -> io::Result<u16> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let status =
        head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|status| str::from_utf8(status).ok());
    status.and_then(|status| status.parse().ok()).ok_or_else(|| io::Error::other("it does not answer as an HTTP proxy"))
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;

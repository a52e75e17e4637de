//! One HTTP request, sent once: certainly not sent, or answered, or nobody knows.

use std::borrow::Cow;
use std::io::{self, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use ureq::http::{HeaderMap, HeaderValue, Request as HttpRequest, header};
use ureq::unversioned::transport::Connector;
use ureq::{Agent, SendBody};

use super::connect::{Dial, EMPTY_BODY, HoldHead, LATE, NoResolver, Tls};
use super::proxy::Tunnel;
use super::{Deadline, Failure, discovery, endpoints};
use crate::config::Transport;
use crate::host;
use crate::secret::{Secret, SecretBytes};
use crate::session::record::Binds;
use crate::sync::Instant;

/// Answers above this are not read: 1 MiB.
const LARGEST_ANSWER: u64 = 1 << 20;
/// A server may have dropped a connection that idled longer, and say so only when the request is lost in it. (Five seconds
/// is a common limit, of Node's servers for one.)
const MAX_IDLE: Duration = Duration::from_secs(4);
/// No server may silence us for longer.
const LONGEST_RETRY_AFTER_S: u64 = 86_400;

/// Connections to authorization servers. One is enough for any number of clients with one [`Transport`]; a forked child
/// needs its own.
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    /// What the servers at the other end have told of themselves.
    pub(super) servers: discovery::Cache,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Has no body: `form` is `None`.
    Get,
    /// Sends form parameters.
    Post,
}

/// A request for JSON.
pub struct Request<'a> {
    /// What to do.
    pub method: Method,
    /// Where to.
    pub endpoint: &'a str,
    /// `User-Agent`.
    pub user_agent: &'a str,
    /// The whole value of `Authorization`.
    pub authorization: Option<Secret>,
    /// Parameters as HTTP headers.
    pub headers: Vec<(Cow<'a, str>, Secret)>,
    /// The body, form-encoded; `None`: an empty body.
    pub form: Option<Secret>,
}

/// A whole answer.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After` (RFC 9110 §10.2.3), at most a day.
    pub retry_after_ms: Option<u64>,
    /// `Cache-Control: max-age` (RFC 9111 §5.2.2.1).
    pub max_age_s: Option<u64>,
    /// `Location`.
    pub redirects_to: Option<String>,
    /// At most 1 MiB.
    pub body: SecretBytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// No byte of the request has left.
    NotSent(Failure),
    /// The request, or a part of it, may have arrived.
    Unknown(Failure),
}

impl Http {
    /// Cheap: no file is read and no thread started before the first TLS connection.
    pub fn new(transport: &Transport) -> Self {
        let tls = Tls::new(&transport.files);
        match &transport.proxy {
            None => Self::over(Dial::default().chain(tls)),
            Some(proxy) => Self::over(Tunnel::new(proxy, &transport.files).chain(tls)),
        }
    }

    fn over(connector: impl Connector) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .no_delay(true)
            .user_agent("")
            .accept("application/json")
            .accept_encoding("")
            .max_idle_age(MAX_IDLE)
            .max_idle_connections(64)
            .max_idle_connections_per_host(8)
            .input_buffer_size(32 << 10)
            .output_buffer_size(16 << 10)
            .max_response_header_size(32 << 10)
            .build();
        Self { agent: Agent::with_parts(config, connector.chain(HoldHead), NoResolver), servers: Default::default() }
    }

    /// Sends `request` once and reads the answer.
    ///
    /// `gate` is called when the connection is ready, right before the first byte would leave: if it returns an error,
    /// or if it is too late by then, nothing leaves.
    pub fn send(
        &self,
        request: &Request<'_>,
        deadline: Deadline,
        gate: &dyn Fn() -> Result<(), String>,
    ) -> Result<Response, Failed> {
        let host = endpoints::host(request.endpoint);
        let now = Instant::now();
        let mut body = Body { rest: request.body(), gate: Gate::Shut(gate), first_byte: deadline.first_byte };
        if now >= deadline.first_byte {
            return Err(Failed::NotSent(too_late(&host)));
        }
        let result = self.exchange(request, &mut body, now, deadline);
        match (result, body.gate) {
            (Ok(response), _) => Ok(response),
            (Err(problem), Gate::Open) => Err(Failed::Unknown(problem.after_sending(&host))),
            (Err(problem), Gate::Shut(_)) => Err(Failed::NotSent(problem.before_sending(&host))),
            (Err(_), Gate::Late) => Err(Failed::NotSent(too_late(&host))),
            (Err(_), Gate::Refused(reason)) => {
                Err(Failed::NotSent(Failure::new(super::WITHDRAWN, format!("nothing was sent to {host}: {reason}"))))
            }
        }
    }

    fn exchange(
        &self,
        request: &Request<'_>,
        body: &mut Body<'_>,
        now: Instant,
        deadline: Deadline,
    ) -> Result<Response, Problem> {
        #[cfg(feature = "shuttle")]
        return crate::concurrency::server::answer(body).map_err(|error| ureq::Error::from(error).into());
        let http_request = request.head(body.rest.len())?.body(SendBody::from_reader(body))?;
        let http_request = self
            .agent
            .configure_request(http_request)
            .timeout_connect(Some(deadline.first_byte.saturating_duration_since(now)))
            .timeout_global(Some(deadline.answer.saturating_duration_since(now) + LATE))
            .build();
        let mut response = self.agent.run(http_request)?;
        // Never grows if its length is announced: a reallocation would leave a copy behind.
        let length = response.body().content_length().unwrap_or(8 << 10).min(LARGEST_ANSWER);
        let mut bytes = SecretBytes::new(Vec::with_capacity(length as usize + 1));
        response.body_mut().as_reader().take(LARGEST_ANSWER + 1).read_to_end(&mut bytes).map_err(ureq::Error::from)?;
        if bytes.len() as u64 > LARGEST_ANSWER {
            return Err(Problem::TooLarge);
        }
        let headers = response.headers();
        Ok(Response {
            status: response.status().as_u16(),
            retry_after_ms: retry_after_ms(headers, SystemTime::now()),
            max_age_s: max_age_s(headers),
            redirects_to: text(headers, header::LOCATION).map(str::to_owned),
            body: bytes,
        })
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new(&Transport::default())
    }
}

impl Request<'_> {
    fn body(&self) -> &[u8] {
        self.form.as_ref().map_or(EMPTY_BODY, |form| form.expose().as_bytes())
    }

    fn head(&self, length: usize) -> Result<ureq::http::request::Builder, ureq::http::Error> {
        let head = match self.method {
            Method::Get => HttpRequest::get(self.endpoint),
            Method::Post => HttpRequest::post(self.endpoint),
        };
        let mut head = head.header(header::USER_AGENT, self.user_agent).header(header::CONTENT_LENGTH, length);
        if self.form.is_some() {
            head = head.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if let Some(authorization) = &self.authorization {
            head = head.header(header::AUTHORIZATION, sensitive(authorization)?);
        }
        for (name, value) in &self.headers {
            head = head.header(name.as_ref(), sensitive(value)?);
        }
        Ok(head)
    }
}

fn sensitive(secret: &Secret) -> Result<HeaderValue, ureq::http::Error> {
    let mut value = HeaderValue::from_bytes(secret.expose().as_bytes())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether the request may leave.
enum Gate<'a> {
    Shut(&'a dyn Fn() -> Result<(), String>),
    Open,
    Late,
    Refused(String),
}

/// The body of a request. ureq asks for it when the connection is ready, and [`HoldHead`] lets nothing leave before.
struct Body<'a> {
    rest: &'a [u8],
    gate: Gate<'a>,
    first_byte: Instant,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Gate::Shut(ask) = self.gate {
            self.gate = match ask() {
                Err(reason) => Gate::Refused(reason),
                Ok(()) if Instant::now() > self.first_byte => Gate::Late,
                Ok(()) => Gate::Open,
            };
        }
        match self.gate {
            Gate::Open => self.rest.read(buffer),
            _ => Err(io::Error::other("the request must not leave")),
        }
    }
}

enum Problem {
    Ureq(ureq::Error),
    /// A parameter that no HTTP header can hold.
    Unfit,
    TooLarge,
}

impl From<ureq::Error> for Problem {
    fn from(error: ureq::Error) -> Self {
        Problem::Ureq(error)
    }
}

impl From<ureq::http::Error> for Problem {
    fn from(_: ureq::http::Error) -> Self {
        Problem::Unfit
    }
}

impl Problem {
    fn before_sending(self, host: &str) -> Failure {
        let what = match self {
            Problem::Unfit => "a parameter cannot be sent as an HTTP header".to_owned(),
            Problem::Ureq(ureq::Error::Timeout(_)) => "no connection within connect_timeout_ms".to_owned(),
            Problem::Ureq(ureq::Error::Io(error)) => error.to_string(),
            Problem::Ureq(error) => error.to_string(),
            Problem::TooLarge => "the answer is too large".to_owned(),
        };
        Failure::new("network", format!("{host} cannot be reached: {what}; nothing was sent"))
    }

    fn after_sending(self, host: &str) -> Failure {
        let (reason, what) = match self {
            Problem::TooLarge => ("bad_answer", "the answer is larger than 1 MiB".to_owned()),
            Problem::Ureq(ureq::Error::Timeout(_)) => ("network", "no answer within exchange_timeout_ms".to_owned()),
            Problem::Ureq(ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..)) => {
                ("bad_answer", "the answer is not HTTP".to_owned())
            }
            Problem::Ureq(ureq::Error::Io(error)) => ("network", format!("the connection broke ({error})")),
            Problem::Ureq(error) => ("network", format!("the connection broke ({error})")),
            Problem::Unfit => ("bad_answer", "it was malformed".to_owned()),
        };
        Failure::new(reason, format!("the request was sent to {host}, but {what}: it may have been carried out"))
    }
}

fn too_late(host: &str) -> Failure {
    Failure::new(
        "network",
        format!("{host} cannot be reached: no connection within connect_timeout_ms; nothing was sent"),
    )
}

impl Failure {
    /// A failure that this machine saw; no answer was read.
    pub(super) fn new(reason: &'static str, message: String) -> Self {
        Self {
            message,
            reason,
            error: None,
            error_description: None,
            error_uri: None,
            http_status: None,
            retry_after_ms: None,
            binds: Binds::Host(host::name()),
        }
    }
}

/// Everything but RFC 3986's unreserved characters is encoded, a space as %20: form and percent decoders agree on that.
pub(super) const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `application/x-www-form-urlencoded`.
pub fn form<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)> + Clone) -> Secret {
    let length: usize = parameters.clone().into_iter().map(|(name, value)| (name.len() + value.len()) * 3 + 2).sum();
    // Never grows: a reallocation would leave a copy behind.
    let mut form = String::with_capacity(length);
    for (name, value) in parameters {
        if !form.is_empty() {
            form.push('&');
        }
        form.extend(percent_encode(name.as_bytes(), FORM));
        form.push('=');
        form.extend(percent_encode(value.as_bytes(), FORM));
    }
    Secret::new(form)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn max_age_s(headers: &HeaderMap) -> Option<u64> {
    let text = text(headers, header::CACHE_CONTROL)?.to_ascii_lowercase();
    text.split(',').find_map(|directive| directive.trim().strip_prefix("max-age=")?.trim_matches('"').parse().ok())
}

/// Seconds or an HTTP date.
fn retry_after_ms(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = text(headers, header::RETRY_AFTER)?;
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => http_date(text)?.saturating_sub(now.duration_since(UNIX_EPOCH).ok()?.as_secs()),
    };
    Some(seconds.min(LONGEST_RETRY_AFTER_S) * 1000)
}

/// Unix time of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, the form that may be generated).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = parts[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let number = |text: &str, most: u64| text.parse::<u64>().ok().filter(|number| *number <= most);
    let (day, year) = (number(day, 31)?, number(year, 9999).filter(|year| *year >= 1970)?);
    // Days since 1970 in a calendar whose years begin in March, so that leap days come last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = (365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day).checked_sub(719_469)?;
    Some(days * 86_400 + number(hour, 23)? * 3_600 + number(minute, 59)? * 60 + number(second, 60)?)
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

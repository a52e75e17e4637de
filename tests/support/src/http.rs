//! HTTP/1.1 as a server reads and writes it: keep-alive, Content-Length and chunked bodies, one write per reply.

use serde::Serialize;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const HEAD_LIMIT: usize = 64 * 1024;
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// A request's line and header fields.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    /// As it came.
    pub(crate) raw: Vec<u8>,
}

impl Head {
    /// The value of the first header field of that name, any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn wants_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// A whole request.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

/// Why no request could be read.
pub(crate) enum Ended {
    /// The client is gone, or said nothing for too long.
    Closed,
    /// What it said is not HTTP that we take; the reply says so.
    Bad(Reply),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("Content-Type", content_type.into())], body: body.into() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::json_text(status, body.to_string())
    }

    pub(crate) fn json_text(status: u16, body: String) -> Self {
        let reply = Self::new(status, "application/json;charset=UTF-8", body);
        reply.with("Cache-Control", "no-cache,no-store")
    }

    /// An OAuth error (RFC 6749 §5.2).
    pub(crate) fn error(status: u16, error: &str, description: &str) -> Self {
        Self::json(status, &serde_json::json!({"error": error, "error_description": description}))
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
    }

    /// The head and the body, in one piece.
    pub(crate) fn to_bytes(&self) -> (Vec<u8>, usize) {
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        let _ = write!(bytes, "HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        for (name, value) in &self.headers {
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
        let _ = write!(bytes, "Content-Length: {}\r\n\r\n", self.body.len());
        let head = bytes.len();
        bytes.extend_from_slice(&self.body);
        (bytes, head)
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

/// A JSON object, written member by member: the token endpoint's hot path goes without a tree of values.
pub(crate) struct Object(Vec<u8>);

impl Object {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(1024))
    }

    pub(crate) fn put(&mut self, name: &str, value: impl Serialize) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        let _ = serde_json::to_writer(&mut self.0, name);
        self.0.push(b':');
        let _ = serde_json::to_writer(&mut self.0, &value);
    }

    pub(crate) fn finish(mut self) -> String {
        self.0.extend(if self.0.is_empty() { "{}" } else { "}" }.bytes());
        String::from_utf8(self.0).unwrap_or_default()
    }
}

/// One client's connection.
pub(crate) struct Connection {
    pub(crate) number: u64,
    stream: TcpStream,
    /// Read, but not yet part of a request.
    pending: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(number: u64, stream: TcpStream, idle: Option<Duration>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(idle.filter(|idle| !idle.is_zero()))?;
        Ok(Self { number, stream, pending: Vec::with_capacity(4096) })
    }

    pub(crate) fn read_head(&mut self) -> Result<Head, Ended> {
        loop {
            if !self.pending.is_empty() {
                let mut fields = [httparse::EMPTY_HEADER; 64];
                let mut parsed = httparse::Request::new(&mut fields);
                match parsed.parse(&self.pending) {
                    Ok(httparse::Status::Complete(length)) => {
                        let (path, query) = parsed
                            .path
                            .unwrap_or("/")
                            .split_once('?')
                            .unwrap_or_else(|| (parsed.path.unwrap_or("/"), ""));
                        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                        let mut head = Head {
                            method: parsed.method.unwrap_or_default().into(),
                            path: path.into(),
                            query: query.into(),
                            headers: parsed.headers.iter().map(|one| (one.name.into(), text(one.value))).collect(),
                            raw: Vec::new(),
                        };
                        head.raw = self.take(length);
                        return Ok(head);
                    }
                    Ok(httparse::Status::Partial) if self.pending.len() < HEAD_LIMIT => {}
                    _ => return Err(Ended::Bad(Reply::new(400, "text/plain", "not an HTTP request"))),
                }
            }
            self.read_more()?;
        }
    }

    pub(crate) fn read_body(&mut self, head: &Head) -> Result<Vec<u8>, Ended> {
        let chunked = head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = head.header("content-length").map_or(Ok(0), str::parse::<usize>);
        let Ok(length) = length else { return Err(Ended::Bad(Reply::new(400, "text/plain", "bad Content-Length"))) };
        if length > BODY_LIMIT {
            return Err(Ended::Bad(Reply::new(413, "text/plain", "the body is too large")));
        }
        if head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if chunked { self.read_chunks() } else { self.read_exactly(length) }
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>, Ended> {
        let bad = || Ended::Bad(Reply::new(400, "text/plain", "bad chunked body"));
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| bad())?;
            if body.len() + size > BODY_LIMIT {
                return Err(bad());
            }
            if size == 0 {
                while !self.read_line()?.is_empty() {} // trailers
                return Ok(body);
            }
            body.extend(self.read_exactly(size)?);
            if !self.read_line()?.is_empty() {
                return Err(bad());
            }
        }
    }

    fn read_line(&mut self) -> Result<String, Ended> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.pending.len() > HEAD_LIMIT {
                return Err(Ended::Bad(Reply::new(400, "text/plain", "the line is too long")));
            }
            self.read_more()?;
        }
    }

    fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>, Ended> {
        while self.pending.len() < length {
            self.read_more()?;
        }
        Ok(self.take(length))
    }

    fn read_more(&mut self) -> Result<(), Ended> {
        let mut bytes = [0; 8192];
        match self.stream.read(&mut bytes)? {
            0 => Err(Ended::Closed),
            read => {
                self.pending.extend_from_slice(&bytes[..read]);
                Ok(())
            }
        }
    }

    /// The first bytes of what is pending; copied, so that the buffer is kept.
    fn take(&mut self, length: usize) -> Vec<u8> {
        let taken = self.pending[..length].to_vec();
        self.pending.drain(..length);
        taken
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Blocks until the client has closed or reset its side.
    pub(crate) fn wait_for_close(&mut self) {
        let _ = self.stream.set_read_timeout(None);
        let mut bytes = [0; 1024];
        while matches!(self.stream.read(&mut bytes), Ok(1..)) {}
    }

    /// Ends the connection with RST instead of FIN.
    pub(crate) fn reset(&self) {
        reset_on_close(&self.stream);
    }
}

/// Closing this socket's last handle will send RST.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

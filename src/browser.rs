//! The user's browser, for programs on a desk: opened on a URL, and awaited on a loopback redirect (RFC 8252 §7.3).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use ureq::http::Uri;

use crate::process;
use crate::secret::{Secret, SecretBytes};

/// Where a browser comes back to if nobody says it; the port is a free one.
const REDIRECT_URI: &str = "http://127.0.0.1/callback";
/// A request's head may be no longer.
const LONGEST_HEAD: usize = 32 << 10;
/// Browsers open connections ahead of their requests.
const MOST_GUESTS: usize = 32;

const WELCOME: &str = "The answer has arrived. You can close this window and go back to the program.\n";
const NOT_FOUND: &str = "There is nothing here.\n";
const ANOTHER: &str = "This is not the answer to the sign-in that is under way.\n";

/// A listener on this machine that one browser is to come back to.
pub struct Loopback {
    /// With the port that it listens on.
    pub redirect_uri: String,
    origin: String,
    path: String,
    listeners: Vec<TcpListener>,
    guests: Vec<Guest>,
}

/// A connection whose request has not been read yet.
struct Guest {
    stream: TcpStream,
    head: SecretBytes,
}

impl Loopback {
    /// Listens where `redirect_uri` says: http, 127.0.0.1, [::1] or localhost; without a port, on a free one.
    pub fn listen(redirect_uri: Option<&str>) -> Result<Self, String> {
        let uri: Uri = redirect_uri.unwrap_or(REDIRECT_URI).parse().map_err(|_| "not a valid URL".to_owned())?;
        let (host, path) = (uri.host().unwrap_or_default().to_ascii_lowercase(), uri.path().to_owned());
        let addresses: &[fn(u16) -> SocketAddr] = match host.as_str() {
            "127.0.0.1" => &[v4],
            "[::1]" => &[v6],
            "localhost" => &[v4, v6],
            _ => return Err("to listen there it must be of 127.0.0.1, [::1] or localhost".to_owned()),
        };
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err("to listen there it must be http, without a query".to_owned());
        }
        let mut port = uri.port_u16().unwrap_or(0);
        let mut listeners = Vec::new();
        for address in addresses {
            match TcpListener::bind(address(port)).and_then(|listener| {
                listener.set_nonblocking(true)?;
                port = listener.local_addr()?.port();
                Ok(listener)
            }) {
                Ok(listener) => listeners.push(listener),
                // Not every machine has IPv6.
                Err(_) if !listeners.is_empty() => {}
                Err(error) => return Err(format!("nothing can listen there: {error}")),
            }
        }
        let origin = format!("http://{host}:{port}");
        Ok(Self { redirect_uri: format!("{origin}{path}"), origin, path, listeners, guests: Vec::new() })
    }

    /// Deals with what has arrived, without waiting: the URL of the one request that is an answer, once it has come.
    pub fn look(&mut self, is_answer: impl Fn(&str) -> bool) -> Option<Secret> {
        for listener in &self.listeners {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nonblocking(true).is_ok() {
                    let head = SecretBytes::new(Vec::with_capacity(LONGEST_HEAD));
                    self.guests.push(Guest { stream, head });
                }
                if self.guests.len() > MOST_GUESTS {
                    self.guests.remove(0);
                }
            }
        }
        for mut guest in std::mem::take(&mut self.guests) {
            match guest.target() {
                Request::Coming => self.guests.push(guest),
                Request::Gone => {}
                Request::Bad => guest.answer("404 Not Found", NOT_FOUND),
                Request::Get(target) => {
                    let url = Secret::new(format!("{}{}", self.origin, target.expose()));
                    if target.expose().split('?').next() != Some(&self.path) {
                        guest.answer("404 Not Found", NOT_FOUND);
                    } else if is_answer(url.expose()) {
                        guest.answer("200 OK", WELCOME);
                        return Some(url);
                    } else {
                        guest.answer("400 Bad Request", ANOTHER);
                    }
                }
            }
        }
        None
    }
}

fn v4(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn v6(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}

enum Request {
    Coming,
    Gone,
    /// Any but a GET of a path.
    Bad,
    /// Path and query.
    Get(Secret),
}

impl Guest {
    fn target(&mut self) -> Request {
        let mut part = zeroize::Zeroizing::new([0; 4096]);
        loop {
            match self.stream.read(&mut *part) {
                Ok(0) => return Request::Gone,
                Ok(read) if self.head.len() + read > LONGEST_HEAD => return Request::Bad,
                Ok(read) => self.head.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Request::Gone,
            }
        }
        if !self.head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Request::Coming;
        }
        let line = self.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let target = str::from_utf8(line).ok().and_then(|line| line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1"));
        match target.filter(|target| target.starts_with('/')) {
            Some(target) => Request::Get(Secret::new(target)),
            None => Request::Bad,
        }
    }

    /// Whether it arrives is the browser's business.
    fn answer(mut self, status: &str, text: &str) {
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        let _ = self.stream.write_all(answer.as_bytes()).and_then(|()| self.stream.shutdown(Shutdown::Write));
    }
}

/// The program that was started to open a browser, and those that are tried if it cannot.
pub struct Browser {
    url: Secret,
    commands: VecDeque<Vec<String>>,
    child: Option<Child>,
    trouble: Vec<String>,
}

impl Browser {
    /// Opens a URL in the user's browser: by `$BROWSER`, if that is set, else by the system's own program for it.
    pub fn open(url: Secret) -> Result<Self, String> {
        let named = std::env::var("BROWSER").ok().filter(|named| !named.trim().is_empty());
        let words = |command: &str| command.split_whitespace().map(str::to_owned).collect();
        let commands: VecDeque<Vec<String>> = match &named {
            // Several, best first; %s stands for the URL.
            Some(named) if cfg!(unix) => named.split(':').map(words).collect(),
            Some(named) => [words(named)].into(),
            None if cfg!(target_os = "macos") => [words("open")].into(),
            None if cfg!(windows) => [words("rundll32 url.dll,FileProtocolHandler")].into(),
            None => [words("xdg-open")].into(),
        };
        let mut browser = Self { url, commands, child: None, trouble: Vec::new() };
        match browser.start_next() {
            None => Ok(browser),
            Some(trouble) => Err(trouble),
        }
    }

    /// Why none could be opened, once that is known.
    pub fn trouble(&mut self) -> Option<String> {
        let ended = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        if ended.success() {
            return None;
        }
        self.trouble.push(ended.to_string());
        self.start_next()
    }

    /// Why there is no next one.
    fn start_next(&mut self) -> Option<String> {
        while let Some(command) = self.commands.pop_front() {
            let Some((program, words)) = command.split_first() else { continue };
            let mut process = Command::new(program);
            process.args(words.iter().map(|word| if word == "%s" { self.url.expose() } else { word }));
            if !words.iter().any(|word| word == "%s") {
                process.arg(self.url.expose());
            }
            match process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
                Ok(child) => {
                    self.child = Some(child);
                    return None;
                }
                Err(error) => self.trouble.push(format!("{program}: {error}")),
            }
        }
        Some(self.trouble.join("; "))
    }
}

impl Drop for Browser {
    /// It may live as long as the browser does; somebody must learn of its end.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take()
            && !matches!(child.try_wait(), Ok(Some(_)))
        {
            process::start_thread(move || drop(child.wait()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// What a browser is answered that sends this, and the URL that was taken for the answer.
    fn visit(loopback: &mut Loopback, request: &str) -> (String, Option<String>) {
        let address = loopback.origin.strip_prefix("http://").unwrap().replace("localhost", "127.0.0.1");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let mut found = None;
        while found.is_none() && Instant::now() < until {
            found = loopback.look(|url| url.ends_with("?right")).map(|url| url.expose().to_owned());
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).is_ok() || !answer.is_empty() {
                return (answer, found);
            }
        }
        panic!("no answer to {request}")
    }

    #[test]
    fn one_request_is_the_answer_and_the_others_do_not_end_the_wait() {
        let mut loopback = Loopback::listen(None).unwrap();
        assert!(loopback.redirect_uri.starts_with("http://127.0.0.1:") && loopback.redirect_uri.ends_with("/callback"));
        for (request, status) in [
            ("GET /favicon.ico HTTP/1.1\r\n\r\n", "404"),
            ("GET /callback/x?right HTTP/1.1\r\n\r\n", "404"),
            ("GET callback?right HTTP/1.1\r\n\r\n", "404"),
            ("POST /callback?right HTTP/1.1\r\n\r\n", "404"),
            ("GET /callback?right\r\n\r\n", "404"),
            ("\u{16}\u{3}\u{1}\r\n\r\n", "404"),
            ("GET /callback HTTP/1.1\r\n\r\n", "400"),
            ("GET /callback?wrong HTTP/1.1\r\n\r\n", "400"),
        ] {
            let (answer, found) = visit(&mut loopback, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            assert_eq!(found, None, "{request}");
        }
        let long = format!("GET /callback?right HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(LONGEST_HEAD));
        assert!(visit(&mut loopback, &long).1.is_none());
        let (answer, found) = visit(&mut loopback, "GET /callback?right HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(found, Some(format!("{}?right", loopback.redirect_uri)));
        assert!(answer.contains("close this window"), "{answer}");
    }

    #[test]
    fn those_who_say_nothing_keep_nobody_waiting() {
        let mut loopback = Loopback::listen(Some("http://localhost/back")).unwrap();
        let address = loopback.listeners[0].local_addr().unwrap();
        let silent: Vec<_> = (0..2 * MOST_GUESTS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let (_, found) = visit(&mut loopback, "GET /back?right HTTP/1.1\r\n\r\n");
        assert!(found.is_some() && loopback.guests.len() <= MOST_GUESTS);
        drop(silent);
    }

    #[test]
    fn it_listens_on_this_machine_only() {
        for (uri, word) in [
            ("https://127.0.0.1/", "must be http"),
            ("http://127.0.0.1/?a=b", "without a query"),
            ("http://127.0.0.2/", "127.0.0.1"),
            ("http://0.0.0.0/", "127.0.0.1"),
            ("http://app.example/", "127.0.0.1"),
            ("app:/x", "valid"),
        ] {
            let error = Loopback::listen(Some(uri)).err().unwrap();
            assert!(error.contains(word), "{uri}: {error}");
        }
        let taken = Loopback::listen(Some("http://127.0.0.1")).unwrap();
        assert!(taken.redirect_uri.ends_with('/'), "{}", taken.redirect_uri);
        assert!(Loopback::listen(Some(&taken.redirect_uri)).err().unwrap().contains("nothing can listen there"));
    }
}

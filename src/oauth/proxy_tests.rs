use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::super::Deadline;
use super::super::http::{Failed, Http, Method, Request};
use super::*;
use crate::config::Transport as Settings;

fn uri(text: &str) -> Uri {
    text.parse().unwrap()
}

#[test]
fn urls() {
    for (url, kind, at, user) in [
        ("http://proxy.example", Kind::Http, "http://proxy.example:80", None),
        (" HTTP://proxy.example:3128/ ", Kind::Http, "http://proxy.example:3128", None),
        ("https://proxy.example", Kind::Https, "https://proxy.example:443", None),
        ("socks5://[::1]", Kind::Socks, "http://[::1]:1080", None),
        ("socks5h://u:p@10.0.0.1:9", Kind::Socks, "http://10.0.0.1:9", Some(("u", "p"))),
        ("http://u@h", Kind::Http, "http://h:80", Some(("u", ""))),
        ("http://u%3Av:p%40%2F%25:%C3%A4@h", Kind::Http, "http://h:80", Some(("u:v", "p@/%:ä"))),
        ("http://u:p@/q@h", Kind::Http, "http://h:80", Some(("u", "p@/q"))),
    ] {
        let proxy = Proxy::parse(url).unwrap();
        assert_eq!((proxy.kind, &proxy.uri), (kind, &uri(at)), "{url}");
        let found = proxy.user.as_ref().map(|(user, password)| (user.expose(), password.expose()));
        assert_eq!(found, user, "{url}");
    }
    let long = format!("socks5://u:{}@h", "p".repeat(256));
    for bad in [
        "proxy.example:3128",
        "ftp://h",
        "socks4://h",
        "http://",
        "http://u:canary@",
        "http://h:canary",
        "http://h:",
        "http://h:99999",
        "http://h/path",
        "http://h?query",
        "http://:canary@h",
        "http://u:canary%FF@h",
        "http://a b",
        "socks5://u@h",
        &long,
    ] {
        let problem = Proxy::parse(bad).unwrap_err();
        assert!(!problem.contains("canary"), "{problem}");
    }
}

#[test]
fn its_password_is_not_shown() {
    let shown = format!("{:?}", Proxy::parse("https://canary:canary@h").unwrap());
    assert!(shown.contains("h:443") && !shown.contains("canary"), "{shown}");
}

#[test]
fn equal_settings_share_connections() {
    let name = |proxy: &str, roots: Option<&str>, client: Option<[&str; 2]>| {
        let proxy = (!proxy.is_empty()).then(|| Proxy::parse(proxy).unwrap());
        let client = client.map(|[certificate, key]| (certificate.into(), key.into()));
        Settings { files: Files { roots: roots.map(Into::into), client }, proxy }.name()
    };
    let names = [
        name("", None, None),
        name("http://h", None, None),
        name("https://h:80", None, None),
        name("socks5://h:80", None, None),
        name("http://u@h", None, None),
        name("http://u:p@h", None, None),
        name("", Some("a"), None),
        name("", Some("b"), None),
        name("", None, Some(["a", "b"])),
        name("", Some("a"), Some(["a", "b"])),
    ];
    for (at, one) in names.iter().enumerate() {
        assert!(names[at + 1..].iter().all(|other| other != one), "{at}");
    }
    assert_eq!(name("http://u:p@h", Some("a"), None), name("http://u:p@h:80/", Some("a"), None));
}

#[test]
fn the_request_for_a_tunnel() {
    let request =
        |proxy: &str, target: &str| Proxy::parse(proxy).unwrap().connect_request(&uri(target)).expose().to_owned();
    assert_eq!(
        request("http://h", "https://[2001:db8::1]/token"),
        "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n"
    );
    // RFC 7617 §2.
    assert_eq!(
        request("https://Aladdin:open%20sesame@h", "https://as.example:8443/token"),
        "CONNECT as.example:8443 HTTP/1.1\r\nHost: as.example:8443\r\n\
         Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
    );
}

/// What a client says that goes through a proxy with this answer.
fn through(scheme: &str, answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut read = [0; 1024];
            let _ = stream.read(&mut read);
            let _ = stream.write_all(answer);
            if answer.is_empty() {
                thread::sleep(Duration::from_secs(5));
            }
        }
    });
    sent(&format!("{scheme}://user:canary@127.0.0.1:{port}"))
}

/// What a client says that has sent nothing through this proxy.
fn sent(proxy: &str) -> String {
    let http = Http::new(&Settings { proxy: Some(Proxy::parse(proxy).unwrap()), ..Settings::default() });
    let request = Request {
        method: Method::Get,
        endpoint: "https://as.example/token",
        user_agent: "test/1",
        authorization: None,
        headers: Vec::new(),
        form: None,
    };
    let now = crate::sync::Instant::now();
    let deadline = Deadline { first_byte: now + Duration::from_millis(500), answer: now + Duration::from_secs(9) };
    match http.send(&request, deadline, &|| panic!("there is no connection")) {
        Err(Failed::NotSent(failure)) => failure.message,
        Err(Failed::Unknown(failure)) => panic!("unknown: {failure:?}"),
        Ok(response) => panic!("answered with {}", response.status),
    }
}

#[test]
fn what_a_proxy_says_against_it() {
    let long = [b'x'; LONGEST_HEAD + 1];
    for (scheme, answer, words) in [
        ("http", &b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n"[..], "refuses the user and the password"),
        ("http", b"HTTP/1.0 403 Forbidden\r\n\r\n", "does not connect to the server (HTTP status 403)"),
        ("http", b"SSH-2.0-x\r\n\r\n", "does not answer as an HTTP proxy"),
        ("http", b"HTTP/1.1 20", "no connection through the proxy"),
        ("http", Vec::leak(long.to_vec()), "does not answer as an HTTP proxy"),
        ("http", b"", "connect_timeout_ms"),
        ("https", b"HTTP/1.1 400 no TLS\r\n\r\n", "no TLS connection"),
        ("https", b"", "connect_timeout_ms"),
        ("socks5", b"\x05\xff", "no acceptable auth methods"),
        ("socks5", b"\x05\x02\x01\x01", "password authentication failed"),
        ("socks5", b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0", "connection refused"),
        ("socks5", b"HTTP/1.1 400 no SOCKS\r\n\r\n", "invalid response version"),
        ("socks5", b"", "connect_timeout_ms"),
    ] {
        let started = Instant::now();
        let message = through(scheme, answer);
        assert!(message.contains(words), "{scheme} {}: {message}", String::from_utf8_lossy(answer));
        assert!(words == "connect_timeout_ms" || message.contains("configuration key \"proxy\""), "{message}");
        assert!(message.ends_with("; nothing was sent") && !message.contains("canary"), "{message}");
        assert!(started.elapsed() < Duration::from_secs(4), "{scheme}: {:?}", started.elapsed());
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for scheme in ["http", "https", "socks5"] {
        let message = sent(&format!("{scheme}://{closed}"));
        assert!(message.contains("no connection through the proxy") && message.contains("refused"), "{message}");
        let message = sent(&format!("{scheme}://no-such-host.invalid"));
        assert!(message.contains("proxy") && message.contains("cannot be resolved"), "{message}");
    }
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let mut stream = &b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nrest"[..];
    assert_eq!(read_head(&mut stream).unwrap(), 200);
    assert_eq!(stream, b"rest");
}

#[test]
fn plain_http_stays_on_this_machine() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut stream: TcpStream = listener.accept().unwrap().0;
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    let proxy = Some(Proxy::parse("http://no-such-host.invalid").unwrap());
    let http = Http::new(&Settings { proxy, ..Settings::default() });
    let request = Request {
        method: Method::Get,
        endpoint: &endpoint,
        user_agent: "test/1",
        authorization: None,
        headers: Vec::new(),
        form: None,
    };
    let soon = crate::sync::Instant::now() + Duration::from_secs(10);
    let response = http.send(&request, Deadline { first_byte: soon, answer: soon }, &|| Ok(()));
    assert_eq!(response.map_err(|failed| format!("{failed:?}")).unwrap().status, 204);
}

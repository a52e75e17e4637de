use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use ureq::unversioned::transport::{Buffers, ConnectionDetails, NextTimeout, Transport};

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Accepts connections one after the other and gives each to `serve`; returns the endpoint.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
    endpoint
}

/// One request, head and body; `None` at the end of the connection.
fn read_request(stream: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|length| length.parse().unwrap());
    let length = length.unwrap_or_default();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

fn answering(answer: &'static [u8]) -> String {
    server(move |stream| {
        read_request(&mut BufReader::new(&stream));
        (&stream).write_all(answer).unwrap();
    })
}

fn request(endpoint: &str) -> Request<'_> {
    Request {
        method: Method::Post,
        endpoint,
        user_agent: "test/1",
        authorization: Some(Secret::new("Basic eDp5")),
        headers: Vec::new(),
        form: Some(Secret::new("token=canary")),
    }
}

fn within(first_byte: u64, answer: u64) -> Deadline {
    let now = Instant::now();
    Deadline { first_byte: now + Duration::from_millis(first_byte), answer: now + Duration::from_millis(answer) }
}

fn send(http: &Http, endpoint: &str, deadline: Deadline) -> Result<Response, Failed> {
    http.send(&request(endpoint), deadline, &|| Ok(()))
}

#[track_caller]
fn not_sent(result: Result<Response, Failed>) -> Failure {
    match result {
        Err(Failed::NotSent(failure)) => failure,
        Err(Failed::Unknown(failure)) => panic!("unknown: {failure:?}"),
        Ok(response) => panic!("answered with {}", response.status),
    }
}

#[track_caller]
fn unknown(result: Result<Response, Failed>) -> Failure {
    match result {
        Err(Failed::Unknown(failure)) => failure,
        Err(Failed::NotSent(failure)) => panic!("not sent: {failure:?}"),
        Ok(response) => panic!("answered with {}", response.status),
    }
}

#[test]
fn the_request_on_the_wire() {
    let (heard, hear) = mpsc::channel();
    let endpoint = server(move |stream| {
        let mut reader = BufReader::new(&stream);
        while let Some(request) = read_request(&mut reader) {
            heard.send(request).unwrap();
            (&stream).write_all(OK).unwrap();
        }
    });
    let http = Http::default();
    let response = send(&http, &endpoint, within(5_000, 5_000)).unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, &b"{}"[..]));
    let wire = hear.recv().unwrap();
    let host = &endpoint[7..endpoint.len() - 6];
    let mut lines: Vec<&str> = wire.lines().collect();
    assert_eq!((lines.remove(0), lines.pop(), lines.pop()), ("POST /token HTTP/1.1", Some("token=canary"), Some("")));
    lines.sort();
    let expected = [
        "accept: application/json",
        "authorization: Basic eDp5",
        "content-length: 12",
        "content-type: application/x-www-form-urlencoded",
        &format!("host: {host}"),
        "user-agent: test/1",
    ];
    assert_eq!(lines, expected);

    let headers = vec![("refresh_token".into(), Secret::new("canary"))];
    let bare = Request { headers, form: None, ..request(&endpoint) };
    http.send(&bare, within(5_000, 5_000), &|| Ok(())).map_err(|_| "failed").unwrap();
    let wire = hear.recv().unwrap();
    assert!(wire.contains("\r\nrefresh_token: canary\r\n") && wire.contains("\r\ncontent-length: 0\r\n"), "{wire}");
    assert!(wire.ends_with("\r\n\r\n") && !wire.contains("content-type"), "{wire}");

    let get = Request { method: Method::Get, authorization: None, form: None, ..request(&endpoint) };
    http.send(&get, within(5_000, 5_000), &|| Ok(())).map_err(|_| "failed").unwrap();
    let wire = hear.recv().unwrap();
    let mut lines: Vec<&str> = wire.lines().collect();
    assert_eq!((lines.remove(0), lines.pop()), ("GET /token HTTP/1.1", Some("")));
    lines.sort();
    assert_eq!(lines, ["accept: application/json", &format!("host: {host}"), "user-agent: test/1"]);
}

#[test]
fn a_long_body_arrives_whole() {
    let (heard, hear) = mpsc::channel();
    let endpoint = server(move |stream| {
        heard.send(read_request(&mut BufReader::new(&stream)).unwrap()).unwrap();
        (&stream).write_all(OK).unwrap();
    });
    let body: String = (0..20_000).map(|n| format!("{n},")).collect();
    let long = Request { form: Some(Secret::new(body.as_str())), ..request(&endpoint) };
    Http::default().send(&long, within(5_000, 5_000), &|| Ok(())).map_err(|_| "failed").unwrap();
    assert!(hear.recv().unwrap().ends_with(&format!("\r\n\r\n{body}")));
}

#[test]
fn a_shut_gate_lets_no_byte_out() {
    let (heard, hear) = mpsc::channel();
    let endpoint = server(move |mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        heard.send(bytes).unwrap();
    });
    let bodies = [(Method::Post, Some(Secret::new("token=canary"))), (Method::Post, None), (Method::Get, None)];
    for (method, form) in bodies {
        let asked = Cell::new(0);
        let gate = || {
            asked.set(asked.get() + 1);
            Err("another party has the session".to_owned())
        };
        let result = Http::default().send(&Request { method, form, ..request(&endpoint) }, within(5_000, 5_000), &gate);
        let failure = not_sent(result);
        assert!(failure.message.contains("another party has the session"), "{}", failure.message);
        assert_eq!(asked.get(), 1);
        assert_eq!(hear.recv_timeout(Duration::from_secs(5)).unwrap(), b"");
    }
}

#[test]
fn too_late_lets_no_byte_out() {
    let (heard, hear) = mpsc::channel();
    let endpoint = server(move |mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        heard.send(bytes).unwrap();
    });
    let slow = || {
        thread::sleep(Duration::from_millis(80));
        Ok(())
    };
    let failure = not_sent(Http::default().send(&request(&endpoint), within(50, 5_000), &slow));
    assert!(failure.message.contains("connect_timeout_ms"), "{}", failure.message);
    assert_eq!(hear.recv_timeout(Duration::from_secs(5)).unwrap(), b"");
    // Late from the start: there is not even a connection.
    not_sent(send(&Http::default(), &endpoint, within(0, 5_000)));
    assert!(hear.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn no_connection_binds_this_host() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unresolvable = "https://no-such-host.invalid/token".to_owned();
    for (endpoint, word) in [(format!("http://{closed}/token"), "no connection"), (unresolvable, "resolved")] {
        let failure = not_sent(send(&Http::default(), &endpoint, within(5_000, 5_000)));
        assert!(failure.message.contains(word), "{}", failure.message);
        assert_eq!((failure.reason, failure.binds), ("network", Binds::Host(crate::host::name())));
    }
}

#[test]
fn a_failed_tls_handshake_is_not_sent() {
    let endpoint = server(|stream| {
        let _ = (&stream).write_all(b"HTTP/1.1 400 this is no TLS\r\n\r\n");
    });
    let failure = not_sent(send(&Http::default(), &endpoint.replace("http:", "https:"), within(5_000, 5_000)));
    assert!(failure.message.contains("no TLS connection"), "{}", failure.message);
    // A server that accepts and says nothing.
    let (_keep, hold) = mpsc::channel::<()>();
    let hold = std::sync::Mutex::new(hold);
    let silent = server(move |_stream| hold.lock().unwrap().recv().unwrap_or_default());
    let started = Instant::now();
    let failure = not_sent(send(&Http::default(), &silent.replace("http:", "https:"), within(200, 5_000)));
    assert!(failure.message.contains("connect_timeout_ms"), "{}", failure.message);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn what_breaks_after_the_request_is_unknown() {
    let cut: [(&'static [u8], &str, &str); 6] = [
        (b"", "network", "broke"),
        (b"HTTP/1.1 200", "network", "broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"access_token\":", "network", "broke"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", "network", "broke"),
        (b"220 mail.example ESMTP\r\n\r\n", "bad_answer", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "bad_answer", "not HTTP"),
    ];
    for (answer, reason, word) in cut {
        let failure = unknown(send(&Http::default(), &answering(answer), within(5_000, 5_000)));
        assert_eq!(failure.reason, reason, "{}", failure.message);
        assert!(failure.message.contains(word), "{}", failure.message);
        assert!(!failure.message.contains("canary"), "{}", failure.message);
    }
}

#[test]
fn the_answer_is_limited_in_time_and_size() {
    let endpoint = server(|stream| {
        read_request(&mut BufReader::new(&stream));
        // Slow, but never silent for long.
        for byte in OK {
            thread::sleep(Duration::from_millis(50));
            let _ = (&stream).write_all(&[*byte]);
        }
    });
    let started = Instant::now();
    let failure = unknown(send(&Http::default(), &endpoint, within(5_000, 300)));
    assert!(failure.message.contains("exchange_timeout_ms"), "{}", failure.message);
    assert!((300..1_500).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());

    let endless = server(|stream| {
        read_request(&mut BufReader::new(&stream));
        let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while (&stream).write_all(&[b' '; 65_536]).is_ok() {}
    });
    let failure = unknown(send(&Http::default(), &endless, within(5_000, 5_000)));
    assert_eq!(failure.reason, "bad_answer");
    assert!(failure.message.contains("larger than 1 MiB"), "{}", failure.message);
}

/// Connections of a process that is stopped before or after a request leaves, until its time is over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stopped {
    Before,
    After,
}

#[derive(Debug)]
struct StoppedTransport<In>(Stopped, In);

impl Stopped {
    fn stop_if(self, at: Self) {
        if self == at {
            thread::sleep(Duration::from_millis(400));
        }
    }
}

impl<In: Transport> Connector<In> for Stopped {
    type Out = StoppedTransport<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(|inner| StoppedTransport(*self, inner)))
    }
}

impl<In: Transport> Transport for StoppedTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.1.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.stop_if(Stopped::Before);
        self.1.transmit_output(amount, timeout)?;
        self.0.stop_if(Stopped::After);
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.1.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.1.is_open()
    }
}

#[test]
fn an_answer_that_came_in_time_is_read_although_nobody_could_read_it_in_time() {
    let http = Http::over(Dial::default().chain(Stopped::After));
    let response = send(&http, &answering(OK), within(200, 300)).map_err(|failed| format!("{failed:?}")).unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"{}"[..]));
    let silent = server(|stream| drop(read_request(&mut BufReader::new(&stream))));
    unknown(send(&http, &silent, within(200, 300)));
}

#[test]
fn an_answer_to_a_request_that_left_late_is_awaited() {
    let slow = server(|stream| {
        read_request(&mut BufReader::new(&stream));
        thread::sleep(Duration::from_millis(100));
        let _ = (&stream).write_all(OK);
    });
    let http = Http::over(Dial::default().chain(Stopped::Before));
    let response = send(&http, &slow, within(200, 300)).map_err(|failed| format!("{failed:?}")).unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"{}"[..]));
    let silent = server(|stream| {
        read_request(&mut BufReader::new(&stream));
        thread::sleep(Duration::from_secs(5));
    });
    let failure = unknown(send(&http, &silent, within(200, 300)));
    assert!(failure.message.contains("exchange_timeout_ms"), "{}", failure.message);
}

#[test]
fn redirects_are_answers() {
    let (heard, hear) = mpsc::channel();
    let elsewhere = server(move |_| heard.send(()).unwrap());
    let answer = format!("HTTP/1.1 307 Moved\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n");
    let response = send(&Http::default(), &answering(answer.leak().as_bytes()), within(5_000, 5_000)).unwrap();
    assert_eq!((response.status, response.redirects_to.as_ref()), (307, Some(&elsewhere)));
    assert!(hear.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn connections_are_reused_and_the_gate_asked_again() {
    let (heard, hear) = mpsc::channel();
    let endpoint = server(move |stream| {
        heard.send("connection").unwrap();
        let mut reader = BufReader::new(&stream);
        while read_request(&mut reader).is_some() {
            heard.send("request").unwrap();
            (&stream).write_all(OK).unwrap();
        }
    });
    let http = Http::default();
    let asked = Cell::new(0);
    let gate = || {
        asked.set(asked.get() + 1);
        if asked.get() == 3 { Err("enough".to_owned()) } else { Ok(()) }
    };
    for _ in 0..2 {
        http.send(&request(&endpoint), within(5_000, 5_000), &gate).map_err(|_| "failed").unwrap();
    }
    not_sent(http.send(&request(&endpoint), within(5_000, 5_000), &gate));
    assert_eq!(asked.get(), 3);
    drop(http);
    assert_eq!(hear.recv_timeout(Duration::from_secs(5)), Ok("connection"));
    assert_eq!((hear.recv(), hear.recv()), (Ok("request"), Ok("request")));
    assert!(hear.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn a_connection_that_the_server_closed_is_not_reused() {
    let http = Http::default();
    let endpoint = answering(OK);
    for _ in 0..3 {
        assert_eq!(send(&http, &endpoint, within(5_000, 5_000)).unwrap().status, 200);
        // The end of the connection is there before the next request.
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn connections_idle_for_long_are_not_reused() {
    let (heard, hear) = mpsc::channel();
    let endpoint = server(move |stream| {
        heard.send(()).unwrap();
        thread::spawn(move || {
            let mut reader = BufReader::new(&stream);
            while read_request(&mut reader).is_some() {
                (&stream).write_all(OK).unwrap();
            }
        });
    });
    let http = Http::default();
    send(&http, &endpoint, within(5_000, 5_000)).unwrap();
    thread::sleep(MAX_IDLE + Duration::from_millis(100));
    send(&http, &endpoint, within(5_000, 5_000)).unwrap();
    assert_eq!(hear.try_iter().count(), 2);
}

#[test]
fn retry_after() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (written, expected) in [
        ("7", Some(7_000)),
        ("0", Some(0)),
        ("99999999", Some(86_400_000)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
        ("-5", None),
        ("soon", None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, written.parse().unwrap());
        assert_eq!(retry_after_ms(&headers, now), expected, "{written}");
    }
    assert_eq!(retry_after_ms(&HeaderMap::new(), now), None);
    assert_eq!(http_date("Thu, 29 Feb 2024 23:59:60 GMT"), Some(1_709_251_200));
    assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    assert_eq!(http_date("Thu, 00 Jan 1970 00:00:00 GMT"), None);
}

#[test]
fn forms_are_percent_encoded() {
    let form = form([("grant_type", "refresh_token"), ("a b", "5Aep==+&%/~-._\u{e9}\n")]);
    assert_eq!(form.expose(), "grant_type=refresh_token&a%20b=5Aep%3D%3D%2B%26%25%2F~-._%C3%A9%0A");
}

//! A client that does nothing by itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evergrant_test_server::Server;
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Raw(pub TcpStream);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Raw {
    pub fn connect(server: &Server) -> Self {
        Self::connect_to(&server.url())
    }

    pub fn connect_to(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        let text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.0.write_all(text.as_bytes())
    }

    pub fn post(&mut self, path: &str, headers: &str, body: &str) -> io::Result<()> {
        let headers = format!("Content-Type: application/x-www-form-urlencoded\r\n{headers}");
        self.send("POST", path, &headers, body)
    }

    /// One reply with a Content-Length.
    pub fn receive(&mut self) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            if self.0.read(&mut byte)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            bytes.push(byte[0]);
        }
        let head = String::from_utf8(bytes).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        answer.body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
        self.0.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// Everything until the connection ends, and whether it ended by a reset.
    pub fn receive_all(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => (bytes, false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, true),
            Err(error) => panic!("{error}"),
        }
    }

    pub fn post_and_receive(&mut self, path: &str, headers: &str, body: &str) -> Answer {
        self.post(path, headers, body).unwrap();
        self.receive().unwrap()
    }

    pub fn get(&mut self, path: &str, headers: &str) -> Answer {
        self.send("GET", path, headers, "").unwrap();
        self.receive().unwrap()
    }

    pub fn refresh(&mut self, path: &str, refresh_token: &str) -> Answer {
        self.post_and_receive(path, &basic("client", "secret"), &refresh_body(refresh_token))
    }
}

pub fn basic(id: &str, secret: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{id}:{secret}")))
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

pub fn encoded(token: &str) -> String {
    token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

pub fn refresh_body(refresh_token: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={}", encoded(refresh_token))
}

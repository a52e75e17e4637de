//! Where the server is: `redis://user:password@host:6379,host2:6379/0`.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::store::roots::Roots;

pub const PORT: u16 = 6379;

/// Where to connect to, and how.
pub struct Server {
    /// In the order in which they are tried.
    pub hosts: Vec<(String, u16)>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: u32,
    /// `None`: no TLS.
    pub tls: Option<Roots>,
}

/// The error shows nothing of the URL: a part of a password may be anywhere in one that is wrong.
fn wrong(problem: &str) -> Error {
    Error::invalid(format!("configuration key \"store\": {problem}"))
}

const EXPECTED: &str = "expected redis://user:password@host:6379/0, or rediss:// for TLS, with what is special in a user's \
     name or password percent-encoded; several hosts are separated by commas; there is one parameter, ssl_ca_certs";

pub fn parse(url: &Secret) -> Result<Server> {
    let expected = || wrong(EXPECTED);
    let (scheme, rest) = url.expose().split_once("://").ok_or_else(expected)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(Secret::new).map_err(|_| expected());
    let (mut user, mut password) = (None, None);
    if let Some(login) = login {
        let (name, secret) = login
            .split_once(':')
            .ok_or_else(|| wrong("a password alone is written redis://:password@host, with a colon before it"))?;
        user = Some(decoded(name)?.expose().to_owned()).filter(|name| !name.is_empty());
        password = Some(decoded(secret)?);
    }
    let mut roots = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("ssl_ca_certs", path)) => roots = Some(Roots::File(PathBuf::from(decoded(path)?.expose()))),
            _ => return Err(expected()),
        }
    }
    let tls = match scheme {
        "rediss" => Some(roots.unwrap_or(Roots::Platform)),
        _ if roots.is_some() => return Err(wrong("ssl_ca_certs is for rediss://, which is Redis over TLS")),
        _ => None,
    };
    let database = match database {
        "" => 0,
        number => number.parse().map_err(|_| wrong("what follows the hosts is the number of a database: …/0"))?,
    };
    let hosts = hosts.split(',').map(|host| address(host).ok_or_else(expected)).collect::<Result<_>>()?;
    Ok(Server { hosts, user, password, database, tls })
}

/// `host`, `host:port`, `[::1]:port`
pub fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (host, port) = text.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(PORT), str::parse).ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// For messages: hosts, ports and database, no user, no password.
pub fn name(hosts: &[(String, u16)], database: u32) -> String {
    let shown = |(host, port): &(String, u16)| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    format!("the Redis store {}/{database}", hosts.iter().map(shown).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        parse(&Secret::new(url)).unwrap()
    }

    #[test]
    fn urls_say_where_and_as_whom() {
        let s = server("redis://u%40x:p%2Fw%3Fd@cache.example:6380/3");
        assert_eq!((s.user.as_deref(), s.password.as_ref().map(Secret::expose)), (Some("u@x"), Some("p/w?d")));
        assert_eq!((&s.hosts[..], s.database), (&[("cache.example".to_owned(), 6380)][..], 3));
        assert!(s.tls.is_none());

        let s = server("rediss://:secret@a,b:2,[::1],[::2]:3/?ssl_ca_certs=%2Fca.crt");
        assert_eq!((s.user, s.password.as_ref().map(Secret::expose)), (None, Some("secret")));
        assert_eq!(s.tls, Some(Roots::File("/ca.crt".into())));
        assert_eq!(name(&s.hosts, s.database), "the Redis store a:6379,b:2,[::1]:6379,[::2]:3/0");
        assert_eq!(server("rediss://h").tls, Some(Roots::Platform));
        assert!(server("redis://h").password.is_none());
    }

    #[test]
    fn no_error_shows_a_part_of_the_url() {
        for url in [
            "redis://u:canary@h/canary",
            "redis://u:canary@h:canary/0",
            "redis://canary@h/0",
            "redis://u:canary@h/0?canary",
            "redis://u:canary@h/0?canary=x",
            "redis://u:canary@h/0?ssl_ca_certs=canary",
            "redis://u:canary@[h/0",
            "redis://u:canary@h,/0",
            "redis://u:canary@/0",
            "rediss://u:%ffcanary@h",
        ] {
            let error = parse(&Secret::new(url)).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert_eq!(error.status, crate::Status::InvalidArgument);
            assert!(error.message.contains("\"store\"") && !error.message.contains("canary"), "{url}: {error}");
        }
    }
}

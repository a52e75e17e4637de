//! Where the server is: a URL as libpq reads it.

use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::Mode;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::store::roots::Roots;

/// Where to connect to, and how.
pub struct Server {
    /// Everything but the hosts and TLS.
    pub config: Config,
    /// In the order in which they are tried.
    pub hosts: Vec<(Host, u16)>,
    pub mode: Mode,
    pub roots: Roots,
    /// For messages: hosts, ports and database, no user, no password.
    pub name: String,
}

/// The error shows nothing of the URL: a part of a password may be anywhere in one that is wrong.
fn wrong(problem: &str) -> Error {
    Error::invalid(format!("configuration key \"store\": {problem}"))
}

const EXPECTED: &str = "expected postgres://user:password@host:5432/database?sslmode=verify-full, with what is special in a user's name or \
     password percent-encoded; of libpq's parameters there are sslmode, sslrootcert, sslnegotiation, options, \
     application_name, target_session_attrs, load_balance_hosts, host, hostaddr, port, user, password, dbname, \
     channel_binding, keepalives, keepalives_idle, keepalives_interval, keepalives_retries and tcp_user_timeout";

pub fn parse(url: &Secret) -> Result<Server> {
    let url = url.expose();
    let after_password = url.find('@').unwrap_or(0);
    let (base, query) = match url[after_password..].find('?') {
        Some(at) => (&url[..after_password + at], &url[after_password + at + 1..]),
        None => (url, ""),
    };
    // What the driver does not know is taken out here.
    let (mut mode, mut root_file, mut rest) = (None, None, Secret::new(base));
    let mut separator = '?';
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or_else(|| wrong(EXPECTED))?;
        let value = || percent_encoding::percent_decode_str(value).decode_utf8().map_err(|_| wrong(EXPECTED));
        match name {
            "sslmode" => {
                mode =
                    Some(Mode::named(&value()?).ok_or_else(|| {
                        wrong("sslmode is one of disable, prefer, require, verify-ca and verify-full")
                    })?)
            }
            "sslrootcert" => root_file = Some(value()?.into_owned()),
            "sslcert" | "sslkey" | "sslpassword" | "sslcrl" | "passfile" | "service" => {
                return Err(wrong("sslcert, sslkey, sslpassword, sslcrl, passfile and service are not built yet"));
            }
            _ => {
                rest = Secret::new(format!("{}{separator}{parameter}", rest.expose()));
                separator = '&';
            }
        }
    }
    let mut config = Config::from_str(rest.expose()).map_err(|_| wrong(EXPECTED))?;
    let roots = match root_file.as_deref() {
        None | Some("system") => Roots::Platform,
        Some(path) => Roots::File(PathBuf::from(path)),
    };
    // As libpq: whoever names a root certificate wants it to be looked at.
    let mode = match mode {
        Some(Mode::Require) if root_file.is_some() => Mode::VerifyCa,
        Some(mode) => mode,
        None if root_file.as_deref() == Some("system") => Mode::VerifyFull,
        None => Mode::Prefer,
    };
    let hosts = hosts(&config)?;
    if hosts.len() > 1
        && config.get_target_session_attrs() == TargetSessionAttrs::Any
        && !names(query, "target_session_attrs")
    {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_application_name().is_none() {
        config.application_name("evergrant");
    }
    config.ssl_mode(match mode {
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        _ => SslMode::Require,
    });
    let name = name(&hosts, config.get_dbname());
    Ok(Server { config, hosts, mode, roots, name })
}

fn names(query: &str, parameter: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some(parameter))
}

/// One host, or one address of it, for each entry.
fn hosts(config: &Config) -> Result<Vec<(Host, u16)>> {
    let count = config.get_hosts().len().max(config.get_hostaddrs().len());
    if count == 0 {
        return Err(wrong("the URL names no host"));
    }
    let ports = config.get_ports();
    if ports.len() > 1 && ports.len() != count {
        return Err(wrong("the URL names another number of ports than of hosts"));
    }
    let host = |at: usize| match config.get_hosts().get(at) {
        Some(host) => host.clone(),
        None => Host::Tcp(config.get_hostaddrs()[at].to_string()),
    };
    Ok((0..count).map(|at| (host(at), ports.get(at).or(ports.first()).copied().unwrap_or(5432))).collect())
}

fn name(hosts: &[(Host, u16)], database: Option<&str>) -> String {
    let hosts: Vec<_> = hosts
        .iter()
        .map(|(host, port)| match host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{port}"),
            Host::Tcp(host) => format!("{host}:{port}"),
            #[cfg(unix)]
            Host::Unix(path) => format!("{}:{port}", path.display()),
        })
        .collect();
    let database = database.map(|name| format!("/{name}")).unwrap_or_default();
    format!("the PostgreSQL store {}{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        parse(&Secret::new(url)).unwrap()
    }

    #[test]
    fn urls_are_read_as_libpq_does() {
        let s = server(
            "postgres://u%40x:p%2Fw%3Fd@db.example:6000/app?sslmode=verify-full&application_name=x&options=-c%20a%3Db",
        );
        assert_eq!((s.config.get_user(), s.config.get_password()), (Some("u@x"), Some(&b"p/w?d"[..])));
        assert_eq!((s.mode, s.config.get_application_name()), (Mode::VerifyFull, Some("x")));
        assert_eq!(s.config.get_options(), Some("-c a=b"));
        assert_eq!(s.name, "the PostgreSQL store db.example:6000/app");

        let s = server("postgresql://u@a,b:2,[::1]:3/d");
        assert_eq!(s.name, "the PostgreSQL store a:5432,b:2,[::1]:3/d");
        assert_eq!(s.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(s.mode, Mode::Prefer);
        assert_eq!(s.config.get_application_name(), Some("evergrant"));

        let s = server("postgres://a,b/?target_session_attrs=any&sslmode=require&sslrootcert=%2Froot.crt");
        assert_eq!((s.config.get_target_session_attrs(), s.mode), (TargetSessionAttrs::Any, Mode::VerifyCa));
        assert!(matches!(s.roots, Roots::File(path) if path.to_str() == Some("/root.crt")));
        assert_eq!(server("postgres://h/d?sslrootcert=system").mode, Mode::VerifyFull);
        assert_eq!(server("postgres://u:p@/d?host=/run/pg&port=5").name, "the PostgreSQL store /run/pg:5/d");
        assert_eq!(server("postgres://%2Frun%2Fpg/d").name, "the PostgreSQL store /run/pg:5432/d");
    }

    #[test]
    fn no_error_shows_a_part_of_the_url() {
        for url in [
            "postgres://u:canary@h/d?canary=x",
            "postgres://u:canary@h:canary/d",
            "postgres://u:canary@h/d?sslmode=canary",
            "postgres://u:canary@h/d?port=canary",
            "postgres://u:canary@h/d?passfile=canary",
            "postgres://u:canary@[h/d",
            "postgres://u:canary@h/d?canary",
        ] {
            let error = parse(&Secret::new(url)).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert_eq!(error.status, crate::Status::InvalidArgument);
            assert!(error.message.contains("\"store\"") && !error.message.contains("canary"), "{url}: {error}");
        }
    }
}

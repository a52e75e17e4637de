//! Which URLs a client may speak with, and what a server's base URL stands for.

use std::net::{Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;

/// The endpoints of one authorization server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// RFC 6749 §3.2.
    pub token: String,
    /// RFC 6749 §3.1.
    pub authorization: Option<String>,
    /// RFC 7662 §2.
    pub introspection: Option<String>,
    /// RFC 7009 §2.
    pub revocation: Option<String>,
}

/// Checks an endpoint's URL: https, or http to a loopback address; a query is kept (RFC 6749 §3.2).
///
/// The error says what is wrong without showing the URL.
pub fn check_endpoint(url: &str) -> Result<String, String> {
    let url = url.trim();
    parse(url)?;
    Ok(url.to_owned())
}

/// Checks a Salesforce base URL: as [`check_endpoint`], without a query; any path prefix is kept, spaces and trailing
/// slashes are dropped.
pub fn check_site(url: &str) -> Result<String, String> {
    let url = url.trim().trim_end_matches(|c: char| c == '/' || c.is_whitespace());
    let uri = parse(url)?;
    if url.contains('?') {
        return Err("a query does not belong there".into());
    }
    if uri.path().contains("/services/oauth2") {
        return Err("write the URL of the site, without /services/oauth2/…".into());
    }
    Ok(url.to_owned())
}

/// Checks an issuer identifier (RFC 8414 §2): as [`check_endpoint`], without a query. It is kept as it is: it is compared
/// with what the server says.
pub fn check_issuer(url: &str) -> Result<String, String> {
    let url = url.trim();
    parse(url)?;
    if url.contains('?') {
        return Err("a query does not belong there".into());
    }
    if url.contains("/.well-known/") {
        return Err("write the issuer itself, without /.well-known/…".into());
    }
    Ok(url.to_owned())
}

/// Checks an origin (`https://host`, `https://host:port`) and makes it canonical.
pub fn check_origin(url: &str) -> Result<String, String> {
    let url = url.trim().trim_end_matches('/');
    let uri = parse(url)?;
    if uri.path().len() > 1 || url.contains('?') {
        return Err("an origin has no path and no query".into());
    }
    Ok(canonical(url).trim_end_matches('/').to_owned())
}

/// The origin of a URL of any path, in its canonical form; none if no secret may go there: anything but https, or http
/// to a loopback address. What parsers are known to read differently is an error.
pub fn origin(url: &str) -> Result<Option<String>, String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a complete URL: expected https://host/…")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    if authority.contains('\\') {
        return Err("not a valid URL: the host is wrong".into());
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let secure = scheme.eq_ignore_ascii_case("https") || is_loopback(host_of(host));
    let http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    if !http || !secure {
        return Ok(None);
    }
    check_origin(&format!("{scheme}://{host}")).map(Some)
}

/// `host:port` or `[address]:port` without the port.
fn host_of(authority: &str) -> &str {
    match authority.find(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// The same URL for every way to write it: scheme and host in lower case, no default port.
pub fn canonical(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return url.to_owned() };
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let port = match (scheme.as_str(), uri.port_u16()) {
        (_, None) | ("https", Some(443)) | ("http", Some(80)) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{scheme}://{host}{port}{path}")
}

/// The host (and port, if one is written), for messages.
pub fn host(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    uri.as_ref().and_then(|uri| uri.authority()).map_or_else(|| "the server".to_owned(), |host| host.to_string())
}

fn parse(url: &str) -> Result<Uri, String> {
    if !url.is_ascii() {
        return Err("not a valid URL: write international names in their ASCII form (xn--…)".into());
    }
    if url.contains('#') {
        return Err("a fragment (#…) does not belong there".into());
    }
    let uri: Uri = url.parse().map_err(|_| "not a valid URL: expected https://host/…".to_owned())?;
    let authority = uri.authority().ok_or("not a complete URL: expected https://host/…")?;
    if authority.as_str().contains('@') {
        return Err("user information (…@) does not belong there".into());
    }
    if authority.host().is_empty() || (authority.as_str().len() > authority.host().len() && uri.port_u16().is_none()) {
        return Err("not a valid URL: the host or the port is wrong".into());
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_loopback(authority.host()) => Ok(uri),
        Some("http") => Err("http would send secrets in the clear: write https".into()),
        _ => Err("expected https://…".into()),
    }
}

/// Whether what goes there is encrypted.
pub fn is_https(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in [
            "https://login.example.com/token",
            "HTTPS://Login.Example.com:8443/token",
            "https://login.example.com",
            "https://login.example.com/token?tenant=1",
            "http://127.0.0.1:8080/t",
            "http://127.9.9.9/t",
            "http://localhost/t",
            "http://[::1]:9/t",
            "https://[2001:db8::1]/t",
        ] {
            assert_eq!(check_endpoint(&format!(" {good}\n")).as_deref(), Ok(good));
        }
        for (bad, word) in [
            ("http://login.example.com/token", "clear"),
            ("http://127.0.0.1.example.com/token", "clear"),
            ("http://localhost.example.com/token", "clear"),
            ("http://128.0.0.1/", "clear"),
            ("ftp://example.com/", "expected https"),
            ("https://user:canary@example.com/", "user information"),
            ("https://example.com/#canary", "fragment"),
            ("https://exämple.com/", "xn--"),
            ("https://exa mple.com/", "valid URL"),
            ("https://", "valid URL"),
            ("https://:443/", "host or the port"),
            ("https://example.com:/", "host or the port"),
            ("https://example.com:99999/", "URL"),
            ("https:\\\\example.com\\", "URL"),
            ("/token", "complete URL"),
            ("example.com", "expected https"),
            ("", "valid URL"),
        ] {
            let error = check_endpoint(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn sites() {
        for (given, kept) in [
            ("https://my.site.com", "https://my.site.com"),
            ("  https://my.site.com/// \n", "https://my.site.com"),
            ("https://my.site.com/customers/ / ", "https://my.site.com/customers"),
            ("https://my.site.com/a/b//", "https://my.site.com/a/b"),
        ] {
            assert_eq!(check_site(given).as_deref(), Ok(kept));
        }
        assert!(check_site("https://my.site.com/x?y=1").unwrap_err().contains("query"));
        assert!(check_site("https://my.site.com/services/oauth2/token").unwrap_err().contains("site"));
    }

    #[test]
    fn canonical_urls_and_origins() {
        assert_eq!(canonical("HTTPS://Login.Example.COM:443/Token"), "https://login.example.com/Token");
        assert_eq!(canonical("https://a.example:8443"), "https://a.example:8443/");
        assert_eq!(canonical("http://LOCALHOST:80/t?q=1"), "http://localhost/t?q=1");
        assert_eq!(check_origin("https://A.example:443/").as_deref(), Ok("https://a.example"));
        assert!(check_origin("https://a.example/path").is_err());
    }

    #[test]
    fn origins_of_urls() {
        for (url, expected) in [
            ("https://A.example/services?x=https://b.example#f", Some("https://a.example")),
            ("https://a.example:8443", Some("https://a.example:8443")),
            ("https://b.example@a.example:443/", Some("https://a.example")),
            ("https://[2001:DB8::1]:9/x", Some("https://[2001:db8::1]:9")),
            ("http://127.0.0.1:8080/x", Some("http://127.0.0.1:8080")),
            ("http://localhost", Some("http://localhost")),
            ("http://[::1]:1?x", Some("http://[::1]:1")),
            ("http://a.example/", None),
            ("http://127.0.0.1.a.example/", None),
            ("ftp://a.example/", None),
            (" https://a.example/", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(origin(url), Ok(expected.map(str::to_owned)), "{url}");
        }
        for bad in [
            "",
            "a.example",
            "/path",
            "https://",
            "https://a.example\\@b.example/",
            "https://a b/",
            "https://ä.example",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}

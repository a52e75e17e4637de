use super::*;

fn config(json: &str) -> Config {
    Config::from_json(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// The error of a configuration that is right but for these members.
fn error(members: &str) -> String {
    let base = r#""site_url":"https://my.site.com","client_id":"id","store":"memory:""#;
    let error = Config::from_json(&format!("{{{base},{members}}}")).expect_err(members);
    assert_eq!(error.status, crate::Status::InvalidArgument, "{error}");
    error.message.clone()
}

#[test]
fn defaults() {
    let c = config(r#"{"site_url":" https://my.site.com/shop// ","client_id":"id","store":"memory:"}"#);
    let r = &c.registration;
    assert_eq!(r.site_url.as_deref(), Some("https://my.site.com/shop"));
    assert_eq!(r.token_endpoint, "https://my.site.com/shop/services/oauth2/token");
    assert_eq!(r.authorization_endpoint.as_deref(), Some("https://my.site.com/shop/services/oauth2/authorize"));
    assert_eq!(r.introspection_endpoint.as_deref(), Some("https://my.site.com/shop/services/oauth2/introspect"));
    assert_eq!(r.revocation_endpoint.as_deref(), Some("https://my.site.com/shop/services/oauth2/revoke"));
    assert!(matches!(r.client_auth, ClientAuth::None));
    assert_eq!((r.connect_timeout.as_millis(), r.exchange_timeout.as_millis()), (10_000, 60_000));
    assert_eq!(r.user_agent, format!("evergrant/{}", crate::VERSION));
    assert_eq!(r.parameters_in, ParametersIn::Body);
    assert_eq!(c.namespace, "https://my.site.com/shop/services/oauth2/token id");
    assert_eq!(c.store, StoreLocation::Memory);
    assert_eq!((c.recheck.as_secs(), c.max_wait.as_millis(), c.exit_wait.as_millis()), (60, 10_000, 5_000));
    assert_eq!((c.max_exchanges, c.max_cached_sessions), (32, 100_000));
    assert_eq!((c.session_lifetime_s, c.renew_before_s, c.renews), (None, None, true));
    assert_eq!((c.early_renewal, c.lost_reply), (EarlyRenewal::Background, LostReply::Replay));
    assert!(c.encryption_keys.is_empty() && c.origins.is_empty());
}

#[test]
fn everything_set() {
    let c = config(
        r#"{"token_endpoint":"https://As.example:443/t?x=1","authorization_endpoint":"https://as.example/a",
        "introspection_endpoint":"https://as.example/i","revocation_endpoint":"https://as.example/r",
        "client_id":"id","client_secret":"s","client_auth":"client_secret_post","scope":"a b",
        "refresh_parameters":{"resource":"https://api","audience":""},"authorize_parameters":{"prompt":"none"},
        "parameters_in":"headers","store":"sqlite:/var/db/x.db","namespace":"n",
        "encryption_key":["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","__________________________________________8"],
        "session_lifetime_s":7200,"expiry_from_introspection":false,"renew_before_s":0,"early_renewal":"off",
        "recheck_s":5,"renews":false,"lost_reply":"sign_in","connect_timeout_ms":1,"exchange_timeout_ms":2,
        "max_wait_ms":0,"exit_wait_ms":3,"max_exchanges":4,"max_cached_sessions":5,
        "origins":["https://API.example:443/"],"user_agent":"me/1"}"#,
    );
    let r = &c.registration;
    assert_eq!(r.token_endpoint, "https://As.example:443/t?x=1");
    assert_eq!(r.revocation_endpoint.as_deref(), Some("https://as.example/r"));
    assert!(matches!(&r.client_auth, ClientAuth::Post { secret } if secret.expose() == "s"));
    assert_eq!(r.refresh_parameters[1], ("audience".to_owned(), Secret::new("")));
    assert_eq!(c.namespace, "n");
    assert_eq!(c.store, StoreLocation::Sqlite { path: "/var/db/x.db".into(), default: false });
    assert_eq!((c.encryption_keys[0][31], c.encryption_keys[1][31]), (31, 255));
    assert_eq!((c.session_lifetime_s, c.renew_before_s), (Some(7200), Some(0)));
    assert_eq!(c.origins, ["https://api.example"]);
}

#[test]
fn an_explicit_endpoint_wins() {
    let c = config(
        r#"{"site_url":"https://my.site.com","token_endpoint":"http://127.0.0.1:9/t","client_id":"id","store":"memory:"}"#,
    );
    assert_eq!(c.registration.token_endpoint, "http://127.0.0.1:9/t");
    assert_eq!(c.registration.revocation_endpoint.as_deref(), Some("https://my.site.com/services/oauth2/revoke"));
}

#[test]
fn basic_encoding_follows_the_server() {
    for (server, extra, expected) in [
        (r#""site_url":"https://s.example""#, "", BasicEncoding::Raw),
        (r#""token_endpoint":"https://s.example/t""#, "", BasicEncoding::Form),
        (r#""site_url":"https://s.example""#, r#","basic_encoding":"form""#, BasicEncoding::Form),
        (r#""token_endpoint":"https://s.example/t""#, r#","basic_encoding":"raw""#, BasicEncoding::Raw),
    ] {
        let c = config(&format!(r#"{{{server},"client_id":"id","client_secret":"s","store":"memory:"{extra}}}"#));
        assert!(matches!(c.registration.client_auth, ClientAuth::Basic { encoding, .. } if encoding == expected));
    }
}

#[test]
fn the_reuse_window_limits_the_exchange() {
    let timeout = |members: &str| {
        let base = r#""site_url":"https://my.site.com","client_id":"id","store":"memory:""#;
        config(&format!("{{{base},{members}}}")).registration.exchange_timeout.as_millis()
    };
    assert_eq!(timeout(r#""reuse_window_s":0"#), 60_000);
    assert_eq!(timeout(r#""reuse_window_s":30"#), 10_000);
    assert_eq!(timeout(r#""reuse_window_s":30,"exchange_timeout_ms":50000"#), 10_000);
    assert_eq!(timeout(r#""reuse_window_s":1800,"exchange_timeout_ms":5000"#), 5_000);
}

#[test]
fn what_is_known_of_a_server_holds_unless_the_configuration_says_otherwise() {
    let of = |host: &str, members: &str| {
        let base = format!(r#""token_endpoint":"https://{host}/token","client_id":"id","store":"memory:""#);
        let registration = config(&format!("{{{base}{members}}}")).registration;
        (registration.exchange_timeout.as_millis(), registration.newest_wins)
    };
    assert_eq!(of("Api.WorkOS.com:443", ""), (10_000, false));
    assert_eq!(of("api.workos.com", r#","reuse_window_s":0"#), (60_000, false));
    assert_eq!(of("api.asgardeo.io", ""), (60_000, true));
    assert_eq!(of("api.asgardeo.io", r#","newest_wins":false"#), (60_000, false));
    assert_eq!(of("example.com", r#","newest_wins":true"#), (60_000, true));
}

#[test]
fn every_error_names_its_key_and_shows_no_value() {
    for (members, key, word) in [
        (r#""client_secert":"canary""#, "client_secert", "did you mean \\\"client_secret\\\"?"),
        (r#""Client_ID":"canary""#, "Client_ID", "client_id"),
        (r#""something":"canary""#, "something", "no such key"),
        (r#""refresh_token":"canary""#, "refresh_token", "no such key"),
        (r#""client_secret":"canary","client_secret":"canary""#, "client_secret", "twice"),
        (r#""client_secret":5"#, "client_secret", "expected a string"),
        (r#""client_secret":null"#, "client_secret", "expected a string"),
        (r#""client_secret":" ""#, "client_secret", "empty"),
        (r#""client_secret":"canary\n""#, "client_secret", "control character"),
        (r#""client_secret":"canary","client_secret_env":"X""#, "client_secret_env", "client_secret is given as well"),
        (r#""client_secret_env":"EVERGRANT_canary_UNSET""#, "client_secret_env", "no environment variable"),
        (r#""client_secret_env":"A=canary""#, "client_secret_env", "name"),
        (r#""client_secret_file":"/nowhere/canary""#, "client_secret_file", "cannot be read"),
        (r#""client_auth":"canary""#, "client_auth", "one of \\\"client_secret_basic\\\""),
        (r#""client_auth":"none","client_secret":"canary""#, "client_auth", "remove one"),
        (r#""client_auth":"client_secret_post""#, "client_auth", "client_secret"),
        (r#""client_auth":"private_key_jwt""#, "client_auth", "private_key_file"),
        (r#""client_auth":"private_key_jwt","client_secret":"canary""#, "client_auth", "remove one"),
        (r#""client_auth":"none","private_key_file":"canary""#, "private_key_file", "client_auth is \"none\""),
        (r#""client_secret":"canary","key_id":"canary""#, "key_id", "client_auth is \"client_secret_basic\""),
        (r#""assertion_audience":"canary""#, "assertion_audience", "private_key_jwt"),
        (r#""assertion_algorithm":"HS256""#, "assertion_algorithm", "one of \"RS256\""),
        (r#""basic_encoding":"canary""#, "basic_encoding", "raw"),
        (r#""token_endpoint":"http://canary.example/""#, "token_endpoint", "https"),
        (r#""revocation_endpoint":"https://u:canary@h/""#, "revocation_endpoint", "user information"),
        (r#""introspection_endpoint":"canary""#, "introspection_endpoint", "expected https"),
        (r#""issuer":"https://canary""#, "issuer", "site_url is given as well"),
        (r#""issuer":"https://canary?x""#, "issuer", "query"),
        (r#""issuer":"http://canary""#, "issuer", "https"),
        (r#""issuer":"https://canary/.well-known/openid-configuration""#, "issuer", "without /.well-known"),
        (r#""private_key_file":"/nowhere/canary""#, "private_key_file", "cannot be read"),
        (r#""ca_file":"/nowhere/canary""#, "ca_file", "cannot be read"),
        (r#""ca_file":"Cargo.toml""#, "ca_file", "no certificate"),
        (r#""client_certificate_file":"canary""#, "client_key_file", "missing"),
        (r#""client_key_file":"canary""#, "client_certificate_file", "missing"),
        (
            r#""client_certificate_file":"/nowhere/canary","client_key_file":"/nowhere/canary""#,
            "client_certificate_file",
            "cannot be read",
        ),
        (r#""proxy":"canary""#, "proxy", "expected http://host:port"),
        (r#""proxy":"http://h/canary""#, "proxy", "%25"),
        (r#""expiry_from_introspection":1"#, "expiry_from_introspection", "true or false"),
        (r#""scope":[]"#, "scope", "a string"),
        (r#""refresh_parameters":{"grant_type":"canary"}"#, "refresh_parameters", "grant_type"),
        (r#""refresh_parameters":{"client_assertion":"canary"}"#, "refresh_parameters", "client_assertion"),
        (r#""refresh_parameters":{"a":5}"#, "refresh_parameters", "values are strings"),
        (r#""refresh_parameters":{"a":"canary","a":"canary"}"#, "refresh_parameters", "twice"),
        (r#""refresh_parameters":"canary""#, "refresh_parameters", "an object"),
        (r#""parameters_in":"headers","refresh_parameters":{"a b":"canary"}"#, "refresh_parameters", "HTTP header"),
        (r#""authorize_parameters":{"state":"canary"}"#, "authorize_parameters", "state"),
        (r#""parameters_in":"canary""#, "parameters_in", "body"),
        (r#""encryption_key":"canary""#, "encryption_key", "32 bytes"),
        (r#""encryption_key":["canary"]"#, "encryption_key", "32 bytes"),
        (r#""encryption_key":[]"#, "encryption_key", "no key"),
        (r#""encryption_key":{}"#, "encryption_key", "a string or a list"),
        (r#""encryption_key":"canary","encryption_key_file":"x""#, "encryption_key_file", "keep one"),
        (r#""session_lifetime_s":0"#, "session_lifetime_s", "from 1 to"),
        (r#""session_lifetime_s":"7200""#, "session_lifetime_s", "whole number"),
        (r#""renew_before_s":-1"#, "renew_before_s", "from 0 to"),
        (r#""recheck_s":1.5"#, "recheck_s", "whole number"),
        (r#""max_exchanges":0"#, "max_exchanges", "from 1 to"),
        (r#""max_cached_sessions":1e99"#, "max_cached_sessions", "from 1 to"),
        (r#""connect_timeout_ms":99999999"#, "connect_timeout_ms", "to 3600000"),
        (r#""early_renewal":true"#, "early_renewal", "background"),
        (r#""renews":"canary""#, "renews", "true or false"),
        (r#""lost_reply":"canary""#, "lost_reply", "replay"),
        (r#""origins":["https://canary/path"]"#, "origins", "path"),
        (r#""origins":"https://canary""#, "origins", "a list"),
        (r#""user_agent":"canäry""#, "user_agent", "ASCII"),
        (r#""namespace":"""#, "namespace", "empty"),
        (r#""config_file":"x""#, "site_url", "config_file stands alone"),
    ] {
        let message = error(members);
        let word = word.replace("\\\"", "\"");
        assert!(message.contains(&format!("\"{key}\"")) && message.contains(&word), "{members}: {message}");
        assert!(!message.contains("canary"), "{message}");
    }
}

#[test]
fn what_is_missing_is_named() {
    for (json, word) in [
        ("", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "site_url"),
        (r#"{"site_url":"https://x.example"}"#, "client_id"),
        (r#"{"site_url":"https://x.example","client_id":" x"}"#, "space"),
        (r#"{"site_url":"https://x.example?a=b","client_id":"x"}"#, "query"),
        (r#"{"site_url":"https://x.example/services/oauth2/token","client_id":"x"}"#, "without /services"),
        (r#"{"site_url":"https://x.example","client_id":"a:b","client_secret":"s"}"#, "colon"),
        (
            r#"{"token_endpoint":"https://x.example/t","client_id":"x","expiry_from_introspection":true}"#,
            "\"introspection_endpoint\": it is missing, and expiry_from_introspection",
        ),
    ] {
        let error = Config::from_json(json).unwrap_err();
        assert!(error.message.contains(word), "{json}: {error}");
    }
}

#[test]
fn stores() {
    let store = |store: &str| {
        let json = format!(r#"{{"site_url":"https://x.example","client_id":"x","store":"{store}"}}"#);
        Config::from_json(&json).map(|c| c.store).map_err(|error| error.message.clone())
    };
    let sqlite = |path: PathBuf| Ok(StoreLocation::Sqlite { path, default: false });
    assert_eq!(store("memory:"), Ok(StoreLocation::Memory));
    assert_eq!(store("sqlite:/a/b.db"), sqlite("/a/b.db".into()));
    assert_eq!(store("sqlite:///a/b.db"), sqlite("/a/b.db".into()));
    assert_eq!(store("sqlite:a/b.db"), sqlite(std::env::current_dir().unwrap().join("a/b.db")));
    for (given, word) in [
        ("sqlite:", "missing"),
        ("sqlite::memory:", "memory:"),
        ("sqlite://a/b", "without //"),
        ("sqlite:~/b", "~"),
        ("sqlite:/a/", "directory"),
        ("mysql://u:canary@h", "expected \"sqlite:PATH\""),
        ("/canary", "expected \"sqlite:PATH\""),
    ] {
        let message = store(given).unwrap_err();
        assert!(message.contains("\"store\"") && message.contains(word), "{given}: {message}");
        assert!(!message.contains("canary"), "{message}");
    }
}

#[cfg(all(feature = "postgres", feature = "redis"))]
#[test]
fn shared_stores_need_a_key_and_keep_their_url_secret() {
    let open = |store: &str, more: &str| {
        let json = format!(r#"{{"site_url":"https://x.example","client_id":"x","store":"{store}"{more}}}"#);
        Config::from_json(&json)
    };
    const KEY: &str = r#","encryption_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=""#;
    for (url, expected) in [
        ("postgres://u:canary@h/d", Server::Postgres),
        ("postgresql://u:canary@h/d", Server::Postgres),
        ("redis://:canary@h", Server::Redis),
        ("rediss://:canary@h", Server::Redis),
    ] {
        let c = open(url, KEY).unwrap();
        assert!(
            matches!(&c.store, StoreLocation::Shared { server, url: kept } if *server == expected && kept.expose() == url)
        );
        assert!(!format!("{c:?}").contains("canary"));
        let message = open(url, "").unwrap_err().message.clone();
        assert!(message.contains("\"encryption_key\"") && message.contains("base64"), "{message}");
        assert!(!message.contains("canary"), "{message}");
    }
}

#[test]
fn files() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    write("secret", "s3cret\r\n");
    write("keys", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\nHx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=\n");
    let inner = write(
        "inner.json",
        r#"{"site_url":"https://x.example","client_id":"x","client_secret_file":"secret",
        "encryption_key_file":"keys","store":"sqlite:s.db"}"#,
    );
    let (c, refresh_token) =
        Config::from_refresh_request(&format!(r#"{{"config_file":"{inner}","refresh_token":"r"}}"#)).unwrap();
    assert_eq!(refresh_token.expose(), "r");
    assert!(matches!(&c.registration.client_auth, ClientAuth::Basic { secret, .. } if secret.expose() == "s3cret"));
    assert_eq!(c.store, StoreLocation::Sqlite { path: directory.path().join("s.db"), default: false });
    assert_eq!((c.encryption_keys[0][0], c.encryption_keys[1][0]), (0, 31));

    let nested = write("nested.json", &format!(r#"{{"config_file":"{inner}"}}"#));
    write("empty", "\n");
    let empty = write("empty.json", r#"{"site_url":"https://x.example","client_id":"x","client_secret_file":"empty"}"#);
    for (file, word) in [(nested, "another file"), (empty, "empty"), ("/nowhere".into(), "cannot be read")] {
        let error = Config::from_json(&format!(r#"{{"config_file":"{file}"}}"#)).unwrap_err();
        assert!(error.message.contains(word), "{error}");
    }
}

#[test]
fn a_refresh_request_needs_its_token() {
    let request = |members: &str| {
        Config::from_refresh_request(&format!(
            r#"{{"site_url":"https://x.example","client_id":"x","store":"memory:"{members}}}"#
        ))
    };
    assert_eq!(request(r#","refresh_token":"r""#).unwrap().1.expose(), "r");
    assert!(request("").unwrap_err().message.contains("\"refresh_token\""));
    assert!(request(r#","refresh_token":5"#).unwrap_err().message.contains("\"refresh_token\""));
}

#[test]
fn the_fingerprint_changes_with_all_that_can_be_refused() {
    let fingerprint = |members: &str| {
        config(&format!(r#"{{"token_endpoint":"https://x.example/t","store":"memory:",{members}}}"#))
            .registration
            .fingerprint
    };
    let all = [
        r#""client_id":"x""#,
        r#""client_id":"y""#,
        r#""client_id":"x","client_secret":"s""#,
        r#""client_id":"x","client_secret":"t""#,
        r#""client_id":"x","client_secret":"s","client_auth":"client_secret_post""#,
        r#""client_id":"x","client_secret":"s","basic_encoding":"raw""#,
        r#""client_id":"x","scope":"a""#,
        r#""client_id":"x","refresh_parameters":{"a":"b"}"#,
        r#""client_id":"x","refresh_parameters":{"ab":""}"#,
        r#""client_id":"x","parameters_in":"headers""#,
        r#""client_id":"x","revocation_endpoint":"https://x.example/r""#,
    ];
    let mut seen: Vec<String> = all.iter().map(|members| fingerprint(members)).collect();
    let revocation = seen.pop();
    assert_eq!(revocation.as_ref(), seen.first(), "revocation does not count");
    assert_eq!(seen[0], fingerprint(all[0]), "it is stable");
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
    assert!(seen.iter().all(|one| one.len() == 12));
}

#[test]
fn debug_leaks_nothing() {
    let c = config(
        r#"{"token_endpoint":"https://x.example/t?key=canary","client_id":"x","client_secret":"canary",
        "encryption_key":"Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2E=","refresh_parameters":{"a":"canary"},
        "store":"memory:","namespace":"n"}"#,
    );
    let shown = format!("{c:?}");
    assert!(shown.contains("x.example/t") && !shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
}

#[test]
fn the_table_has_each_key_once() {
    for (at, key) in KEYS.iter().enumerate() {
        assert!(KEYS[..at].iter().all(|other| other.name != key.name), "{}", key.name);
    }
}

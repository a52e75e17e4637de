//! No secret leaves: a canary stands in every token and credential, and is looked for wherever something is told or kept.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::*;
use evergrant::config::Config;
use evergrant::oauth::Outcome;
use evergrant::secret::Secret;
use evergrant::session::protocol::{self, Fresh, Moment, Sent, Want};
use evergrant::session::record::Id;
use evergrant::store::Now;
use evergrant::store::seal::Keys;
use evergrant::store::sqlite::SqliteOptions;
use evergrant::token::Answer;
use evergrant::{Client, Error, Result};
use evergrant_test_server::{Client as Registered, Endpoint, Fault, FaultKind, Options, WrongType};
use serde_json::{Value, json};

/// Stands in every token.
const TOKEN: &str = "CaNaRyToKeN0123";
const CLIENT_SECRET: &str = "CaNaRySeCrEt+/=%";
const PARAMETER: &str = "CaNaRyPaRaMeTeR";
/// 32 bytes.
const KEY: &[u8; 32] = b"CaNaRyKeYCaNaRyKeYCaNaRyKeY01234";

/// Everything that must be found nowhere.
fn canaries() -> Vec<String> {
    let basic = BASE64_STANDARD.encode(format!("client:{CLIENT_SECRET}"));
    let key = BASE64_STANDARD.encode(KEY);
    let names = [TOKEN, "CaNaRySeCrEt", PARAMETER, "CaNaRyKeY", &basic[8..28], &key];
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn assert_clean(what: &str, bytes: &[u8]) {
    for canary in canaries() {
        let found = bytes.windows(canary.len()).position(|window| window.eq_ignore_ascii_case(canary.as_bytes()));
        let around =
            found.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())]));
        assert!(around.is_none(), "{canary} in {what}: {}", around.unwrap());
    }
}

fn scene() -> Scene {
    let clients = vec![Registered::confidential("client", CLIENT_SECRET)];
    Scene::new(Options { clients, token_prefix: TOKEN.into(), ..strict() })
}

fn config(scene: &Scene) -> Value {
    scene.config(json!({
        "client_secret": CLIENT_SECRET,
        "encryption_key": BASE64_STANDARD.encode(KEY),
        "refresh_parameters": {"resource": PARAMETER},
        "connect_timeout_ms": 1500,
        "exchange_timeout_ms": 300,
    }))
}

/// All files of a store.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// What a client tells of an error, in every form.
fn confess(told: &mut String, error: &Error) {
    *told += &format!("{error}\n{error:?}\n{error:#?}\n{}\n", shown(error));
}

/// Failures of all kinds that a server can cause, some of which say what they were sent.
fn faults(echo: &str) -> Vec<FaultKind> {
    let says = |status, error: &str| FaultKind::Error { error: error.into(), description: echo.into(), status };
    let page = |code, body: String| FaultKind::Status { code, body: Some(body), retry_after: None };
    vec![
        says(400, "invalid_grant"),
        says(401, "invalid_client"),
        says(400, "invalid_request"),
        says(400, "temporarily_unavailable"),
        says(400, TOKEN),
        page(200, echo.into()),
        page(200, format!("{{\"access_token\": \"{echo}\\n\"}}")),
        page(200, format!("{{\"error\": \"{echo}\", \"error_uri\": \"https://{echo}\"}}")),
        page(429, format!("<html>{echo}</html>")),
        page(503, format!("<html>{echo}</html>")),
        FaultKind::Redirect { location: format!("https://{TOKEN}.example/?{echo}"), code: 307 },
        FaultKind::DropReply,
        FaultKind::ResetAfterProcess,
        FaultKind::Hang,
        FaultKind::Busy,
        FaultKind::Truncate { bytes: 60 },
        FaultKind::Oversized { bytes: 2 << 20 },
        FaultKind::WrongTypes { variant: WrongType::NotUtf8 },
        FaultKind::WrongTypes { variant: WrongType::AccessTokenLineBreak },
        FaultKind::WrongTypes { variant: WrongType::TokenTypeMac },
    ]
}

/// Uses a session in every way; what is told goes to `told`. It runs in a process of its own.
fn live(config: &str, told: &mut String) -> Result<()> {
    let client = Client::open(config)?;
    let tell = |told: &mut String| {
        *told += &format!("{client:?}\n{}\n{}\n", client.stats().unwrap(), client.list(None, 100).unwrap());
        *told += &format!("{}\n", client.events(0, 0).unwrap());
    };
    for line in std::io::stdin().lock().lines() {
        let call: Value = parsed(&line.unwrap());
        let (session, token) = (call["session"].as_str().unwrap(), call["token"].to_string());
        let used = || {
            client.save(session, &token)?;
            client.access_token(session, Some(r#"{"max_wait_ms": 400}"#))?;
            client.renew(session, None, Some(r#"{"max_wait_ms": 400}"#)).map(drop)
        };
        if let Err(error) = used() {
            confess(told, &error);
        }
        for error in [client.access_token("", None), client.renew(session, Some(TOKEN), Some(TOKEN))] {
            confess(told, &error.unwrap_err());
        }
        *told += &client.describe(session)?;
        tell(told);
        println!("done");
        std::io::stdout().flush().unwrap();
    }
    client.sign_out("signed out")?;
    client.forget("forgotten")?;
    tell(told);
    Ok(())
}

#[test]
#[ignore = "it is the other process of the test below"]
fn another_life() {
    let Ok(config) = std::env::var("EVERGRANT_TEST_LIFE") else { return };
    let directory = std::env::var("EVERGRANT_TEST_TOLD").unwrap();
    let mut told = String::new();
    live(&fs::read_to_string(config).unwrap(), &mut told).unwrap();
    fs::write(directory, told).unwrap();
}

#[test]
fn nothing_that_is_told_kept_or_printed_contains_a_secret() {
    let scene = scene();
    let elsewhere = tempfile::tempdir().unwrap();
    let (settings, told) = (elsewhere.path().join("config.json"), elsewhere.path().join("told"));
    fs::write(&settings, config(&scene).to_string()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_life", "--ignored", "--nocapture", "--test-threads=1"])
        .env("EVERGRANT_TEST_LIFE", &settings)
        .env("EVERGRANT_TEST_TOLD", &told)
        .envs([("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    let mut use_session = |session: &str, fault: Option<FaultKind>, token: &Value| {
        scene.server.fault(FaultKind::Pass);
        for _ in 0..3 {
            if let Some(fault) = fault.clone() {
                scene.server.fault(fault);
            }
        }
        writeln!(input, "{}", json!({"session": session, "token": token})).unwrap();
        let begun = printed.len();
        while !printed[begun..].contains("done\n") {
            assert!(output.read_line(&mut printed).unwrap() > 0, "it has ended: {printed}");
        }
        scene.server.clear_faults();
    };
    for (n, session) in ["renewed", "signed out", "forgotten"].into_iter().enumerate() {
        let signed_in = scene.sign_in();
        let token = if n == 0 { parsed(&signed_in.json) } else { json!({"refresh_token": signed_in.refresh_token}) };
        use_session(session, None, &token);
    }
    scene.server.fault(Fault::from(FaultKind::Html { status: 500 }).always().on(Endpoint::Revoke));
    for n in 0..faults("").len() {
        let refresh_token = scene.sign_in().refresh_token;
        let echo = format!("what was sent: {refresh_token} {CLIENT_SECRET} {PARAMETER}");
        let fault = faults(&echo).swap_remove(n);
        use_session(&format!("{n} {}", fault.name()), Some(fault), &json!({"refresh_token": refresh_token}));
    }
    // While it lives, with its log and shared memory.
    let found = files(scene.directory.path());
    for part in ["sessions.db", "sessions.db-wal", "sessions.db-shm"] {
        assert!(found.contains(&scene.directory.path().join(part)), "{part}: {found:?}");
    }
    for directory in ["-owners/", "-aside/seen/"] {
        assert!(found.iter().any(|file| file.to_string_lossy().contains(directory)), "{directory}: {found:?}");
    }
    for file in found {
        assert_clean(&format!("{file:?}"), &fs::read(&file).unwrap());
    }
    drop(input);
    output.read_to_string(&mut printed).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success(), "{printed}{errors}");
    let told = fs::read_to_string(&told).unwrap();
    for word in ["SIGN_IN_REQUIRED", "REFUSED", "UNAVAILABLE", "INVALID_ARGUMENT", "[redacted]", "renewal_failed"] {
        assert!(told.contains(word), "{word} was not told: the failures did not happen");
    }
    assert_clean("what was told", told.as_bytes());
    assert_clean("its output", printed.as_bytes());
    assert_clean("its errors", errors.as_bytes());
    for file in files(scene.directory.path()) {
        assert_clean(&format!("{file:?}, afterwards"), &fs::read(&file).unwrap());
    }
}

#[test]
fn the_key_file_has_the_generated_key_and_nothing_else_has_it() {
    let scene = scene();
    let client = scene.open(json!({"client_secret": CLIENT_SECRET}));
    scene.saved(&client, SESSION);
    client.access_token(SESSION, None).unwrap();
    let path = scene.directory.path().join("sessions.db.key");
    let key = fs::read_to_string(&path).unwrap();
    let bytes = BASE64_STANDARD.decode(key.trim_end()).unwrap();
    assert_eq!((bytes.len(), key.lines().count()), (32, 1));
    for file in files(scene.directory.path()) {
        let content = fs::read(&file).unwrap();
        assert_clean(&format!("{file:?}"), &content);
        let has_key = content.windows(32).any(|window| window == bytes) || contains(&content, key.trim_end());
        assert_eq!(has_key, file == path, "{file:?}");
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn debug_output_shows_no_secret() {
    let scene = scene();
    let config = lay_over(config(&scene), json!({"authorize_parameters": {"login_hint": PARAMETER}}));
    let (config, refresh_token) =
        Config::from_refresh_request(&lay_over(config, json!({"refresh_token": TOKEN})).to_string()).unwrap();
    let mut shown = format!("{config:#?} {:?} {:?}", config.registration, config.registration.client_auth);
    shown += &format!("{refresh_token:?} {:?}", Secret::new(TOKEN));
    let answer = Answer::from_json(&scene.sign_in().json).unwrap();
    shown += &format!("{answer:#?} {:?}", Outcome::Done(Box::new(answer.clone())));
    let id = Id(7);
    let fresh = Fresh { version: 1, grant: id, fingerprint_key: Secret::new(PARAMETER) };
    shown += &format!("{fresh:?}");
    let now = Now { ms: 0, clock: "clock".into() };
    let moment = Moment { now: &now, wall_ms: 0, party: "party", duration_ms: 0, life: None, jitter: 0 };
    let mut record = protocol::save(None, &answer, fresh, None, &moment).unwrap();
    record.secrets.spare = Some(Secret::new(TOKEN));
    record.secrets.to_revoke.push(Secret::new(TOKEN));
    shown += &format!("{record:#?} {}", serde_json::to_string(&record).unwrap());
    shown += &format!("{:?}", Want::OtherThan(Secret::new(TOKEN)));
    shown += &format!("{:?}", Sent { attempt: id, grant: id, generation: 1, sends: 1, refresh_token });
    let keys = Some(Keys::new(&[*KEY]).unwrap());
    let path = scene.store();
    shown +=
        &format!("{keys:?} {:?}", SqliteOptions { path, make_directory: false, keys: keys.clone(), read_only: false });
    assert!(shown.contains("[secret]"));
    assert_clean("Debug", shown.as_bytes());
    let bytes = KEY.iter().take(8).map(u8::to_string).collect::<Vec<_>>().join(", ");
    assert!(!shown.contains(&bytes), "the key, byte by byte: {shown}");
}

#[test]
fn configuration_errors_show_no_value() {
    let scene = scene();
    for more in [
        json!({"client_secret": format!("{TOKEN}\n")}),
        json!({"client_secret": [TOKEN]}),
        json!({"client_id": CLIENT_SECRET, "client_secret": TOKEN, "client_auth": "none"}),
        json!({"client_secret_file": format!("/{TOKEN}\u{7}")}),
        json!({"client_secret": null, "client_secret_env": format!("{TOKEN}=")}),
        json!({"client_secret": null, "client_secret_env": TOKEN}),
        json!({"encryption_key": TOKEN}),
        json!({"encryption_key": [BASE64_STANDARD.encode(KEY), TOKEN]}),
        json!({"token_endpoint": format!("http://{TOKEN}.example/")}),
        json!({"token_endpoint": format!("https://user:{TOKEN}@example.com/")}),
        json!({"store": format!("postgres://user:{TOKEN}@host/"), "encryption_key": null}),
        json!({"store": format!("postgres://user:{TOKEN}@host:{TOKEN}/")}),
        json!({"store": format!("mysql://user:{TOKEN}@host/")}),
        json!({"store": TOKEN}),
        json!({"refresh_parameters": TOKEN}),
        json!({"refresh_parameters": {"resource": [TOKEN]}}),
        json!({"renews": TOKEN}),
        json!({"max_wait_ms": TOKEN}),
    ] {
        let mut told = String::new();
        confess(&mut told, &Client::open(&lay_over(config(&scene), more.clone()).to_string()).unwrap_err());
        assert!(told.contains("configuration key"), "{more}: {told}");
        assert_clean(&more.to_string().len().to_string(), told.as_bytes());
    }
    for json in [format!("{{\"client_secret\": \"{TOKEN}\""), TOKEN.into(), format!("[\"{TOKEN}\"]")] {
        let mut told = String::new();
        confess(&mut told, &Client::open(&json).unwrap_err());
        confess(&mut told, &evergrant::refresh(&json).unwrap_err());
        confess(&mut told, &evergrant::json_member(&json, "x").unwrap_err());
        assert_clean("JSON errors", told.as_bytes());
    }
}

/// `name`, `name` in path
#[test]
fn what_is_said_to_be_shown_is_there() {
    let read = |page| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    assert!(named_tests(&read("SECURITY.md")) > 15);
    assert_eq!(named_tests(&read("docs/sign-in.md")), 4);
    let readme = read("README.md");
    let section = |title: &str| readme.split_once(title).unwrap().1.split_once("\n## ").unwrap().0;
    assert!(named_tests(section("\n## Guarantees")) > 20);
    let standards = section("\n## Standards");
    for row in standards.lines().filter(|line| line.contains('§')) {
        assert!(named_tests(row) > 0, "{row}");
    }
    assert_eq!(standards.matches('§').count(), 18);
}

/// How many tests a text names; each is where it says.
fn named_tests(text: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut names, mut found) = (Vec::new(), 0);
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 1 {
            names.push(part);
            continue;
        }
        let path = part.strip_prefix(" in ").map(|rest| rest.split([' ', ';', ',', ')']).next().unwrap());
        if let Some(path) = path.filter(|path| path.contains('/')) {
            let source = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            for name in &names {
                assert!(source.contains(&format!("{name}(")), "{path} has no {name}");
                found += 1;
            }
        }
        if part != ", " {
            names.clear();
        }
    }
    found
}

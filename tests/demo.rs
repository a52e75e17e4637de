//! `make demo`, as a user calls it: against the test server, and against an org of the user's own. Building the release
//! library takes its time: `make test-demo` runs these.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use evergrant_test_server::{Client as Registered, Options, Rotation, Server, SignedIn};
use serde_json::{Value, json};
use tempfile::TempDir;

fn make_demo(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new("make");
    // Not what `make test-demo` and Cargo set: with Cargo's variables everything would be built again.
    let set_for_tests = [
        "OUT_DIR",
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_EXE_",
        "EVERGRANT_",
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
    ];
    for (name, _) in env::vars_os() {
        if name == "CARGO" || set_for_tests.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.args(["--no-print-directory", "demo"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One at a time: each may build the demo.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output and error of a run that must end like this.
fn run(is_success: bool, environment: &[(&str, &str)]) -> (String, String) {
    let _turn = turn();
    let Output { status, stdout, stderr } = make_demo(environment).output().expect("make");
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert_eq!(status.success(), is_success, "{status}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).expect("directory").next().is_none()
}

#[test]
#[ignore = "builds the release library; make test-demo"]
fn the_demo_shows_its_nine_steps_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let (shown, _) = run(true, &[("TMPDIR", temporary.path().to_str().unwrap())]);
    println!("{shown}");
    for line in [
        " 1  first token ",
        " 2  from memory ",
        " 3  renewal, rotation ",
        " 4  8 processes at expiry ",
        " 5  3 languages at expiry C, Python 3.",
        " 6  kill -9 in a renewal ",
        " 7  after a restart ",
        " 8  a 401 healed ",
        " 9  a revoked session ",
        "All 9 are true, ",
        "All is well. ",
    ] {
        assert_eq!(shown.lines().filter(|shown| shown.starts_with(line)).count(), 1, "{line:?}\n{shown}");
    }
    assert!(is_empty(temporary.path()));
}

#[test]
#[ignore = "builds the release library; make test-demo"]
fn an_interrupted_demo_leaves_nothing() {
    run(true, &[]); // So that it is built.
    let _turn = turn();
    let temporary = tempfile::tempdir().unwrap();
    let target = env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let mut demo = Command::new("build/demo/demo")
        .arg(Path::new(&target).join("debug/evergrant-test-server"))
        .args(["python3", "node"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("EVERGRANT_CONFIG")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the demo");
    let begin = Instant::now();
    while store_of(temporary.path()).is_none() {
        assert!(begin.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(5));
    }
    let number = demo.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &number]).status().expect("kill").success());
    assert!(!demo.wait().expect("the demo").success());
    assert!(is_empty(temporary.path()));
}

/// The store of a demo that runs.
fn store_of(temporary: &Path) -> Option<PathBuf> {
    let directory = fs::read_dir(temporary).ok()?.next()?.ok()?.path();
    Some(directory.join("sessions.db")).filter(|path| path.exists())
}

struct Org {
    server: Server,
    signed_in: SignedIn,
    home: TempDir,
}

impl Org {
    fn new() -> Self {
        let server = Server::start(Options {
            clients: vec![Registered::confidential("3MVG9.demo", "secret")],
            rotation: Rotation::Strict,
            prefixes: Some(vec!["/customers".into()]),
            ..Options::salesforce()
        });
        let signed_in = server.sign_in("3MVG9.demo", "user@example.com", "api refresh_token");
        Self { server, signed_in, home: lasting_directory() }
    }

    /// The configuration, with this laid over it, in a file.
    fn file(&self, further: Value) -> String {
        let mut config = json!({
            "refresh_token": self.signed_in.refresh_token,
            "site_url": format!("{}/customers/", self.server.url()),
            "client_id": "3MVG9.demo",
            "session": "alice, {\"refresh_token\": 1}",
            "client_secret_file": "secret.txt",
            "authorize_parameters": {"session": "a\\", "refresh_token": "}"},
            "session_lifetime_s": 6600,
        });
        config.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        fs::write(self.home.path().join("secret.txt"), "secret").unwrap();
        let file = self.home.path().join("my-org.json");
        fs::write(&file, serde_json::to_string_pretty(&config).unwrap()).unwrap();
        file.to_str().unwrap().into()
    }

    fn token_requests(&self) -> usize {
        self.server.token_requests().len()
    }
}

/// A directory that does not count as temporary: in the target directory, or, if that is in a temporary one, at home.
fn lasting_directory() -> TempDir {
    let target = fs::canonicalize(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let is_temporary = [env::temp_dir(), "/tmp".into(), "/var/tmp".into(), "/dev/shm".into(), "/run".into()]
        .iter()
        .any(|directory: &PathBuf| target.starts_with(fs::canonicalize(directory).as_ref().unwrap_or(directory)));
    let parent = if is_temporary { env::home_dir().expect("a home directory") } else { target };
    tempfile::Builder::new().prefix(".evergrant-test-demo-").tempdir_in(parent).unwrap()
}

#[test]
#[ignore = "builds the release library; make test-demo"]
fn a_session_of_ones_own_org_is_renewed_and_kept() {
    let org = Org::new();
    let file = org.file(json!({"store": "sqlite:sessions.db"}));
    let (shown, _) = run(true, &[("EVERGRANT_CONFIG", &file)]);
    assert_eq!(org.token_requests(), 1, "{shown}");
    let place = fs::canonicalize(org.home.path().join("sessions.db")).unwrap();
    for part in [
        "session \"alice, {\"refresh_token\": 1}\"",
        "1 token request,",
        &format!("instance_url   {}", org.server.url()),
        "(112 characters), Bearer",
        " UTC (assumed)",
        "generation     2",
        place.to_str().unwrap(),
        "spent",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let family = org.server.families().remove(0);
    let refresh_tokens = family.refresh_tokens.iter().map(|token| &token.token);
    for secret in refresh_tokens.chain(family.access_tokens.iter().map(|token| &token.token)) {
        assert!(!shown.contains(&secret[..20]), "{shown}");
    }

    // Again: the token in the file is spent, the store has what counts.
    let (shown, _) = run(true, &[("EVERGRANT_CONFIG", &file)]);
    assert_eq!(org.token_requests(), 1, "{shown}");
    assert!(shown.contains("nothing was sent"), "{shown}");
    let (shown, _) = run(true, &[("EVERGRANT_CONFIG", &file), ("EVERGRANT_DEMO_RENEW", "1")]);
    assert_eq!((org.token_requests(), org.server.stats().reuses), (2, 0), "{shown}");
    assert!(shown.contains("generation     3"), "{shown}");
}

#[test]
#[ignore = "builds the release library; make test-demo"]
fn the_default_store_is_used_and_the_refresh_token_may_be_in_the_environment() {
    let org = Org::new();
    let file = org.file(json!({"refresh_token": null, "session": null}));
    // As README has the file: the configuration alone.
    let config = fs::read_to_string(&file).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    fs::write(&file, config.to_string()).unwrap();

    let state = org.home.path().join("state");
    let lasting = [("EVERGRANT_CONFIG", &*file), ("XDG_STATE_HOME", state.to_str().unwrap())];
    let (_, why) = run(false, &lasting);
    assert!(why.contains("the store has no session \"demo\""), "{why}");
    let token = ("EVERGRANT_REFRESH_TOKEN", &*org.signed_in.refresh_token);
    let (shown, _) = run(true, &[lasting[0], lasting[1], token]);
    assert!(shown.contains("(the default store)") && shown.contains("session \"demo\""), "{shown}");
    assert!(state.join("evergrant/3MVG9.demo.db").exists());
    let (shown, _) = run(true, &lasting);
    assert!(shown.contains("nothing was sent"), "{shown}");
    assert_eq!(org.token_requests(), 1);

    let temporary = tempfile::tempdir().unwrap();
    let (_, why) = run(false, &[lasting[0], ("XDG_STATE_HOME", temporary.path().to_str().unwrap()), token]);
    assert!(why.contains("is in a temporary directory"), "{why}");
}

#[test]
#[ignore = "builds the release library; make test-demo"]
fn a_store_that_does_not_last_is_refused_before_anything_is_sent() {
    let org = Org::new();
    let mine = lasting_directory();
    let link = mine.path().join("link");
    std::os::unix::fs::symlink("/tmp", &link).unwrap();
    for store in [
        "memory:".into(),
        "sqlite:/tmp/a/b.db".into(),
        "sqlite:///var/tmp/b.db".into(),
        "sqlite:/dev/shm/b.db".into(),
        "sqlite:/run/b.db".into(),
        format!("sqlite:{}/b.db", link.display()),
        "sqlite:here/b.db".to_owned(),
    ] {
        let temporary = if store.contains("here") { org.home.path() } else { Path::new("/nowhere") };
        let file = org.file(json!({"store": store}));
        let (_, why) = run(false, &[("EVERGRANT_CONFIG", &file), ("TMPDIR", temporary.to_str().unwrap())]);
        assert!(why.contains("Nothing was sent"), "{store}: {why}");
        assert!(why.contains("does not last") || why.contains("temporary directory"), "{store}: {why}");
    }
    assert_eq!(org.token_requests(), 0);
    assert_eq!(org.server.stats().connections, 0);
}

use crate::raw::{Raw, basic, refresh_body};
use evergrant_test_server::{Options, Server};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

struct Control(Raw);

impl Control {
    fn call(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.0.send(method, &format!("/control/{path}"), "", &body).unwrap();
        let answer = self.0.receive().unwrap();
        (answer.status, answer.json())
    }

    fn get(&mut self, path: &str) -> Value {
        self.call("GET", path, &Value::Null).1
    }

    fn post(&mut self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call("POST", path, &body);
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

#[test]
fn everything_can_be_driven_over_http() {
    let server = Server::start(Options::salesforce());
    let mut control = Control(Raw::connect_to(&server.control_url()));
    let mut raw = Raw::connect(&server);
    let path = "/customers/services/oauth2/token";

    control.post("clients", json!({"id": "another", "secret": "its secret"}));
    control.post("settings", json!({"rotation": "strict", "token_prefix": "CANARY"}));
    let first = control.post("sign_in", json!({"client_id": "another", "user": "u", "scope": "api"}));
    let first = first["refresh_token"].as_str().unwrap().to_owned();
    assert!(first.contains("CANARY"));
    control.post("faults", json!([{"fault": "pass"}, {"fault": "error", "error": "server_error", "status": 503}]));
    assert_eq!(control.get("faults").as_array().unwrap().len(), 2);

    let headers = basic("another", "its secret");
    let second = raw.post_and_receive(path, &headers, &refresh_body(&first)).json();
    assert_eq!(raw.post_and_receive(path, &headers, &refresh_body(&first)).status, 503);
    assert_eq!(raw.post_and_receive(path, &headers, &refresh_body(&first)).status, 400);

    let log = control.get("log?endpoint=token&raw=1");
    let outcomes: Vec<&str> = log.as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["ok", "not_processed", "reused_and_revoked"]);
    assert_eq!((&log[0]["token"], &log[0]["issued_refresh_token"]), (&json!(first), &second["refresh_token"]));
    assert_eq!((&log[0]["target"], &log[0]["auth"]), (&json!(format!("POST {path}")), &json!("basic_raw")));
    assert!(log[0]["raw"].as_str().unwrap().ends_with(&refresh_body(&first)));
    assert_eq!(control.get("log?after=2").as_array().unwrap().len(), 1);
    let stats = control.get("stats");
    assert_eq!((&stats["token_requests"], &stats["token_requests_processed"]), (&json!(3), &json!(2)));
    assert_eq!((&stats["outcomes"]["ok"], &stats["reuses"], &stats["rotations"]), (&json!(1), &json!(1), &json!(1)));
    let family = &control.get("tokens?user=u")[0];
    assert_eq!((&family["generation"], &family["revoked"]["why"]), (&json!(2), &json!("reuse")));
    assert_eq!(family["refresh_tokens"][0]["presentations"], 3);

    let third = control.post("sign_in", json!({}));
    assert_eq!(control.post("expire", json!({"access_token": third["access_token"]})), json!({"ended": 1}));
    assert_eq!(control.post("revoke", json!({"token": third["refresh_token"]})), json!({"revoked": true}));
    control.post("users", json!({"user": "u", "active": false, "password": "p"}));

    assert_eq!(control.call("POST", "settings", &json!({"rotatoin": "none"})).0, 400);
    assert_eq!(control.call("POST", "faults", &json!({"fault": "unheard_of"})).0, 400);
    assert_eq!(control.call("GET", "nowhere", &Value::Null).0, 404);

    control.post("reset", json!({}));
    assert_eq!(control.get("tokens"), json!([]));
    assert_eq!(control.get("log"), json!([]));
    assert_eq!(control.get("settings")["rotation"], "none");
    assert_eq!(control.get("stats")["requests"], 0);
}

#[test]
fn the_program_says_where_it_is_and_goes_with_its_parent() {
    for by_stdin in [true, false] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_evergrant-test-server"))
            .args(["--mode", "generic", "--client", "id:a:b", "--rotation", "grace:newest_wins:5000"])
            .args(["--set", "access_token_life_ms=2500", "--options", r#"{"latency_ms":1}"#, "--exit-with-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["pid"], program.id());
        let mut control = Control(Raw::connect_to(ready["control_url"].as_str().unwrap()));
        let settings = control.get("settings");
        assert_eq!(
            settings["rotation"],
            json!({"grace": {"window_ms": 5000, "kind": "newest_wins", "reuse": "revoke"}})
        );
        assert_eq!((&settings["access_token_life_ms"], &settings["latency_ms"]), (&json!(2500), &json!(1)));
        let first = control.post("sign_in", json!({"client_id": "id"}));
        let body = refresh_body(first["refresh_token"].as_str().unwrap());
        let mut raw = Raw::connect_to(ready["url"].as_str().unwrap());
        let answer = raw.post_and_receive("/token", &basic("id", "a:b"), &body).json();
        assert_eq!(answer["expires_in"], 2);
        let stdin = program.stdin.take();
        if by_stdin {
            drop(stdin);
        } else {
            control.post("stop", json!({}));
        }
        assert!(program.wait().unwrap().success());
    }
}

//! The test server as a program: prints one line of JSON when it is ready, runs until it is stopped.

use evergrant_test_server::{Client, Options, Server};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::ExitCode;

const USAGE: &str = "\
evergrant-test-server: a fault-injecting OAuth 2.0 authorization server for tests

  --mode salesforce|generic     whose behaviour is imitated (salesforce)
  --port N                      0: any free port (0)
  --control-port N              0: any free port (0)
  --client ID[:SECRET]          registers a client; may be repeated (client:secret and public)
  --rotation KIND               none | strict | strict_refuses |
                                grace:same_pair:MS | grace:siblings_all:MS | grace:newest_wins:MS (none)
  --set NAME=JSON               any other option, for example --set access_token_life_ms=2000
  --options JSON|@FILE          any options as one JSON object; flags are laid over it
  --exit-with-stdin             stops when its standard input is closed: when its parent ends
  --help

When ready it prints {\"url\":…,\"control_url\":…,\"token_endpoint\":…,\"pid\":…}. SIGTERM or POST /control/stop end it.
Everything else is in tests/support/README.md.
";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evergrant-test-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let mut whole = json!({});
    let mut flags = json!({});
    let mut clients = Vec::new();
    let mut exit_with_stdin = false;
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--help" => {
                print!("{USAGE}");
                return Ok(());
            }
            "--exit-with-stdin" => {
                exit_with_stdin = true;
                continue;
            }
            _ => {}
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} is unknown or needs a value; see --help"))?;
        match flag.as_str() {
            "--mode" => flags["mode"] = value.into(),
            "--port" => flags["port"] = number(&value)?,
            "--control-port" => flags["control_port"] = number(&value)?,
            "--client" => clients.push(match value.split_once(':') {
                Some((id, secret)) => Client::confidential(id, secret),
                None => Client::public(&value),
            }),
            "--rotation" => flags["rotation"] = rotation(&value)?,
            "--set" => {
                let (name, value) = value.split_once('=').ok_or("--set needs NAME=JSON")?;
                flags[name] = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            }
            "--options" => {
                let text = match value.strip_prefix('@') {
                    Some(file) => std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?,
                    None => value,
                };
                whole = serde_json::from_str(&text).map_err(|error| format!("--options: {error}"))?;
            }
            _ => return Err(format!("{flag} is unknown; see --help")),
        }
    }
    if !clients.is_empty() {
        flags["clients"] = serde_json::to_value(clients).map_err(|error| error.to_string())?;
    }
    let (Value::Object(whole_members), Value::Object(flag_members)) = (&mut whole, flags) else {
        return Err("--options must be a JSON object".into());
    };
    whole_members.extend(flag_members);
    serve(Options::from_json(&whole)?, exit_with_stdin)
}

fn serve(options: Options, exit_with_stdin: bool) -> Result<(), String> {
    let server = Server::try_start(options).map_err(|error| format!("no port: {error}"))?;
    let ready = json!({
        "url": server.url(),
        "control_url": server.control_url(),
        "token_endpoint": server.token_endpoint(),
        "pid": std::process::id(),
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}").and_then(|()| stdout.flush()).map_err(|error| error.to_string())?;
    if exit_with_stdin {
        let stop = server.stopper();
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            while matches!(stdin.read(&mut [0; 256]), Ok(1..)) {}
            stop();
        });
    }
    server.wait();
    Ok(())
}

fn number(text: &str) -> Result<Value, String> {
    text.parse::<u16>().map(Value::from).map_err(|_| format!("{text} is not a port"))
}

fn rotation(text: &str) -> Result<Value, String> {
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("grace"), Some(kind), Some(window)) => {
            let window: u64 = window.parse().map_err(|_| format!("{window} is not a number of milliseconds"))?;
            Ok(json!({"grace": {"kind": kind, "window_ms": window}}))
        }
        (Some(kind), None, None) => Ok(kind.into()),
        _ => Err(format!("{text} is not a rotation; see --help")),
    }
}

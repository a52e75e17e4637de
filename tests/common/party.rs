//! Another process on the same store: this test program once more, told over its input what to do.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use evergrant::{Client, Error, Result};
use serde_json::{Value, json};

/// Answers stand behind this in the output.
const MARK: &str = "party> ";

pub struct Party {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Party {
    pub fn start() -> Self {
        Self::start_under(&[])
    }

    /// `wrapper`: a command that runs the command behind it.
    pub fn start_under(wrapper: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let words = wrapper.iter().map(|word| (*word).into()).chain([program.into_os_string()]);
        let words: Vec<std::ffi::OsString> = words.collect();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["--exact", "common::party::other_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env("EVERGRANT_TEST_PARTY", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), output, child }
    }

    /// Begins a call; its result is to be [received](Self::answer) later.
    pub fn begin(&mut self, call: Value) {
        writeln!(self.input.as_mut().unwrap(), "{call}").unwrap();
    }

    /// The result of the oldest call: a value, or an error as JSON.
    pub fn answer(&mut self) -> std::result::Result<Value, Value> {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the other process has ended");
            if let Some((_, answer)) = line.split_once(MARK) {
                let answer: Value = serde_json::from_str(answer).unwrap();
                return match answer.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(answer["ok"].clone()),
                };
            }
        }
    }

    pub fn ask(&mut self, call: Value) -> std::result::Result<Value, Value> {
        self.begin(call);
        self.answer()
    }

    /// `{"do": what, "session": session}`
    pub fn of(&mut self, what: &str, session: &str) -> std::result::Result<Value, Value> {
        self.ask(json!({"do": what, "session": session}))
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "it is the other process of tests that need one"]
fn other_process() {
    if std::env::var_os("EVERGRANT_TEST_PARTY").is_none() {
        return;
    }
    let mut client = None;
    for line in io::stdin().lines() {
        let call: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = match answer(&mut client, &call) {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error }),
        };
        println!("{MARK}{answer}");
    }
}

fn answer(client: &mut Option<Client>, call: &Value) -> Result<Value> {
    let options = call.get("options").map(Value::to_string);
    let options = options.as_deref();
    let session = call["session"].as_str().unwrap_or_default();
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    if call["do"] == "open" {
        *client = Some(Client::open(&call["config"].to_string())?);
        return Ok(Value::Null);
    }
    let client = client.as_ref().unwrap();
    Ok(match call["do"].as_str().unwrap() {
        "save" => {
            client.save(session, &call["token"].to_string())?;
            Value::Null
        }
        "access_token" => client.access_token(session, options)?.expose().into(),
        "token" => json(client.token(session, options)?.expose()),
        "renew" => json(client.renew(session, call["rejected"].as_str(), options)?.expose()),
        "sign_out" => {
            client.sign_out(session)?;
            Value::Null
        }
        "describe" => json(&client.describe(session)?),
        "stats" => json(&client.stats()?),
        "events" => json(&client.events(0, 0)?)["events"].clone(),
        "close" => client.close(10_000).name().into(),
        other => return Err(Error::invalid(other)),
    })
}

//! The control endpoints: what tests in other processes and languages drive the server with.

use crate::faults::Fault;
use crate::form;
use crate::http::{Connection, Ended, Head, Reply};
use crate::log::Entry;
use crate::options::Client;
use crate::server::Shared;
use crate::state::now_ms;
use serde::Serialize;
use serde_json::{Value, json};

/// Serves a control connection.
pub(crate) fn serve(shared: &Shared, connection: &mut Connection) {
    loop {
        let read = connection.read_head().and_then(|head| connection.read_body(&head).map(|body| (head, body)));
        let reply = match read {
            Ok((head, body)) => {
                let stops = head.path == "/control/stop" && head.method == "POST";
                let reply = answer(shared, &head, &body).unwrap_or_else(|error| {
                    let status = if error == NOT_FOUND { 404 } else { 400 };
                    Reply::json(status, &json!({"error": error}))
                });
                if connection.write(&reply.to_bytes().0).is_err() || head.wants_close() {
                    return;
                }
                if stops {
                    return shared.stop();
                }
                continue;
            }
            Err(Ended::Bad(reply)) => reply,
            Err(Ended::Closed) => return,
        };
        let _ = connection.write(&reply.to_bytes().0);
        return;
    }
}

const NOT_FOUND: &str = "no such control endpoint; see tests/support/README.md";

fn answer(shared: &Shared, head: &Head, body: &[u8]) -> Result<Reply, String> {
    let query = form::parse(&head.query);
    let asked = |name: &str| form::value(&query, name);
    let sent: Value = match body {
        [] => json!({}),
        _ => serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?,
    };
    let text = |name: &str| sent[name].as_str();
    let name = head.path.strip_prefix("/control/").unwrap_or_default();
    let answer = match (head.method.as_str(), name) {
        ("GET", "log") => {
            let after = asked("after").map_or(Ok(0), str::parse::<u64>).map_err(|error| error.to_string())?;
            let state = shared.state();
            let fits = |entry: &&Entry| {
                entry.n > after
                    && asked("endpoint").is_none_or(|name| to_json(&entry.endpoint) == name)
                    && asked("token").is_none_or(|token| entry.token.as_deref() == Some(token))
            };
            let raw = asked("raw").is_some();
            Value::Array(state.log.iter().filter(fits).map(|entry| entry_json(entry, raw)).collect())
        }
        ("GET", "stats") => to_json(&shared.state().stats),
        ("GET", "tokens") => {
            let mut families = shared.state().authority.view(now_ms());
            families.retain(|family| asked("user").is_none_or(|user| family.user == user));
            to_json(&families)
        }
        ("POST", "sign_in") => {
            let client_id = text("client_id").unwrap_or("client");
            let (user, scope) =
                (text("user").unwrap_or("user@example.com"), text("scope").unwrap_or("api refresh_token"));
            let signed_in = shared.sign_in(client_id, user, scope).ok_or_else(|| format!("no client {client_id:?}"))?;
            return Ok(Reply::new(200, "application/json", signed_in.json));
        }
        ("GET", "faults") => to_json(&shared.state().faults.armed()),
        ("POST", "faults") => {
            let faults = Fault::list_from_json(&sent)?;
            let armed = faults.len();
            faults.into_iter().for_each(|fault| shared.arm(fault));
            json!({"armed": armed})
        }
        ("DELETE", "faults") => {
            shared.state().faults.clear();
            json!({})
        }
        ("GET", "settings") => to_json(&shared.state().options),
        ("POST", "settings") => {
            let mut state = shared.state();
            let mut changed = state.options.clone();
            changed.lay_over(&sent)?;
            state.options = changed;
            to_json(&state.options)
        }
        ("POST", "clients") => {
            shared.add_client(serde_json::from_value::<Client>(sent).map_err(|error| error.to_string())?);
            json!({})
        }
        ("POST", "users") => {
            let user = text("user").ok_or("user is missing")?;
            let mut state = shared.state();
            if let Some(password) = text("password") {
                state.options.users.insert(user.into(), password.into());
            }
            if let Some(active) = sent["active"].as_bool() {
                state.authority.set_user_active(user, active);
            }
            json!({})
        }
        ("POST", "expire") => {
            let authority = &mut shared.state().authority;
            let ended = match text("access_token") {
                Some(token) => usize::from(authority.expire_access_token(token)),
                None => authority.expire_access_tokens(now_ms(), text("user")),
            };
            json!({"ended": ended})
        }
        ("POST", "revoke") => {
            let authority = &mut shared.state().authority;
            let revoked = match (text("token"), sent["family"].as_u64()) {
                (Some(token), _) => authority.revoke(now_ms(), token),
                (None, Some(family)) => authority.revoke_family_number(now_ms(), family),
                (None, None) => return Err("token or family is missing".into()),
            };
            json!({"revoked": revoked})
        }
        ("POST", "close_connections") => {
            json!({"closed": shared.close_connections(sent["reset"].as_bool().unwrap_or(false))})
        }
        ("POST", "reset") => {
            shared.state().reset();
            json!({})
        }
        ("POST", "stop") => json!({}),
        _ => return Err(NOT_FOUND.into()),
    };
    Ok(Reply::json(200, &answer))
}

fn entry_json(entry: &Entry, raw: bool) -> Value {
    let mut json = to_json(entry);
    if raw {
        json["raw"] = String::from_utf8_lossy(&entry.raw).into();
    }
    json
}

fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

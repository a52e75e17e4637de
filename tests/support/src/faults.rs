//! Ways to misbehave, armed for the next requests.

use crate::endpoints::Endpoint;
use crate::http::Reply;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing: lets a request through in a queue of faults.
    Pass,
    /// Nothing but `before_ms` and `after_ms`, which every fault takes.
    Delay,
    /// Processed; closed without an answer.
    DropReply,
    /// RST as soon as the head has arrived; the body is not read, the token not seen.
    ResetBeforeRead,
    /// Read, then RST; not processed.
    ResetAfterRead,
    /// Processed, then RST.
    ResetAfterProcess,
    /// Read, and never answered nor processed; ends when the client closes.
    Hang,
    /// A ghost: read, but processed only so long after the client has closed the connection.
    ProcessLate {
        /// Counted from the close.
        #[serde(default)]
        delay_ms: u64,
    },
    /// Processed; the head is complete, the body ends early, the connection closes.
    Truncate {
        /// So much of the body is sent.
        bytes: usize,
    },
    /// Processed; the reply ends early, counted from its first byte, the connection closes.
    TruncateHead {
        /// So much of the reply is sent.
        bytes: usize,
    },
    /// Processed; the reply comes in small pieces.
    Slow {
        /// Either the rate …
        #[serde(default)]
        bytes_per_s: Option<u64>,
        /// … or the time that it takes all in all.
        #[serde(default)]
        total_ms: Option<u64>,
    },
    /// Processed; the answer has a further member that makes it so long.
    Oversized {
        /// The body's length.
        bytes: usize,
    },
    /// A page with status 200.
    NonJson,
    /// A page.
    Html {
        /// With this status.
        status: u16,
    },
    /// Processed; one thing in the answer is not what it should be.
    WrongTypes {
        /// Which one.
        variant: WrongType,
    },
    /// Not processed: a status, as from a gateway in front.
    Status {
        /// The status.
        code: u16,
        /// JSON if it starts with `{`, else a page.
        #[serde(default)]
        body: Option<String>,
        /// The header field of that name: seconds or a date.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// The same, although the request was processed.
    StatusAfter {
        /// The status.
        code: u16,
        /// JSON if it starts with `{`, else a page.
        #[serde(default)]
        body: Option<String>,
        /// The header field of that name: seconds or a date.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Not processed: sent elsewhere.
    Redirect {
        /// Where to.
        location: String,
        /// 301, 302, 303, 307 or 308.
        #[serde(default = "see_temporary")]
        code: u16,
    },
    /// Not processed: an OAuth error.
    Error {
        /// `error`.
        error: String,
        /// `error_description`.
        #[serde(default)]
        description: String,
        /// 400 unless told otherwise.
        #[serde(default = "bad_request")]
        status: u16,
    },
    /// Not processed: Salesforce's refusal of a second request for the same token.
    Busy,
    /// Processed; the answer is labelled as something else.
    BadContentType {
        /// The label.
        #[serde(default = "html_type")]
        content_type: String,
    },
    /// Processed, answered with `Connection: close`, and closed.
    ConnectionClose,
    /// Processed, answered, and closed so long afterwards without a word: a pooled connection gone stale.
    SilentClose {
        /// Counted from the reply.
        #[serde(default)]
        delay_ms: u64,
    },
    /// Processed; a rotated refresh token is left out of the answer.
    OmitRefreshToken,
    /// For the next `count` connections instead of requests: RST on accept.
    ResetOnAccept,
    /// At once: the listener is closed for so long, connections are refused. `count` has no meaning.
    RefuseConnections {
        /// From now.
        ms: u64,
    },
}

/// What is wrong in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongType {
    /// `"access_token": 42`
    AccessTokenNumber,
    /// No `access_token`.
    AccessTokenMissing,
    /// `"access_token": ""`
    AccessTokenEmpty,
    /// `"access_token": null`
    AccessTokenNull,
    /// An `access_token` with a line break in it.
    AccessTokenLineBreak,
    /// `"refresh_token": 42`
    RefreshTokenNumber,
    /// `"refresh_token": ""`
    RefreshTokenEmpty,
    /// `"refresh_token": null`
    RefreshTokenNull,
    /// `"token_type": "mac"`
    TokenTypeMac,
    /// No `token_type`.
    TokenTypeMissing,
    /// The answer in an array.
    Array,
    /// An empty body.
    Empty,
    /// A byte in `access_token` that is not UTF-8.
    NotUtf8,
}

fn see_temporary() -> u16 {
    307
}

fn bad_request() -> u16 {
    400
}

fn html_type() -> String {
    "text/html".into()
}

fn once() -> Option<u32> {
    Some(1)
}

/// A fault and when it strikes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// How many requests it strikes; none (JSON: null): all until cleared.
    #[serde(default = "once")]
    pub count: Option<u32>,
    /// Whose requests it strikes.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// A pause before the request is processed.
    #[serde(default)]
    pub before_ms: u64,
    /// A pause between that and the reply.
    #[serde(default)]
    pub after_ms: u64,
}

impl From<FaultKind> for Fault {
    /// Strikes the next token request.
    fn from(kind: FaultKind) -> Self {
        Self { kind, count: once(), endpoint: Endpoint::Token, before_ms: 0, after_ms: 0 }
    }
}

impl Fault {
    /// Strikes so many requests.
    pub fn times(self, count: u32) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Strikes all requests until it is cleared.
    pub fn always(self) -> Self {
        Self { count: None, ..self }
    }

    /// Strikes requests for this endpoint.
    pub fn on(self, endpoint: Endpoint) -> Self {
        Self { endpoint, ..self }
    }

    /// Pauses before the request is processed.
    pub fn before(self, before_ms: u64) -> Self {
        Self { before_ms, ..self }
    }

    /// Pauses between processing and reply.
    pub fn after(self, after_ms: u64) -> Self {
        Self { after_ms, ..self }
    }

    /// One fault or an array of them. A member that the fault does not know is an error.
    pub(crate) fn list_from_json(json: &Value) -> Result<Vec<Self>, String> {
        let one = |item: &Value| {
            let fault: Self = serde_json::from_value(item.clone()).map_err(|error| error.to_string())?;
            let known = serde_json::to_value(&fault).map_err(|error| error.to_string())?;
            match item.as_object().into_iter().flatten().find(|(name, _)| known.get(name).is_none()) {
                Some((name, _)) => Err(format!("the fault {} has no {name:?}", fault.kind.name())),
                None => Ok(fault),
            }
        };
        match json {
            Value::Array(items) => items.iter().map(one).collect(),
            item => Ok(vec![one(item)?]),
        }
    }
}

impl FaultKind {
    /// As in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Delay => "delay",
            Self::DropReply => "drop_reply",
            Self::ResetBeforeRead => "reset_before_read",
            Self::ResetAfterRead => "reset_after_read",
            Self::ResetAfterProcess => "reset_after_process",
            Self::Hang => "hang",
            Self::ProcessLate { .. } => "process_late",
            Self::Truncate { .. } => "truncate",
            Self::TruncateHead { .. } => "truncate_head",
            Self::Slow { .. } => "slow",
            Self::Oversized { .. } => "oversized",
            Self::NonJson => "non_json",
            Self::Html { .. } => "html",
            Self::WrongTypes { .. } => "wrong_types",
            Self::Status { .. } => "status",
            Self::StatusAfter { .. } => "status_after",
            Self::Redirect { .. } => "redirect",
            Self::Error { .. } => "error",
            Self::Busy => "busy",
            Self::BadContentType { .. } => "bad_content_type",
            Self::ConnectionClose => "connection_close",
            Self::SilentClose { .. } => "silent_close",
            Self::OmitRefreshToken => "omit_refresh_token",
            Self::ResetOnAccept => "reset_on_accept",
            Self::RefuseConnections { .. } => "refuse_connections",
        }
    }

    /// The reply that is given without processing the request; none: it is processed.
    pub(crate) fn instead(&self, legacy_busy_text: bool) -> Option<Reply> {
        Some(match self {
            Self::NonJson => page(200),
            Self::Html { status } => page(*status),
            Self::Status { code, body, retry_after } => gateway(*code, body.as_deref(), retry_after.as_deref()),
            Self::Redirect { location, code } => Reply::empty(*code).with("Location", location),
            Self::Error { error, description, status } => Reply::error(*status, error, description),
            Self::Busy => busy(legacy_busy_text),
            _ => return None,
        })
    }

    /// What becomes of the true answer.
    pub(crate) fn spoil(&self, mut reply: Reply) -> Reply {
        match self {
            Self::StatusAfter { code, body, retry_after } => {
                return gateway(*code, body.as_deref(), retry_after.as_deref());
            }
            Self::Oversized { bytes } => edit(&mut reply, |answer| {
                let missing = bytes.saturating_sub(answer.to_string().len() + r#","padding":"""#.len());
                answer["padding"] = "x".repeat(missing).into();
            }),
            Self::OmitRefreshToken => edit(&mut reply, |answer| remove(answer, "refresh_token")),
            Self::WrongTypes { variant } => variant.spoil(&mut reply),
            Self::BadContentType { content_type } => reply.set("Content-Type", content_type),
            Self::ConnectionClose => reply.set("Connection", "close"),
            _ => {}
        }
        reply
    }
}

impl WrongType {
    fn spoil(self, reply: &mut Reply) {
        match self {
            Self::Empty => reply.body.clear(),
            Self::NotUtf8 => {
                edit(reply, |answer| answer["access_token"] = "a?b".into());
                if let Some(position) = reply.body.windows(3).position(|three| three == b"a?b") {
                    reply.body[position + 1] = 0xff;
                }
            }
            _ => edit(reply, |answer| match self {
                Self::AccessTokenNumber => answer["access_token"] = 42.into(),
                Self::AccessTokenMissing => remove(answer, "access_token"),
                Self::AccessTokenEmpty => answer["access_token"] = "".into(),
                Self::AccessTokenNull => answer["access_token"] = Value::Null,
                Self::AccessTokenLineBreak => answer["access_token"] = "a\r\nb".into(),
                Self::RefreshTokenNumber => answer["refresh_token"] = 42.into(),
                Self::RefreshTokenEmpty => answer["refresh_token"] = "".into(),
                Self::RefreshTokenNull => answer["refresh_token"] = Value::Null,
                Self::TokenTypeMac => answer["token_type"] = "mac".into(),
                Self::TokenTypeMissing => remove(answer, "token_type"),
                Self::Array => *answer = json!([answer]),
                Self::Empty | Self::NotUtf8 => {}
            }),
        }
    }
}

/// Changes the JSON object in a reply; leaves any other body alone.
fn edit(reply: &mut Reply, change: impl FnOnce(&mut Value)) {
    if let Ok(mut answer @ Value::Object(_)) = serde_json::from_slice(&reply.body) {
        change(&mut answer);
        reply.body = answer.to_string().into_bytes();
    }
}

fn remove(answer: &mut Value, name: &str) {
    if let Some(members) = answer.as_object_mut() {
        members.shift_remove(name);
    }
}

pub(crate) fn busy(legacy_text: bool) -> Reply {
    let text = if legacy_text { "expired authorization code" } else { "token request is already being processed" };
    Reply::error(400, "invalid_grant", text)
}

fn page(status: u16) -> Reply {
    let body = "<!DOCTYPE html><html><head><title>Please wait</title></head><body><h1>Please wait</h1></body></html>";
    Reply::new(status, "text/html", body)
}

fn gateway(code: u16, body: Option<&str>, retry_after: Option<&str>) -> Reply {
    let mut reply = match body {
        Some(text) if text.starts_with('{') => Reply::new(code, "application/json", text),
        Some(text) => Reply::new(code, "text/html", text),
        None => page(code),
    };
    if let Some(retry_after) = retry_after {
        reply.set("Retry-After", retry_after);
    }
    reply
}

/// The armed faults: the first one that fits strikes.
#[derive(Default)]
pub(crate) struct Faults(VecDeque<Fault>);

impl Faults {
    pub(crate) fn arm(&mut self, fault: Fault) {
        if fault.count != Some(0) {
            self.0.push_back(fault);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn armed(&self) -> Vec<&Fault> {
        self.0.iter().collect()
    }

    pub(crate) fn take_for_request(&mut self, endpoint: Endpoint) -> Option<Fault> {
        self.take(|fault| fault.endpoint == endpoint && fault.kind != FaultKind::ResetOnAccept)
    }

    pub(crate) fn take_for_connection(&mut self) -> bool {
        self.take(|fault| fault.kind == FaultKind::ResetOnAccept).is_some()
    }

    fn take(&mut self, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let position = self.0.iter().position(fits)?;
        let fault = &mut self.0[position];
        let taken = fault.clone();
        if let Some(count) = &mut fault.count {
            *count -= 1;
            if *count == 0 {
                self.0.remove(position);
            }
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_in_their_order_and_as_often_as_they_were_armed() {
        let mut faults = Faults::default();
        faults.arm(Fault::from(FaultKind::DropReply).times(2));
        faults.arm(Fault::from(FaultKind::Hang).on(Endpoint::Revoke));
        faults.arm(Fault::from(FaultKind::Busy).always());
        let mut next = |endpoint| faults.take_for_request(endpoint).map(|fault| fault.kind.name());
        assert_eq!(next(Endpoint::Token), Some("drop_reply"));
        assert_eq!(next(Endpoint::Revoke), Some("hang"));
        assert_eq!(next(Endpoint::Revoke), None);
        assert_eq!(next(Endpoint::Token), Some("drop_reply"));
        assert_eq!(next(Endpoint::Token), Some("busy"));
        assert_eq!(next(Endpoint::Token), Some("busy"));
    }

    #[test]
    fn json_is_one_fault_or_many_and_strangers_are_named() {
        let faults = Fault::list_from_json(&json!([
            {"fault": "truncate", "bytes": 10, "count": null},
            {"fault": "delay", "before_ms": 5, "endpoint": "introspect"},
        ]));
        let expected = [
            Fault::from(FaultKind::Truncate { bytes: 10 }).always(),
            Fault::from(FaultKind::Delay).before(5).on(Endpoint::Introspect),
        ];
        assert_eq!(faults.unwrap(), expected);
        let error = Fault::list_from_json(&json!({"fault": "drop_reply", "cuont": 2})).unwrap_err();
        assert_eq!(error, "the fault drop_reply has no \"cuont\"");
        assert!(Fault::list_from_json(&json!({"fault": "unheard_of"})).is_err());
    }
}

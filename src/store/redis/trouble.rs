//! What the driver's and the server's errors mean, and what to do about them.

use std::io;

use redis::RedisError;

use crate::store::pool::{CONNECT, Trouble};

/// Why something failed.
pub enum Failed {
    /// The driver or the server says so.
    Said(RedisError),
    /// The connection was not made.
    Io(io::Error),
    /// TLS was not set up.
    Tls(rustls::Error),
    /// No answer in time.
    Late,
    /// We say so.
    Ours(Trouble),
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Failed::Said(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => Failed::Tls(inner.clone()),
            None => Failed::Io(error),
        }
    }
}

impl From<rustls::Error> for Failed {
    fn from(error: rustls::Error) -> Self {
        Failed::Tls(error)
    }
}

const REPLICA: &str = "it is a replica, which cannot be written: name all hosts of a failover group in store";

impl Failed {
    pub fn is_replica() -> Self {
        Failed::Ours(Trouble::Away(REPLICA.to_owned()))
    }

    /// Of a command.
    pub fn trouble(self) -> Trouble {
        match self {
            Failed::Ours(trouble) => trouble,
            Failed::Late => Trouble::Away("it gave no answer in time".to_owned()),
            Failed::Io(error) => Trouble::Lost(one_line(&error.to_string())),
            Failed::Tls(error) => Trouble::Refused(format!(
                "no TLS connection: {}. Correct ssl_ca_certs in store, or the server's certificate.",
                one_line(&error.to_string())
            )),
            Failed::Said(error) => match code(&error) {
                Some(code) => answered(&error, &code),
                None => Trouble::Lost(one_line(&error.to_string())),
            },
        }
    }

    /// Of making a connection.
    pub fn at_connect(self) -> Trouble {
        match self {
            Failed::Late => Trouble::Away(format!("no connection in {} s", CONNECT.as_secs())),
            failed => match failed.trouble() {
                Trouble::Lost(why) => Trouble::Away(why),
                trouble => trouble,
            },
        }
    }

    /// Of AUTH: some servers repeat what they do not understand, the password perhaps.
    pub fn at_log_in(self) -> Self {
        self.with_code(|code| match code {
            "ERR" | "WRONGPASS" | "NOPERM" => {
                Some(Trouble::Refused("the user or the password is wrong: correct store.".to_owned()))
            }
            _ => None,
        })
    }

    /// Of SELECT.
    pub fn at_select(self) -> Self {
        self.with_code(|code| {
            let no_database = "there is no such database: correct the number in store; a cluster has only 0.";
            (code == "ERR").then(|| Trouble::Refused(no_database.to_owned()))
        })
    }

    fn with_code(self, meaning: impl FnOnce(&str) -> Option<Trouble>) -> Self {
        let trouble = match &self {
            Failed::Said(error) => code(error).and_then(|code| meaning(&code)),
            _ => None,
        };
        trouble.map_or(self, Failed::Ours)
    }

    /// The user may not do this.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Failed::Said(error) if code(error).as_deref() == Some("NOPERM"))
    }

    /// The server did nothing, since it is no master any more.
    pub fn is_unwritten(&self) -> bool {
        matches!(self, Failed::Said(error) if code(error).as_deref() == Some("READONLY"))
    }

    /// The server did nothing, since this node of its cluster has the keys.
    pub fn moved_to(&self) -> Option<(String, u16)> {
        let Failed::Said(error) = self else { return None };
        let (host, port) =
            error.detail().filter(|_| error.code() == Some("MOVED"))?.split_once(' ')?.1.rsplit_once(':')?;
        Some((Some(host.to_owned()).filter(|host| !host.is_empty())?, port.parse().ok()?))
    }
}

/// The server's word for what is wrong, if it is the server that speaks. Redis 6 hides that of a command in a script.
fn code(error: &RedisError) -> Option<String> {
    let code = error.code()?;
    let inner = error.detail().filter(|_| code == "ERR").and_then(|detail| detail.split_once("@user_script:"));
    let inner = inner.and_then(|(_, rest)| rest.split_once(": -")?.1.split(' ').next());
    Some(inner.unwrap_or(code).to_owned())
}

/// The server answers.
fn answered(error: &RedisError, code: &str) -> Trouble {
    let detail = error.detail().unwrap_or_default();
    // What follows may be a part of a record.
    let detail = one_line(detail.split("with args").next().unwrap_or_default());
    let refused = |advice: &str| Trouble::Refused(format!("{advice} ({code} {detail})."));
    match code {
        "NOAUTH" | "WRONGPASS" => {
            refused("the user or the password is wrong, or missing: correct store, redis://user:password@…")
        }
        "NOPERM" => refused(
            "this user may not do what evergrant does: grant it ~evergrant:* +eval +hget +hmget +hset +del +zadd +zrem \
             +zrangebylex +time, and best also +info +wait +config|get",
        ),
        // This connection's server is no master any more: a new one may find another.
        "READONLY" => Trouble::Lost(REPLICA.to_owned()),
        "OOM" => refused("its memory is full: raise maxmemory"),
        "MISCONF" => refused("it cannot write to its disk: see its log"),
        "WRONGTYPE" => refused("another program uses the keys that begin with evergrant: give it another database"),
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "NOREPLICAS" | "UNBLOCKED" | "ASK" => {
            Trouble::Away(format!("it says \"{code} {detail}\""))
        }
        "ERR" if detail.contains("max number of clients") => Trouble::Away(format!("it says \"{detail}\"")),
        _ => refused("the server refuses a command"),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect::<String>().trim().to_owned()
}

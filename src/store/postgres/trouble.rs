//! What the driver's and the server's errors mean, and what to do about them.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::schema;
use crate::store::pool::{CONNECT, Trouble};

/// Why something failed.
pub enum Failed {
    /// The driver or the server says so.
    Said(Error),
    /// No answer in time.
    Late,
    /// We say so.
    Ours(Trouble),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Said(error)
    }
}

impl Failed {
    /// Of a statement.
    pub fn trouble(self) -> Trouble {
        match self {
            Failed::Ours(trouble) => trouble,
            Failed::Late => Trouble::Away("it gave no answer in time".to_owned()),
            Failed::Said(error) => match error.as_db_error() {
                Some(said) => answered(said),
                None => Trouble::Lost(one_line(&chain(&error))),
            },
        }
    }

    /// Of making a connection.
    pub fn at_connect(self) -> Trouble {
        match self {
            Failed::Late => Trouble::Away(format!("no connection in {} s", CONNECT.as_secs())),
            Failed::Said(error) if error.as_db_error().is_none() => not_connected(&error),
            failed => match failed.trouble() {
                Trouble::Lost(why) => Trouble::Away(why),
                trouble => trouble,
            },
        }
    }

    /// The server is there and has answered.
    pub fn is_said(&self) -> bool {
        self.code().is_some()
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Failed::Said(error) => error.code(),
            _ => None,
        }
    }
}

/// Another transaction came in between, and nothing was written.
pub fn is_conflict(failed: &Failed) -> bool {
    matches!(failed.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED))
}

pub fn is_table_missing(failed: &Failed) -> bool {
    failed.code() == Some(&SqlState::UNDEFINED_TABLE)
}

/// The user may not do this.
pub fn is_forbidden(failed: &Failed) -> bool {
    failed.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

/// Somebody else makes the same table at this moment.
pub fn is_there_already(failed: &Failed) -> bool {
    matches!(
        failed.code(),
        Some(&SqlState::UNIQUE_VIOLATION | &SqlState::DUPLICATE_TABLE | &SqlState::DUPLICATE_OBJECT)
    )
}

/// The server answers.
fn answered(said: &DbError) -> Trouble {
    let code = said.code().code();
    let refused = |advice: &str| Trouble::Refused(format!("{advice} ({}, SQLSTATE {code}).", one_line(said.message())));
    match *said.code() {
        SqlState::UNDEFINED_TABLE => {
            refused("its tables are gone: restore them, or start the program again for an empty store")
        }
        SqlState::INSUFFICIENT_PRIVILEGE => refused(schema::RIGHTS),
        SqlState::UNDEFINED_COLUMN | SqlState::DATATYPE_MISMATCH | SqlState::UNDEFINED_FUNCTION => {
            refused(schema::NOT_OURS)
        }
        SqlState::INVALID_CATALOG_NAME => refused("there is no such database: create it, or correct store"),
        SqlState::DISK_FULL => refused("its disk is full: free some space"),
        SqlState::READ_ONLY_SQL_TRANSACTION => Trouble::Away(
            "it is read-only, a standby perhaps: with several hosts in the URL, target_session_attrs=read-write finds \
             the one that can be written"
                .to_owned(),
        ),
        // This connection ends, whatever the server does then.
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::IDLE_SESSION_TIMEOUT => {
            Trouble::Lost(format!("it says \"{}\" (SQLSTATE {code})", one_line(said.message())))
        }
        _ if code.starts_with("28") => {
            refused("the user or the password is wrong, or may not connect from here: correct store")
        }
        // Connections, resources, an operator's intervention, PgBouncer's own words.
        _ if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            Trouble::Away(format!("it says \"{}\" (SQLSTATE {code})", one_line(said.message())))
        }
        _ => refused("the server refuses a statement"),
    }
}

fn not_connected(error: &Error) -> Trouble {
    let text = one_line(&chain(error));
    let mut source = error.source();
    let mut broken = false;
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return Trouble::Refused(format!(
                "no TLS connection: {text}. Correct sslmode or sslrootcert in store, or the server's certificate."
            ));
        }
        broken |= cause.is::<io::Error>();
        source = cause.source();
    }
    match broken || error.is_closed() {
        true => Trouble::Away(text),
        // What the driver decides by itself: no TLS at the server, no password, an unknown way to log in.
        false => Trouble::Refused(format!("{text}. Correct store.")),
    }
}

/// The driver says what it did, its sources say why.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

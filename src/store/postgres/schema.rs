//! The tables: made where they are missing and this user may, checked where they are there.

use std::time::Instant;

use super::connect::Connection;
use super::trouble::{Failed, is_forbidden, is_table_missing, is_there_already};
use crate::store::pool::Trouble;

/// For people who administer a database, and for us.
const SQL: &str = include_str!("../../../docs/postgres.sql");
const MAJOR: &str = "1";

pub const NOT_OURS: &str = "its tables are not as docs/postgres.sql makes them";
pub const RIGHTS: &str = "this user may not use the tables evergrant_session and evergrant_meta, or not create them: let \
                          them be made with docs/postgres.sql, which comes with evergrant, and grant what it says";

/// Has the tables there, of a version that this library knows.
pub fn prepare(connection: &mut Connection, until: Instant, read_only: bool) -> Result<(), Failed> {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        match connection.query(until, "SELECT value FROM evergrant_meta WHERE name = 'schema'", &[]) {
            Ok(rows) => {
                let version: Option<String> = rows.first().and_then(|row| row.try_get(0).ok());
                return check(version.as_deref());
            }
            Err(failed) if !is_table_missing(&failed) => return Err(failed),
            Err(_) if read_only => {
                return Err(refused("it has no tables yet: open it once with a client that renews."));
            }
            Err(_) => {}
        }
        match connection.batch(until, SQL) {
            Ok(()) => {}
            // Another party makes them at the same moment.
            Err(failed) if is_there_already(&failed) => {}
            Err(failed) if is_forbidden(&failed) => {
                return Err(refused(
                    "its tables are missing, and this user may not create them: have them made with \
                     docs/postgres.sql, which comes with evergrant, or GRANT CREATE ON SCHEMA to this user.",
                ));
            }
            Err(failed) => return Err(failed),
        }
    }
    Err(refused(NOT_OURS))
}

fn check(version: Option<&str>) -> Result<(), Failed> {
    match version.and_then(|version| version.split_once('.')) {
        Some((MAJOR, _)) => Ok(()),
        Some((major, minor)) => Err(refused(&format!(
            "its schema has version {major}.{minor}, this version of evergrant knows {MAJOR}.x: upgrade it."
        ))),
        None => Err(refused(&format!("{NOT_OURS}."))),
    }
}

fn refused(why: &str) -> Failed {
    Failed::Ours(Trouble::Refused(why.to_owned()))
}

//! What SQLite's errors mean and what to do about them.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::Error;

/// Why a use of the database failed.
pub enum Failure {
    /// SQLite says so.
    Sql(rusqlite::Error),
    /// We say so, about the database.
    Said(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Said(error)
    }
}

impl Failure {
    /// Whether trying again soon helps: another connection is writing, recovering or closing.
    pub fn is_busy(&self) -> bool {
        use ErrorCode::{DatabaseBusy, DatabaseLocked, FileLockingProtocolFailed};
        matches!(self.code(), Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed))
    }

    /// Whether the file, or its directory, cannot be written.
    pub fn is_read_only(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied))
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Failure::Sql(error) => error.sqlite_error_code(),
            Failure::Said(_) => None,
        }
    }

    /// One line that names the database and says what to do.
    pub fn explain(self, path: &Path) -> Error {
        let error = match self {
            Failure::Said(mut error) => {
                if !error.message.contains(&*path.to_string_lossy()) {
                    error.message = format!("the store {} cannot be used: {}", path.display(), error.message);
                }
                return error;
            }
            Failure::Sql(error) => error,
        };
        let advice = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => DAMAGED,
            Some(ErrorCode::DiskFull) => FULL,
            Some(ErrorCode::SystemIoFailure) if is_full(path) => FULL,
            Some(ErrorCode::ReadOnly) => {
                "it cannot be written: let this user write the file and its directory, or set renews to false for a \
                 client that only uses what others renew"
            }
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
                "it cannot be opened: let this user read and write the file, its directory and its -wal and -shm files"
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                "another process has kept it locked for 10 s: find out which one (a backup or a database browser, \
                 perhaps) and end it"
            }
            Some(ErrorCode::SystemIoFailure) => "the disk failed to read or write: check the disk",
            Some(_) => "SQLite failed: check the disk and the memory of this machine",
            // A column that has another type, text that is not UTF-8, a table that is missing.
            None => DAMAGED,
        };
        Error::store(format!("the store {} cannot be used: {advice} ({}).", path.display(), one_line(&error)))
    }
}

/// SQLite's own words, which may quote a damaged file.
fn one_line(error: &rusqlite::Error) -> String {
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// For everything that is not as it was written.
pub const DAMAGED: &str = "it is damaged: restore it from a backup, or move it and its -wal and -shm files away and \
                           have the users sign in again; nothing was overwritten";
const FULL: &str = "the disk is full: free some space";

fn is_full(path: &Path) -> bool {
    let directory = path.parent().unwrap_or(path);
    rustix::fs::statvfs(directory).is_ok_and(|found| found.f_bavail == 0 || (found.f_files > 0 && found.f_favail == 0))
}

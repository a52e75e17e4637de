//! A shared store in PostgreSQL (`postgres://…`), for parties on several machines.
//!
//! One row per session as in [`super::sqlite`]; the clock is the server's `clock_timestamp()`, read by the statement
//! that reads the row.

use std::sync::Arc;

use super::Store;
use super::seal::Keys;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Connects nothing.
pub fn open(_url: &Secret, _keys: Keys, _read_only: bool) -> Result<Arc<dyn Store>> {
    Err(Error::invalid(format!(
        "configuration key \"store\": postgres:// is not built yet in this version ({})",
        crate::VERSION
    )))
}

//! A shared store in Redis or Valkey (`redis://…`), for parties on several machines. Not built yet.
//!
//! One hash per session; compare-and-swap and `TIME` in one script.

use std::sync::Arc;

use super::Store;
use super::seal::Keys;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Connects nothing.
pub fn open(_url: &Secret, _keys: Keys, _read_only: bool) -> Result<Arc<dyn Store>> {
    Err(Error::invalid(format!(
        "configuration key \"store\": redis:// is not built yet in this version ({})",
        crate::VERSION
    )))
}

//! What C passes in, checked.

use std::ffi::{CStr, c_char};
use std::sync::Arc;

use super::client::evergrant_client;
use crate::client::Client;
use crate::error::{Error, Result};

/// Far above any configuration or token, far below what would hurt.
const LONGEST: usize = 1 << 20;

/// A string argument with its name.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    name: &'static str,
    value: Option<&'a CStr>,
}

impl<'a> Text<'a> {
    /// # Safety
    /// `pointer` is NULL or a C string that stays as it is during `'a`.
    #[inline]
    pub(super) unsafe fn new(name: &'static str, pointer: *const c_char) -> Self {
        // SAFETY: the caller's promise, and not NULL.
        let value = (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) });
        Self { name, value }
    }

    /// The text; NULL is an error.
    pub(super) fn required(self) -> Result<&'a str> {
        self.optional()?.ok_or_else(|| null(self.name))
    }

    /// The text, or none for NULL.
    pub(super) fn optional(self) -> Result<Option<&'a str>> {
        let Some(value) = self.value else { return Ok(None) };
        if value.count_bytes() > LONGEST {
            return Err(Error::invalid(format!("{}: is longer than {LONGEST} bytes", self.name)));
        }
        match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                Err(Error::invalid(format!("{}: is not UTF-8 from byte {} on", self.name, error.valid_up_to())))
            }
        }
    }

    /// The text with replacement characters where it is not UTF-8.
    pub(super) fn lossy(self) -> Option<std::borrow::Cow<'a, str>> {
        self.value.map(CStr::to_string_lossy)
    }

    /// The text as it came, unchecked, for functions that give no reason.
    #[inline]
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        self.value.map(CStr::to_bytes)
    }

    /// Whether it is UTF-8.
    #[cold]
    pub(super) fn is_utf8(self) -> bool {
        self.value.is_none_or(|value| value.to_str().is_ok())
    }
}

/// The core's client behind a handle.
pub(super) fn client(handle: Option<&evergrant_client>) -> Result<&Arc<Client>> {
    handle.map(|handle| &handle.client).ok_or_else(|| null("client"))
}

pub(super) fn null(name: &str) -> Error {
    Error::invalid(format!("{name}: must not be NULL"))
}

//! Strings that the caller owns.
//!
//! One block holds the block's size, the text and a NUL; C gets a pointer to the text. So freeing needs no strlen, and
//! wipes everything even if the caller has cut the string short in place (strtok).

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::guard::{catch, store};
use crate::error::{Error, Result, Status};

const PREFIX: usize = size_of::<usize>();

/// Stores a copy of `text`, if it is wanted.
pub(super) fn give(out: Option<&mut MaybeUninit<*mut c_char>>, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::new(Status::Internal, "the result contains a NUL character, which no C string can hold"));
    }
    if out.is_some() {
        store(out, copy(text));
    }
    Ok(())
}

/// A copy of `text`, which must not contain NUL, to be freed with `evergrant_string_free()`.
#[inline]
pub(super) fn copy(text: &str) -> *mut c_char {
    let size = PREFIX + text.len() + 1;
    let mut block = Vec::with_capacity(size);
    block.extend_from_slice(&size.to_ne_bytes());
    block.extend_from_slice(text.as_bytes());
    block.push(0);
    let block = Box::into_raw(block.into_boxed_slice());
    // SAFETY: the block is longer than its prefix.
    unsafe { block.cast::<c_char>().add(PREFIX) }
}

/// Wipes and frees a string that this library returned as *owned*; never use free() on it.
///
/// @param string  NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evergrant_string_free(string: *mut c_char) {
    if string.is_null() {
        return;
    }
    catch(|| {
        // SAFETY: `copy` made this string: its size stands before it, and the block is a boxed slice of that size.
        unsafe {
            let block = string.cast::<u8>().sub(PREFIX);
            let size = block.cast::<usize>().read_unaligned();
            drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(block, size)));
        }
    });
}

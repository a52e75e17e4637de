//! The boundary: no panic crosses it, and results and errors are stored in one way.

use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::evergrant_error;
use crate::error::{Error, Result, Status};

/// Runs `body`; its error, or NULL, goes to `error_out`.
pub(super) fn guard(
    error_out: Option<&mut MaybeUninit<*mut evergrant_error>>,
    body: impl FnOnce() -> Result<()>,
) -> Status {
    let result = catch(body).unwrap_or_else(|| {
        Err(Error::new(
            Status::Internal,
            "a defect of evergrant was caught; standard error has the details, please report it",
        ))
    });
    let (status, error) = match result {
        Ok(()) => (Status::Ok, std::ptr::null_mut()),
        Err(error) if error_out.is_none() => (error.status, std::ptr::null_mut()),
        Err(error) => (error.status, Box::into_raw(Box::new(evergrant_error::from(error)))),
    };
    store(error_out, error);
    status
}

/// The result of `body`, or none if it panicked.
#[inline]
pub(super) fn catch<T>(body: impl FnOnce() -> T) -> Option<T> {
    // What a panic leaves behind is the core's to mind: its state is behind locks, and a handle is only ever read.
    catch_unwind(AssertUnwindSafe(body))
        // Dropping the payload could panic again.
        .map_err(mem::forget)
        .ok()
}

/// Stores an output, if it is wanted.
#[inline]
pub(super) fn store<T>(out: Option<&mut MaybeUninit<T>>, value: T) {
    if let Some(out) = out {
        out.write(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Grenade;

    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn a_panic_becomes_an_error_even_if_its_payload_panics() {
        let mut error = MaybeUninit::new(std::ptr::null_mut());
        let status = guard(Some(&mut error), || std::panic::panic_any(Grenade));
        assert_eq!(status, Status::Internal);
        // SAFETY: initialised above, and `guard` stored an error from `Box::into_raw`.
        let error = unsafe { Box::from_raw(error.assume_init()) };
        assert_eq!(super::super::error::evergrant_error_status(Some(&error)), Status::Internal);
    }

    #[test]
    fn success_stores_null() {
        let mut error = MaybeUninit::new(std::ptr::dangling_mut());
        assert_eq!(guard(Some(&mut error), || Ok(())), Status::Ok);
        // SAFETY: initialised above.
        assert!(unsafe { error.assume_init() }.is_null());
    }
}

//! The three things that only the operating system can do, and that no safe crate offers.

#![allow(unsafe_code)]

/// Has these called around every fork of this process: `pthread_atfork(3)`.
#[cfg(unix)]
pub fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    // SAFETY: the handlers are functions of this library, which is never unmapped (linked with -z nodelete).
    unsafe {
        libc::pthread_atfork(Some(prepare), Some(parent), Some(child));
    }
}

/// Has this called at a normal exit: `atexit(3)`.
pub fn at_exit(handler: extern "C" fn()) {
    // SAFETY: as above.
    unsafe {
        libc::atexit(handler);
    }
}

/// Runs `spawn` with all signals blocked, so that the thread it starts inherits that: the host's handlers never run on
/// a thread of this library.
#[cfg(unix)]
pub fn with_signals_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    use std::mem::MaybeUninit;

    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises `all`; pthread_sigmask initialises `before` when it succeeds, and fails only for a
    // bad first argument.
    let blocked = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) == 0
    };
    let result = spawn();
    if blocked {
        // SAFETY: `before` was initialised by the call that succeeded.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        }
    }
    result
}

/// There are no signals to block.
#[cfg(not(unix))]
pub fn with_signals_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    spawn()
}

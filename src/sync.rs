//! What threads share and wait with. With the feature `shuttle` all of it is simulated, so that tests/concurrency.sh can
//! run the library in any order of its steps.

#[cfg(not(feature = "shuttle"))]
mod real {
    pub use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};
    pub use std::time::Instant;
    pub use std::{thread, thread_local};

    pub use arc_swap::ArcSwapOption;
}
#[cfg(not(feature = "shuttle"))]
pub use real::*;

#[cfg(feature = "shuttle")]
mod simulated;
#[cfg(feature = "shuttle")]
pub use simulated::*;

//! Fork, exit, and the library's own threads.

use std::sync::Weak;

/// Something that a fork must not tear.
pub trait AtFork: Send + Sync {
    /// In the parent, before the fork, when no thread is [inside](enter): close idle database connections.
    fn prepare(&self);
    /// In the child: close the owner descriptor, leak the rest. The child never uses this object again.
    fn child(&self);
}

/// While this lives, no fork happens. Never take it twice on one thread.
pub struct Inside(());

/// Waits while a fork is being prepared. Every use of SQLite and of owner files happens inside.
pub fn enter() -> Inside {
    Inside(())
}

/// Has `object` told of forks for as long as it lives.
pub fn register(_object: Weak<dyn AtFork>) {}

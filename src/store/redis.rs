//! A shared store in Redis or Valkey (`redis://…`), for parties on several machines. Not built yet.
//!
//! One hash per session; compare-and-swap and `TIME` in one script.

//! The C face: check arguments, call the core, store the result. No logic.
//!
//! Doc comments here are written for readers of C: they become `include/evergrant.h` word for word. What they promise
//! about pointers is what every `unsafe` below relies on, hence no `# Safety` sections.
#![allow(non_camel_case_types, unsafe_code, clippy::missing_safety_doc)]

#[cfg(panic = "abort")]
compile_error!("evergrant catches panics at its C boundary: build it with panic = \"unwind\"");

mod alloc;
mod argument;
mod client;
mod error;
mod guard;
mod library;
mod queue;
mod session;
mod sign_in;
mod string;

pub use client::evergrant_client;
pub use error::evergrant_error;
pub use library::ABI_VERSION;
pub use queue::evergrant_queue;

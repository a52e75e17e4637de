//! One user's grant, kept renewed.

pub mod ends;
pub mod events;
pub mod fingerprint;
pub mod protocol;
pub mod record;

pub(crate) mod cache;
mod recent;
pub(crate) mod renewer;
pub(crate) mod report;

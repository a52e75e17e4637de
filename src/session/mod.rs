//! One user's grant, kept renewed.

pub mod record;

//! An exhaustive search through the renewal protocol: the functions that the library ships, on real records, with every
//! order of the steps of a few parties, a store, a network, a server and its users, and every fault in every place.
//!
//! What must hold is in [`properties`]; what is searched, and how far, in [`runs`]; that each property can fail, in
//! [`mutations`].

pub mod mutations;
pub mod properties;
pub mod records;
pub mod report;
pub mod rules;
pub mod runs;
pub mod search;
pub mod servers;
pub mod world;

//! The renewal protocol, `decide` and `settle`, against the tables in docs/protocol.md: cell by cell, as properties over
//! all inputs, and as random walks of several parties with a simulated authorization server.

mod back_off;
mod decide;
mod moves;
mod parts;
mod properties;
mod settle;
mod walk;
mod writes;

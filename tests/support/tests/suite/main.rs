//! What a client sees of the server, byte by byte, and what the server's log says about it.

mod control;
mod faults;
mod generic;
mod load;
mod raw;
mod salesforce;

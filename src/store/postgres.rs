//! A shared store in PostgreSQL (`postgres://…`), for parties on several machines. Not built yet.
//!
//! One row per session as in [`super::sqlite`]; the clock is the server's `clock_timestamp()`, read by the statement
//! that reads the row.

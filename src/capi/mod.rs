//! The C face: check arguments, call the core, store the result. No logic.

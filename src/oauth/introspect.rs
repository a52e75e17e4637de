//! Token introspection (RFC 7662) will live here.

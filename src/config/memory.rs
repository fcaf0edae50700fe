//! What the gateway counts for what it serves, against `limits.memory`.
//!
//! The figures are upper bounds of what was measured, not averages of it (README, sizing): a ceiling that counts too little
//! is none. Bodies that are held count by their bytes, besides.

/// Bytes for a client's connection, with its task, its timer and, over TLS, its session.
pub const OF_CONNECTION: usize = 32 << 10;
/// Bytes for a connection over HTTP/2, besides: its tables, and the window of what it may send before it is read.
pub const OF_HTTP2: usize = 96 << 10;
/// Bytes for a request under way: both of its heads, a connection to a backend, and the pieces of its response between the
/// backend and a client that does not read.
pub const OF_REQUEST: usize = 128 << 10;

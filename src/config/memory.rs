//! What the gateway counts for what it serves, against `limits.memory`.
//!
//! The figures are upper bounds of what `scripts/footprint.py` measures, the worst case included: responses that a backend
//! sends as fast as it can to clients that do not read. A ceiling that counts what is usual would not hold. Bodies that are
//! held count by their bytes, besides.

/// Bytes for a client's connection: 6.4 KiB were measured while it is idle.
pub const OF_CONNECTION: usize = 8 << 10;
/// Bytes for TLS on it: 19 KiB were measured while it is idle, 32 KiB while a client does not read.
pub const OF_TLS: usize = 36 << 10;
/// Bytes for HTTP/2 on it: 18 KiB were measured, and the client can send 64 KiB before they are read.
pub const OF_HTTP2: usize = 84 << 10;
/// Bytes for a request in flight: 4 KiB were measured in a stream of tokens, 40 KiB over HTTP/1.1 and 155 KiB over HTTP/2
/// where the client does not read (what was read from the backend waits, and over HTTP/2 as much again in frames).
pub const OF_REQUEST: usize = 160 << 10;

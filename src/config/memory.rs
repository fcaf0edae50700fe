//! What the gateway counts for what it serves, against `limits.memory`.
//!
//! The figures are upper bounds of what `scripts/footprint.py` measures, the worst case included: responses that a backend
//! sends as fast as it can to clients that do not read. A ceiling that counts what is usual would not hold. Bodies that are
//! held count by their bytes, besides.

/// Bytes for a client's connection, with its tasks and its timer: 25 KiB were measured.
pub const OF_CONNECTION: usize = 28 << 10;
/// Bytes for TLS on it, besides: 37 KiB were measured while it is idle, and 6 KiB more while a client does not read.
pub const OF_TLS: usize = 48 << 10;
/// Bytes for HTTP/2 on it, besides: 17 KiB were measured, and the client may send 64 KiB before anybody reads them.
pub const OF_HTTP2: usize = 84 << 10;
/// Bytes for a request under way: 41 KiB were measured in a stream of tokens, 268 KiB where the client does not read (a
/// read buffer of 64 KiB and four pieces that wait).
pub const OF_REQUEST: usize = 272 << 10;

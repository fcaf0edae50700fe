//! HTTP/1.1 messages on the wire: heads of responses, and where a body ends.
//!
//! | file | what |
//! |---|---|
//! | `response.rs` | the head of a response, and how its body is framed |
//! | `body.rs` | the end of a body, by length, by chunks, or by the end of the connection |
//! | `chunked.rs` | the chunked coding (RFC 9112, section 7.1), read and written |
//! | `extension.rs` | chunk extensions, which pass unread |
//! | `fields.rs` | header and trailer fields: line endings, and which ones belong to one connection only |
//!
//! Nothing here does I/O. The bytes of a backend's response pass to clients unchanged, so this code must never find
//! the end of a message at another byte than any client does. Where HTTP lets recipients choose, it refuses: one
//! framing, lengths in digits, CRLF at the end of every line, bounded lines.

mod body;
mod chunked;
mod extension;
mod fields;
mod response;

pub use body::{Body, Framing};
pub use chunked::{ChunkedScanner, LAST_CHUNK, MAX_TRAILERS, Scanned, chunk_size_line, parse_trailers};
pub use fields::{Field, MAX_FIELDS, is_hop_by_hop, is_token};
pub use response::{FieldSlots, MAX_HEAD_BYTES, ResponseHead};

/// A message that two recipients could read in different ways, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

//! Server-sent events of inference servers, as far as a gateway has to read them.
//!
//! | file | what |
//! |---|---|
//! | `reader.rs` | splits a stream into events, comments and their ends, however it is cut |
//! | `output.rs` | whether an event has output, or is an error |
//! | `error.rs` | what an error event means, and error events of our own |
//! | `first.rs` | the start of a stream, up to its first output |
//!
//! Nothing here does I/O. A stream is read until its first output and no further.

mod error;
mod first;
mod output;
mod reader;

pub use error::{ErrorClass, ErrorEvent};
pub use first::{FirstOutput, MAX_HELD, Verdict};
pub use output::{Kind, kind};
pub use reader::{Event, EventReader, Item};

//! The APIs of inference servers, as far as a gateway reads or writes them.
//!
//! | file | what |
//! |---|---|
//! | `error.rs` | errors in the shape of each API |
//! | `kind.rs` | what a request asks of a backend: the table of what is inference |
//! | `usage.rs` | prompt and cached tokens in responses |

mod error;
mod kind;
pub mod usage;

pub use error::{Api, ApiError, message};
pub use kind::Kind;

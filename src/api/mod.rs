//! The APIs of inference servers, as far as a gateway reads or writes them.
//!
//! | file | what |
//! |---|---|
//! | `error.rs` | errors in the shape of each API |
//! | `usage.rs` | prompt and cached tokens in responses |

mod error;
pub mod usage;

pub use error::{Api, ApiError, message};

//! `policy: least_ttft`: the backend where this request will probably see its first token soonest.
//!
//! A prompt's cost is counted in its bytes, which a gateway sees for free and which stand for tokens: a chat request
//! carries its whole history. Every term of a score is in bytes of prompt, so nothing depends on the unit of time or
//! on how fast the servers are; the one learned rate only tells how much of the oldest prompt is done by now.
//!
//! ```text
//! score(b) = (wait(b) + w * recompute(b) + d * decoding(b)) / speed(b)
//! ```
//!
//! - [`waiting`]: what a backend has to read before it comes to this request;
//! - [`rates`]: what is learned from first tokens and from the backends' own figures;
//! - [`score`](mod@score): the terms, and the choice.
//!
//! With nothing pending and nothing seen all scores are equal, and equal scores go by the preference order: the
//! policy is then the consistent hash.

pub mod rates;
pub mod score;
pub mod waiting;

pub use rates::Rates;
pub use score::{Candidate, Choice, Lean, Others, Seen, Terms, choose};
pub use waiting::{Expected, Ticket, Waiting};

//! `policy: least_ttft`: the backend where this request will probably see its first token soonest.
//!
//! A prompt's cost is counted in its bytes, which a gateway sees for free and which stand for tokens: a chat request
//! carries its whole history. All terms of a score are in bytes of prompt, so nothing depends on the unit of time or on
//! how fast the servers are: times only say how much of a prompt has been read by now.
//!
//! ```text
//! score(b)     = (max(pending(b), slots(b)) + w * recompute(b) + d * decoding(b)) / speed(b)
//!
//! pending(b)   = bytes of the prompts that await their first token at b, less what must have been read of the oldest,
//!                plus half of those that others wait for, if b says so; a quarter for answers in one piece
//! slots(b)     = bytes that b would read until a slot is free, if none is
//! recompute(b) = bytes - held(age) * seen(b); at the home of a session that is not known, bytes * (1 - q)
//! w            = 1.5 + gateways * behind, at most 19.5
//! d            = 960
//! q            = 0 with one gateway, 1/2 with several
//! ```
//!
//! Learned, per pool: `held`, the share of what was seen that is still cached after an idle age; `behind`, how many
//! requests wait behind one whose prompt is read, each of which a recomputed byte delays too; the bytes that are read in
//! a millisecond. Per backend: `speed`, whose prior is the weight. A session leaves where it was last only for a gain
//! of more than 1,600 bytes and a tenth of the score.
//!
//! With nothing pending and nothing seen all scores are equal, and equal scores go by the preference order: what knows
//! nothing is the consistent hash.
//!
//! - [`waiting`]: what a backend has to read before it comes to this request;
//! - [`rates`], [`speed`]: what is learned from first tokens and from the backends' own figures;
//! - [`score`](mod@score): the terms, and the choice.
//!
//! `cargo bench --bench policies` simulates this against the hash and an oracle; the constants are from there.

mod number;
pub mod rates;
pub mod score;
pub mod speed;
pub mod waiting;

pub use rates::Rates;
pub use score::{Candidate, Choice, Lean, Seen, Terms, choose, expect, score};
pub use speed::Speed;
pub use waiting::{Expected, Ticket, Waiting};

#[cfg(test)]
mod tests;

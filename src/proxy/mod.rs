//! The proxy: the relay between clients and backends.
//!
//! One request, in the order of its way:
//!
//! | file | what |
//! |---|---|
//! | `connections.rs`, `handshake.rs` | which connections are admitted; TLS or not, HTTP/1.1 or HTTP/2 |
//! | `http1/`, `http2.rs`, `client.rs` | a client of each version, behind one trait: its request, its response, its departure |
//! | `head.rs`, `form.rs`, `access.rs` | refuses what is malformed, too much, or not allowed; finds the session |
//! | `cors.rs` | pages of other origins: preflights, and errors that pages can read |
//! | `exchange.rs` | one request: its body, a backend, attempts, the end |
//! | `body.rs` | reads and holds the body |
//! | `wait.rs` | waits for room at a backend |
//! | `attempt.rs`, `pipe.rs` | one attempt: connects, sends the request while it reads the response |
//! | `response.rs`, `relay.rs` | decides about the response, notes what it shows, relays it |
//! | `tunnel.rs` | what follows an upgrade |
//! | `retry.rs` | whether a failed attempt is followed by another one |
//! | `answer.rs`, `refusal.rs` | the gateway's own answers |
//! | `ctx.rs`, `record.rs` | what is known of a request; everything that is counted when it ends, whatever way it ends |

mod access;
mod answer;
mod attempt;
mod body;
mod client;
mod connections;
mod cors;
mod ctx;
mod exchange;
mod first_token;
mod form;
mod handshake;
mod head;
mod http1;
mod http2;
mod judge;
mod pipe;
mod record;
mod refusal;
mod relay;
mod response;
mod retry;
mod scratch;
mod socket;
mod tunnel;
mod wait;

pub use connections::Connections;
pub use socket::ClientSocket;

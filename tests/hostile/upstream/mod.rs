//! Hostile backends against the real gateway, judged by strict clients: HTTP/1.1, HTTP/1.0 and HTTP/2.
//!
//! | file | what |
//! |---|---|
//! | `script.rs` | the form of a case: what the backend does, and what a client can get |
//! | `table/` | the cases |
//! | `origin.rs` | the backend |
//! | `stage.rs` | the gateway in front of it |
//! | `client.rs` | the clients; those of HTTP/1 read with `tests/fuzz/reader.rs` |
//! | `judge.rs` | what came of a case |
//! | `upload.rs` | answers to requests of which a part was read |
//! | `slow.rs` | clients that do not read |
//! | `kept.rs` | random answers over connections that are shared |
//!
//! A client gets an answer whole, or sees that it is not. After each case, the next request on the client's connection
//! and one on another connection get their own answers, and the gateway holds nothing.

mod client;
mod judge;
mod kept;
mod origin;
mod script;
mod slow;
mod stage;
mod table;
mod upload;

use table::{bytes, chunks, codings, end, interim, lengths, size, status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_line_is_strict() {
    judge::run([status::junk(), status::unusual()].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_answer_is_refused() {
    judge::run(status::nothing()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_length_is_refused() {
    judge::run(lengths::lengths()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_without_a_body_has_none() {
    judge::run(lengths::empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coding_other_than_chunked_is_refused() {
    judge::run(codings::codings()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_with_odd_bytes_is_refused() {
    judge::run([bytes::bytes(), bytes::lines()].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_size_is_bounded() {
    judge::run(size::sizes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_chunk_is_refused_or_breaks() {
    judge::run(chunks::chunks()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_trailer_is_refused_or_breaks() {
    judge::run(chunks::trailers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_response_is_no_answer() {
    judge::run(interim::interim()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_after_an_answer_reach_no_client() {
    judge::run(end::more()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_is_an_end_and_a_reset_is_not() {
    judge::run(end::until_close()).await;
}

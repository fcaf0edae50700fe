//! Random answers, good and hostile, to clients that share connections to the backend: each gets its own answer, or sees
//! that it has none.
//!
//! `INGLE_FUZZ_CASES` is the number of requests (1,600), `INGLE_FUZZ_SEED` selects the answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Client, Kind, Outcome};
use super::script::{answer, chunked};
use super::stage::Stage;
use crate::cases::PATIENCE;
use crate::fuzz::setting;
use crate::grammar::Random;
use crate::strict;

/// What the backend sends to request `n`, and whether it goes on after that.
fn reply(n: usize, seed: u64) -> (Vec<u8>, bool) {
    let mut random = Random(seed.wrapping_add(n as u64));
    let own = format!("own {n}");
    let size = own.len();
    let length = answer(format!("Content-Length: {size}"), &own);
    let chunks = chunked(format!("{size:x}\r\n{own}\r\n0\r\n\r\n"));
    let stray = answer(format!("Content-Length: {}", size + 2), format!("stray {n}"));
    let of = |parts: &[&[u8]]| parts.concat();
    // Half of them are good, so that there are connections to share.
    match random.below(24) {
        0..6 => (length, true),
        6..11 => (chunks, true),
        11 => (of(&[b"HTTP/1.1 103 x\r\nLink: </a>\r\n\r\n", &length]), true),
        12 => (length, false),
        13 => (of(&[&length, &stray]), true),
        14 => (of(&[&chunks, &stray]), true),
        15 => (of(&[b"HTTP/1.1 204 x\r\n\r\n", &stray]), true),
        16 => (answer(format!("Content-Length: {}", size + 9), &own), false),
        17 => (chunked(format!("{size:x}\r\n{own}\r\n")), false),
        18 => (chunked(format!("{size:x}\r\n{own}\r\nzz\r\n")), true),
        19 => (answer("", &own), false),
        20 => (chunked(format!("{size:x}\r\n{own}\r\n0\r\nX: {n}\r\n\r\nHTTP/1.1 200 OK\r\n")), true),
        21 => (of(&[b"\r\n", &length]), true),
        22 => (format!("HTTP/1.0 200 OK\r\n\r\n{own}").into_bytes(), false),
        _ => (of(&[&own.into_bytes(), &stray]), false),
    }
}

async fn serve(mut stream: TcpStream, seed: u64) {
    let mut bytes = Vec::new();
    loop {
        match strict::request(&bytes).expect("a well-formed request") {
            Some((request, length)) => {
                bytes.drain(..length);
                let (reply, goes_on) = reply(request.target[1..].parse().unwrap(), seed);
                if stream.write_all(&reply).await.is_err() || !goes_on {
                    return;
                }
            }
            None if matches!(stream.read_buf(&mut bytes).await, Ok(1..)) => {}
            None => return,
        }
    }
}

fn is_own(outcome: &Outcome, kind: Kind, n: usize) -> bool {
    let own = format!("own {n}").into_bytes();
    let is_from_backend = outcome.field("X-Ingle-Backend").is_some();
    // To HTTP/1.0, a body without a length ends with its connection.
    let is_all = outcome.is_whole && (kind != Kind::Http10 || outcome.field("Content-Length").is_some());
    match outcome.status {
        Some(200) if is_all => is_from_backend && outcome.payload == own,
        Some(200) => is_from_backend && own.starts_with(&outcome.payload),
        Some(204) => is_from_backend && outcome.payload.is_empty(),
        Some(502) => !is_from_backend && outcome.is_whole,
        _ => false,
    }
}

/// Sends every `step`th request over one connection as long as it is kept, then over another one.
async fn ask(stage: Arc<Stage>, kind: Kind, numbers: Vec<usize>) -> BTreeMap<String, usize> {
    let (mut client, mut counts) = (Client::connect(stage.address, kind).await, BTreeMap::new());
    for n in numbers {
        let asked = timeout(PATIENCE, client.ask("GET", &format!("/{n}"), |_| ())).await;
        let outcome = asked.expect("the gateway hangs").unwrap_or_else(|error| panic!("{n}: {error}"));
        assert!(is_own(&outcome, kind, n), "{n}: {outcome}");
        *counts.entry(format!("{:?} {}", outcome.status, outcome.is_whole)).or_default() += 1;
        if !outcome.keeps {
            client.end().await.unwrap();
            client = Client::connect(stage.address, kind).await;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_answers_reach_their_own_client() {
    let (requests, seed) = (setting("INGLE_FUZZ_CASES", 1600), setting("INGLE_FUZZ_SEED", 1) as u64);
    println!("INGLE_FUZZ_SEED={seed} INGLE_FUZZ_CASES={requests}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = Arc::new(Stage::before(listener.local_addr().unwrap()).await);
    let backend = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, seed));
            while let Some(served) = connections.try_join_next() {
                served.unwrap();
            }
        }
    });
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let kind = [Kind::Http11, Kind::Http11, Kind::Http10, Kind::H2c][number % 4];
        clients.spawn(ask(Arc::clone(&stage), kind, (number..requests).step_by(CLIENTS).collect()));
    }
    let counts = clients.join_all().await;
    println!("{counts:?}");
    assert!(counts.iter().all(|counts| counts.len() >= 3), "each kind of answer for each client");
    stage.until_empty().await.unwrap();
    assert!(!backend.is_finished(), "a request was malformed");
}

const CLIENTS: usize = 8;

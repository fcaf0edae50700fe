//! The form of a case, and how it is judged.

use crate::client::{self, Answer, End};
use crate::world::World;

/// Bytes from a hostile client, and what must become of them.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
    pub(crate) expect: Expect,
}

/// What must become of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// One answer with this status, then a close; nothing reaches the backend.
    Refused(u16),
    /// A close without an answer; nothing reaches the backend.
    Closed,
    /// A 200 for each of these, and exactly these reach the backend: `METHOD TARGET BODY`.
    Served(&'static [&'static str]),
}

/// The client waits for its answer.
pub(crate) fn case(name: &'static str, bytes: impl AsRef<[u8]>, expect: Expect) -> Case {
    Case { name, bytes: bytes.as_ref().to_vec(), end: End::Waits, expect }
}

/// The client ends its half of the connection: the message stays as incomplete as it is.
pub(crate) fn cut(name: &'static str, bytes: impl AsRef<[u8]>, expect: Expect) -> Case {
    Case { end: End::HalfCloses, ..case(name, bytes, expect) }
}

/// A POST to `/case` with these header lines and this body.
pub(crate) fn post(headers: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    [b"POST /case HTTP/1.1\r\nHost: a\r\n", headers.as_ref(), b"\r\n\r\n", body.as_ref()].concat()
}

/// A GET of `/case` with these header lines.
pub(crate) fn get(headers: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /case HTTP/1.1\r\nHost: a\r\n", headers.as_ref(), b"\r\n\r\n"].concat()
}

/// Runs all cases, one after the other, and panics with the list of those that went wrong.
pub(crate) async fn run(world: &World, cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for case in &cases {
        let outcome = outcome(world, case).await;
        println!("{:<58} {}", case.name, outcome.as_deref().unwrap_or_else(|error| error));
        if let Err(error) = outcome {
            wrong.push(format!("{}: expected {:?}, but {error}", case.name, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases went wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

async fn outcome(world: &World, case: &Case) -> Result<String, String> {
    let (served, refused) = match case.expect {
        Expect::Refused(status) => (&[][..], Some(status)),
        Expect::Closed => (&[][..], None),
        Expect::Served(requests) => (requests, None),
    };
    let most = (served.len() + usize::from(refused.is_some())).max(1);
    let answers = client::exchange(world.address, &case.bytes, case.end, most).await;
    let (reached, unfinished) = world.aftermath().await?;
    let answers = answers?;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let expected: Vec<u16> = served.iter().map(|_| 200).chain(refused).collect();
    let outcome = format!("{statuses:?} {reached:?}{}", if unfinished { ", one cut" } else { "" });
    if unfinished || statuses != expected || reached != served {
        return Err(format!("it was {outcome}"));
    }
    answers.iter().zip(served).try_for_each(|(answer, request)| right_answer(answer, request))?;
    Ok(outcome.chars().take(120).collect())
}

fn right_answer(answer: &Answer, request: &str) -> Result<(), String> {
    let target = request.split(' ').nth(1).unwrap_or_default();
    let empty = request.starts_with("HEAD ");
    if answer.body == if empty { "" } else { target } { Ok(()) } else { Err(format!("answers mixed up: {answer:?}")) }
}

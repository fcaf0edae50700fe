//! Uploads that a backend does not read to their end before it answers.

use std::future::pending;

use bytes::Bytes;
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::client::{Client, Kind, Outcome, read_http1, read_http2_response};
use super::judge::control;
use super::origin::EARLY;
use super::script::{PIECE, Step, answer, chunked, counted};
use super::stage::{Stage, UPLOAD_MILLIS};
use crate::cases::PATIENCE;

/// What a future returns that does not end.
enum Never {}

/// In which order a client writes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Both at once.
    AtOnce,
    /// It reads once it has written everything, or can't write any more.
    WriteFirst,
}

/// Sends an upload of this many bytes, reads its answer.
async fn upload(stage: &Stage, kind: Kind, order: Order, length: usize) -> Result<Outcome, String> {
    let note = |progress| stage.origin.note(progress);
    match &mut Client::connect(stage.address, kind).await {
        Client::Http1 { stream, seen, version } => {
            let head = format!("POST {EARLY} {version}\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let (mut from, mut into) = stream.split();
            let write = async {
                // The gateway can close before it has everything.
                let mut is_open = into.write_all(head.as_bytes()).await.is_ok();
                for _ in 0..length / PIECE {
                    is_open = is_open && into.write_all(&[b'u'; PIECE]).await.is_ok();
                }
            };
            let outcome = match order {
                Order::AtOnce => tokio::select! {
                    never = async { write.await; pending::<Never>().await } => match never {},
                    outcome = read_http1(&mut from, seen, false, note) => outcome?,
                },
                Order::WriteFirst => {
                    write.await;
                    read_http1(&mut from, seen, false, note).await?
                }
            };
            if seen.is_empty() { Ok(outcome) } else { Err(format!("after the answer came {}", seen.escape_ascii())) }
        }
        Client::H2c { requests, .. } => {
            let request = Request::post(format!("http://a{EARLY}")).header("Content-Length", length).body(()).unwrap();
            let mut requests = requests.clone().ready().await.map_err(|error| error.to_string())?;
            let (response, mut body) = requests.send_request(request, false).map_err(|error| error.to_string())?;
            let write = async {
                let mut rest = length;
                while rest > 0 {
                    body.reserve_capacity(rest);
                    let Some(Ok(room)) = std::future::poll_fn(|context| body.poll_capacity(context)).await else {
                        break;
                    };
                    let piece = Bytes::from(vec![b'u'; room.min(rest)]);
                    rest -= piece.len();
                    if body.send_data(piece, rest == 0).is_err() {
                        break;
                    }
                }
                pending::<Never>().await
            };
            let mut outcome = Outcome::default();
            let read = tokio::select! {
                never = write => match never {},
                read = read_http2_response(response, &mut outcome, &note) => read,
            };
            outcome.is_whole = read.is_ok();
            note(outcome.progress(true));
            Ok(outcome)
        }
    }
}

/// Uploads with each kind of client while the backend takes these steps. The outcome must hold.
async fn all_clients(stage: &Stage, name: &str, length: usize, steps: &[Step], holds: impl Fn(&Outcome) -> bool) {
    for (kind, order) in [
        (Kind::Http11, Order::AtOnce),
        (Kind::Http11, Order::WriteFirst),
        (Kind::Http10, Order::AtOnce),
        (Kind::H2c, Order::AtOnce),
    ] {
        stage.origin.set(steps);
        let name = format!("{name} ({kind:?}, {order:?})");
        let outcome = timeout(PATIENCE, upload(stage, kind, order, length)).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{name}: the gateway hangs")).unwrap();
        println!("{name:<70} {outcome}");
        assert!(holds(&outcome), "{name}: {outcome}");
        timeout(PATIENCE, stage.origin.until_done()).await.expect("the backend is left");
        stage.until_quiet().await.unwrap();
        control(&mut Client::connect(stage.address, Kind::Http11).await, "/control/after").await.unwrap();
        stage.until_empty().await.unwrap();
        let log = stage.origin.log();
        assert!(log.wrong.is_empty(), "{name}: {:?}", log.wrong);
        assert!(!log.controls.iter().any(|used| log.cases.contains(used)), "{name}: its connection was used again");
    }
}

fn is(status: u16, payload: &[u8]) -> impl Fn(&Outcome) -> bool {
    move |outcome| outcome.status == Some(status) && outcome.payload == payload && outcome.is_whole
}

fn too_large() -> Step {
    Step::Send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge".to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_to_half_an_upload_is_relayed() {
    let stage = Stage::with_little_upload_time().await;
    for (name, steps) in [
        ("at once, then a close", vec![too_large(), Step::Close]),
        ("at once, without a close", vec![too_large(), Step::AwaitEnd, Step::Hang]),
        ("at 100 KB, then a close", vec![Step::Take(100_000), too_large(), Step::Close]),
        ("at 100 KB, without a close", vec![Step::Take(100_000), too_large(), Step::AwaitEnd, Step::Hang]),
        ("when nothing more is read, then a close", vec![Step::Take(1), Step::AwaitBlocked, too_large(), Step::Close]),
        ("when nothing more is read", vec![Step::Take(1), Step::AwaitBlocked, too_large(), Step::AwaitEnd, Step::Hang]),
        ("before all is read", vec![too_large(), Step::Take(LONG), Step::Hang]),
    ] {
        all_clients(&stage, name, LONG, &steps, is(413, b"large")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_early_answer_arrives_whole() {
    let stage = Stage::with_little_upload_time().await;
    let payload = counted(0, 200_000);
    let send = Step::Send(answer(format!("Content-Length: {}", payload.len()), &payload));
    all_clients(&stage, "200 KB", LONG, &[send, Step::AwaitEnd, Step::Hang], is(200, &payload)).await;
}

/// The answer takes longer than the client is given for its request, which the backend does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_early_answer_arrives_whole() {
    let stage = Stage::with_little_upload_time().await;
    let payload = vec![b'x'; UPLOAD_MILLIS * 3 / 2];
    let head = Step::Send(answer(format!("Content-Length: {}", payload.len()), ""));
    let drip = Step::Drip(payload.clone());
    let steps = [Step::Take(1), Step::AwaitBlocked, head, drip, Step::AwaitEnd, Step::Hang];
    all_clients(&stage, "a byte a millisecond", LONG, &steps, is(200, &payload)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_early_answer_is_refused() {
    let stage = Stage::with_little_upload_time().await;
    let refused = |outcome: &Outcome| outcome.status == Some(502) && outcome.field("X-Ingle-Backend").is_none();
    for (name, bytes) in [
        ("a bad chunk", chunked("zz\r\n")),
        ("both framings", answer("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        ("junk", b"junk".to_vec()),
    ] {
        let steps = [Step::Take(1), Step::AwaitBlocked, Step::Send(bytes), Step::AwaitEnd, Step::Hang];
        all_clients(&stage, name, LONG, &steps, refused).await;
    }
}

/// The client did nothing wrong, so it does not get the 408 of a slow client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_that_reads_nothing_is_504() {
    let stage = Stage::with_little_upload_time().await;
    let steps = [Step::Take(1), Step::AwaitBlocked, Step::AwaitEnd, Step::Hang];
    all_clients(&stage, "silence", LONG, &steps, |outcome| outcome.status == Some(504)).await;
    let steps = [Step::Take(1), Step::AwaitBlocked, Step::Hang];
    all_clients(&stage, "silence after a pause", LONG, &steps, |outcome| outcome.status == Some(504)).await;
}

/// Far more than the buffers of the two connections hold.
const LONG: usize = 32 << 20;

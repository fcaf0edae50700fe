//! HTTP/2 clients that send what the protocol allows, too much of it, or at the wrong time.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frames::{
    self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, block, frame,
};
use crate::scenario::{Play, Played, Scenario, not_applicable, scenario};
use crate::stage::Stage;

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("goaway", "a client says GOAWAY while its streams run", |play| {
            // No stream of the server's was seen: the last one is 0.
            flood(play, frame(GOAWAY, 0, 0, &[0; 8]), 1)
        }),
        scenario("rst_stream", "a client opens 2,000 streams and resets each at once", |play| {
            let head = head();
            let storm = (0..2000u32).flat_map(|n| {
                let stream = 2 * n + 101;
                [frame(HEADERS, END_STREAM | END_HEADERS, stream, &head), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
                    .concat()
            });
            flood(play, storm.collect(), 1)
        }),
        scenario("ping", "a client sends 500,000 PINGs and reads no answer", |play| {
            flood(play, frame(PING, 0, 0, &[0; 8]).repeat(10_000), 50)
        }),
        scenario("settings", "a client sends 500,000 SETTINGS and reads no answer", |play| {
            flood(play, frame(SETTINGS, 0, 0, &[]).repeat(10_000), 50)
        }),
        scenario("garbage", "a client sends 50 frames that are none, each on a connection of its own", garbage),
        not_applicable(
            "backends",
            "a backend sends GOAWAY, RST_STREAM, or floods with PING",
            "ingle speaks HTTP/1.1 with backends",
        ),
    ]
}

fn head() -> Vec<u8> {
    block(&[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/short/flood"), (b":authority", b"a")])
}

/// Five clients open ten streams each, send this so many times, and read nothing; others have their turns meanwhile.
async fn flood(play: Play, bytes: Vec<u8>, times: usize) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    let ten = (0..10u32).flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &head()));
    let begin: Vec<u8> = PREFACE.iter().copied().chain(ten).collect();
    let mut taken = 0;
    for _ in 0..5 * stage.play.times(1) {
        let mut stream = TcpStream::connect(stage.process.address).await.unwrap();
        stream.write_all(&begin).await.unwrap();
        for _ in 0..times {
            // Who queues no answers for somebody who reads none lets the client wait.
            match timeout(Duration::from_millis(200), stream.write_all(&bytes)).await {
                Ok(Ok(())) => taken += 1,
                _ => break,
            }
        }
        stage.traffic.turns(1).await;
        // What came is for nobody; that it ends, or does not, is both right.
        let _ = timeout(Duration::from_millis(50), stream.read(&mut [0; 1000])).await;
    }
    stage.note(format!("{taken} bursts of {} bytes were taken", bytes.len()));
    stage.traffic.turns(2).await;
    stage.finish().await
}

async fn garbage(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    let mut refused = 0;
    for kind in 0..50u8 {
        let bytes = frame(kind.wrapping_mul(5), kind, u32::from(kind % 3), &vec![kind; usize::from(kind) * 7 + 1]);
        let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head());
        refused += usize::from(
            frames::send(stage.process.address, &[bytes, request].concat()).await != frames::Outcome::Status(200),
        );
    }
    stage.note(format!("{refused} connections were closed for it"));
    stage.traffic.turns(2).await;
    stage.finish().await
}

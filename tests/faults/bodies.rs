//! A backend whose answers begin well and do not end so.

use crate::answers::plain;
use crate::heads::{answered, ordeal};
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::script::{Fault, Step};
use crate::stage::Stage;
use crate::tally::{May, STARTED_THERE, on};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("bad_chunk", "gpu1 sends a chunk whose size is no number, in the middle of a stream", |play| {
            streamed(play, vec![Step::Begin(3), Step::Send(b"zz\r\nwhat\r\n".to_vec()), Step::Hang])
        })
        .may(&[STARTED_THERE]),
        scenario("eof", "gpu1 closes in the middle of a stream", |play| {
            streamed(play, vec![Step::Begin(3), Step::Close])
        })
        .may(&[STARTED_THERE]),
        scenario("reset", "gpu1 resets the connection in the middle of a stream", |play| {
            streamed(play, vec![Step::Begin(3), Step::Reset])
        })
        .may(&[STARTED_THERE]),
        scenario("stall", "gpu1 falls silent in the middle of a stream; `idle` is 1 s", stall).may(&[STARTED_THERE]),
        scenario("drip", "gpu1 sends its answers one byte at a time", |play| answered(play, vec![Step::DripAnswer])),
        scenario("short", "gpu1 promises 50 bytes, sends 10 and closes", |play| {
            let ten = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n0123456789".to_vec();
            answered(play, vec![Step::Send(ten), Step::Close])
        })
        .may(&[May::new("answers with a length that gpu1 had started", |seen, _| on(seen, "gpu1"))]),
        scenario("trailing", "gpu1 sends another answer right behind each one, which nobody asked for", |play| {
            answered(play, vec![Step::AnswerAnd(plain(200, b"this is somebody else's answer"))])
        }),
    ]
}

/// gpu1 does this instead of streaming.
async fn streamed(play: Play, steps: Vec<Step>) -> Played {
    ordeal(Stage::start(play, |setup| setup).await, Fault::in_streams(steps)).await.finish().await
}

async fn stall(play: Play) -> Played {
    let stage = Stage::start(play, |setup| setup.pool("timeouts: { idle: 1s }")).await;
    ordeal(stage, Fault::in_streams([Step::Begin(3), Step::Hang])).await.finish().await
}

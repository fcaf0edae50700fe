//! A backend whose answers do not begin as they should.

use std::time::Duration;

use crate::backend::Backend;
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::script::{Fault, Step};
use crate::stage::Stage;

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("slow", "gpu1 sends its head one byte in 20 ms; `first_byte` is 500 ms", slow),
        scenario("half", "gpu1 sends half a head and closes", |play| {
            answered(play, vec![Step::Send(HEAD[..25].to_vec()), Step::Close])
        }),
        scenario("junk", "gpu1 answers with bytes that are no HTTP", |play| {
            answered(play, vec![Step::Send(b"\0\x01\x02 this is no HTTP\r\n\r\n\xff\xfe".to_vec()), Step::Close])
        }),
        scenario("huge", "gpu1 sends a head of 100 MB", huge),
        scenario("interim", "gpu1 sends 500 interim responses (103) before each answer", |play| {
            answered(play, vec![Step::Repeat(INTERIM.to_vec(), 500), Step::Answer])
        }),
        scenario("switching", "gpu1 says 101 Switching Protocols, which nobody asked for", |play| {
            answered(play, vec![Step::Send(SWITCHING.to_vec()), Step::Hang])
        }),
    ]
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// gpu1 does this instead of answering; its probes are answered.
pub(crate) async fn answered(play: Play, steps: Vec<Step>) -> Played {
    ordeal(Stage::start(play, |setup| setup).await, Fault::answers(steps)).await.finish().await
}

pub(crate) async fn ordeal(mut stage: Stage, fault: Fault) -> Stage {
    stage.ordeal(|gpu1| gpu1.fails(fault.clone()), Backend::is_well).await;
    stage
}

async fn slow(play: Play) -> Played {
    let stage = Stage::start(play, |setup| setup.pool("timeouts: { first_byte: 500ms }")).await;
    let drip = Step::Drip(HEAD.repeat(10), Duration::from_millis(20));
    ordeal(stage, Fault::answers([drip])).await.finish().await
}

async fn huge(play: Play) -> Played {
    let stage = Stage::start(play, |setup| setup).await;
    let before = memory(&stage);
    let line = [b"X-Filler: ", &[b'x'; 9_988][..], b"\r\n"].concat();
    let steps = [Step::Send(HEAD[..HEAD.len() - 2].to_vec()), Step::Repeat(line, 10_000), Step::Send(b"\r\n".to_vec())];
    let mut stage = ordeal(stage, Fault::answers(steps)).await;
    let more = memory(&stage).saturating_sub(before);
    stage.must(more < 64, format!("{more} MiB more memory"));
    stage.note(format!("at most {more} MiB more memory"));
    stage.finish().await
}

/// The most memory that the gateway had at any time, in MiB.
fn memory(stage: &Stage) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

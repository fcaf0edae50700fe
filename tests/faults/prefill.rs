//! A backend that fails between the head of a stream and its first token: in the prefill, on the servers of today.

use std::time::Duration;

use crate::answers::chunk;
use crate::asked::ROLE;
use crate::backend::Backend;
use crate::cable::Cable;
use crate::connecting::over_a_cable;
use crate::exchange::Failure;
use crate::heads::ordeal;
use crate::lives::NO_BACKEND;
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::script::{Fault, Probes, Step};
use crate::stage::Stage;
use crate::tally::May;

/// A stream whose head had passed, and that no backend could continue.
const NO_BACKEND_AFTER_HEAD: May =
    May::new("one error event and a broken connection while no backend is there", |_, failure| {
        matches!(failure, Failure::ErrorEvent(_))
    });

pub(crate) fn all() -> Vec<Scenario> {
    let mut all = events();
    all.extend([
        scenario("closed", "gpu1 sends the head of a stream and closes", |play| {
            streamed(play, HELD, vec![SOON, Step::Close])
        }),
        scenario("reset", "gpu1 sends the head of a stream and resets the connection", |play| {
            streamed(play, HELD, vec![SOON, Step::Reset])
        }),
        scenario("silent", "gpu1 sends the head of a stream and nothing else; `first_token` is 500 ms", |play| {
            streamed(play, "timeouts: { first_token: 500ms }", vec![Step::Hang])
        }),
        scenario("freeze", "gpu1 freezes in the prefill of streams, probes included", |play| freeze(play, HELD)),
        scenario("killed", "gpu1 is killed in the prefill of streams and comes back cold", |play| killed(play, HELD)),
        scenario("vanish", "gpu1 loses its network in the prefill of streams: no FIN, no reset", vanish),
        scenario("all", "all backends are killed in the prefill of streams and come back", |play| {
            all_killed(play, HELD)
        })
        .may(&[NO_BACKEND]),
        scenario("passed_reset", "as `reset`, but heads pass at once: `hold_head` is 0s", |play| {
            streamed(play, PASSED, vec![SOON, Step::Reset])
        }),
        scenario("passed_freeze", "as `freeze`, but heads pass at once", |play| freeze(play, PASSED)),
        scenario("passed_killed", "as `killed`, but heads pass at once", |play| killed(play, PASSED)),
        scenario("passed_all", "as `all`, but heads pass at once", |play| all_killed(play, PASSED))
            .may(&[NO_BACKEND, NO_BACKEND_AFTER_HEAD]),
    ]);
    all
}

/// Failures after events that have no output, and events that report a failure.
fn events() -> Vec<Scenario> {
    vec![
        scenario("role", "gpu1 sends the role of a chat and closes", |play| {
            streamed(play, HELD, vec![event(ROLE), SOON, Step::Close])
        }),
        scenario("messages", "gpu1 sends `message_start` and `content_block_start` and resets", |play| {
            streamed(play, HELD, vec![event(MESSAGES), SOON, Step::Reset])
        }),
        scenario("responses", "gpu1 sends `response.created` and `response.in_progress` and closes", |play| {
            streamed(play, HELD, vec![event(RESPONSES), SOON, Step::Close])
        }),
        scenario("pings", "gpu1 sends comments, half a comment, and closes", |play| {
            streamed(play, HELD, vec![event(b": ping\n\n: ping\n\n"), event(b": pi"), SOON, Step::Close])
        }),
        scenario("no_output", "gpu1 ends streams properly without any output", |play| {
            streamed(play, HELD, vec![event(ROLE), event(b"")])
        }),
        scenario("overloaded", "gpu1 sends an error event with code 503 first", |play| {
            streamed(play, HELD, vec![event(ERROR_503), event(b"")])
        }),
        scenario("engine_died", "gpu1 sends a role, then an error event with code 500", |play| {
            streamed(play, HELD, vec![event(ROLE), event(ERROR_500), event(b"")])
        }),
        scenario("failed", "gpu1 sends `response.created`, then `response.failed`", |play| {
            streamed(play, HELD, vec![event(RESPONSES), event(FAILED), event(b"")])
        }),
        scenario("passed_overloaded", "as `overloaded`, but heads pass at once", |play| {
            streamed(play, PASSED, vec![event(b": ping\n\n"), SOON, event(ERROR_503), event(b"")])
        }),
    ]
}

/// Bytes of a stream in a chunk; none are its end.
fn event(bytes: &[u8]) -> Step {
    Step::Send(chunk(bytes))
}

/// gpu1 sends the head of a stream and does this instead of the rest; short requests and probes are answered.
async fn streamed(play: Play, pool: &'static str, steps: Vec<Step>) -> Played {
    let steps: Vec<Step> = [Step::Begin(0)].into_iter().chain(steps).collect();
    ordeal(Stage::start(play, |setup| setup.pool(pool)).await, Fault::in_streams(steps)).await.finish().await
}

async fn freeze(play: Play, pool: &'static str) -> Played {
    let mut stage = Stage::start(play, |setup| setup.health("interval: 100ms, timeout: 500ms").pool(pool)).await;
    stage.fault_begins();
    prefill(&stage, &stage.backends[1..2]).await;
    let frozen = Fault { greeting: vec![Step::Hang], ..Fault::answers([Step::Hang]) };
    stage.gpu1().fails(frozen.probes(Probes::Same));
    let turns = stage.play.times(3);
    stage.traffic.turns(turns).await;
    stage.gpu1().is_well();
    stage.fault_ends();
    stage.until_serving("gpu1").await;
    stage.traffic.turns(turns).await;
    stage.finish().await
}

/// Streams of these backends get their head, and their prompt takes for ever. Waits until each stream that had output has
/// ended, so that all that are left wait for their first token.
async fn prefill(stage: &Stage, backends: &[Backend]) {
    let met = || backends.iter().map(Backend::met).sum::<usize>();
    let before = met();
    backends.iter().for_each(|backend| backend.fails(Fault::in_streams([Step::Begin(0), Step::Hang])));
    stage.until("backends have streams in prefill", |_| met() >= before + IN_PREFILL).await;
    tokio::time::sleep(LONGEST_STREAM).await;
}

async fn killed(play: Play, pool: &'static str) -> Played {
    let mut stage = Stage::start(play, |setup| setup.pool(pool)).await;
    let mut most = 0;
    for _ in 0..stage.play.times(1) {
        let met = stage.gpu1().met();
        stage.fault_begins();
        prefill(&stage, &stage.backends[1..2]).await;
        most = most.max(stage.gpu1().met() - met);
        stage.gpu1().die();
        stage.gpu1().is_well();
        stage.traffic.turns(3).await;
        stage.gpu1().revive();
        stage.fault_ends();
        stage.until_serving("gpu1").await;
        stage.traffic.turns(3).await;
    }
    stage.note(format!("up to {most} streams in prefill at a kill"));
    stage.finish().await
}

async fn vanish(play: Play) -> Played {
    let cable = match Cable::plug() {
        Ok(cable) => cable,
        Err(why) => return Played::skipped(why),
    };
    let mut stage = over_a_cable(play, &cable, "connect: 500ms, idle: 3s").await;
    stage.fault_begins();
    prefill(&stage, &stage.backends[1..2]).await;
    cable.cut();
    let turns = stage.play.times(3);
    stage.traffic.turns(turns).await;
    stage.gpu1().is_well();
    cable.mend();
    stage.fault_ends();
    stage.until_serving("gpu1").await;
    stage.traffic.turns(turns).await;
    stage.finish().await
}

async fn all_killed(play: Play, pool: &'static str) -> Played {
    let names = ["gpu0", "gpu1", "gpu2"];
    let mut stage = Stage::start(play, |setup| setup.pool(pool)).await;
    stage.faulty(&names);
    for _ in 0..stage.play.times(1) {
        stage.fault_begins();
        prefill(&stage, &stage.backends).await;
        stage.backends.iter().for_each(Backend::die);
        stage.backends.iter().for_each(Backend::is_well);
        stage.traffic.turns(3).await;
        stage.backends.iter().for_each(Backend::revive);
        stage.fault_ends();
        stage.traffic.turns(2).await;
        for name in names {
            stage.until_serving(name).await;
        }
        stage.traffic.turns(3).await;
    }
    stage.finish().await
}

/// Heads wait for the first token, as by default.
const HELD: &str = "retry: { hold_head: 10s }";
/// Heads go to the client at once.
const PASSED: &str = "retry: { hold_head: 0s }";
const SOON: Step = Step::Wait(Duration::from_millis(20));
/// Streams in prefill before a backend fails.
const IN_PREFILL: usize = 2;
/// Streams of the traffic take a tenth of a second, more on a busy machine.
const LONGEST_STREAM: Duration = Duration::from_millis(400);
const MESSAGES: &[u8] =
    b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\"usage\":\
    {\"input_tokens\":9,\"output_tokens\":0}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\
    \"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n";
const RESPONSES: &[u8] =
    b"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}\n\n\
    event: response.in_progress\ndata: {\"type\":\"response.in_progress\",\"response\":{\"id\":\"r\"}}\n\n";
const FAILED: &[u8] = b"event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"id\":\"r\",\
    \"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"the engine died\"}}}\n\n";
const ERROR_503: &[u8] = b"data: {\"error\":{\"code\":503,\"message\":\"loading\",\"type\":\"unavailable_error\"}}\n\n";
const ERROR_500: &[u8] =
    b"data: {\"error\":{\"code\":500,\"message\":\"the engine died\",\"type\":\"server_error\"}}\n\n";

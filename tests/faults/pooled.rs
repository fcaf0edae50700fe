//! Connections that a backend has closed by the time they are used again.

use std::time::Duration;

use crate::scenario::{Play, Played, Scenario, scenario};
use crate::script::{Fault, Step};
use crate::stage::Stage;

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario(
            "idle",
            "every backend closes connections that were idle for 6 ms, about when they are used again",
            |play| {
                stale(play, |stage| stage.backends.iter().for_each(|b| b.closes_idle_after(Duration::from_millis(6))))
            },
        ),
        scenario("used", "every backend closes a connection when its second request comes", |play| {
            stale(play, |stage| stage.backends.iter().for_each(|b| b.fails(second([Step::Close]))))
        }),
        scenario("reset", "every backend resets a connection when its second request comes", |play| {
            stale(play, |stage| stage.backends.iter().for_each(|b| b.fails(second([Step::Reset]))))
        }),
    ]
}

fn second(steps: impl Into<Vec<Step>>) -> Fault {
    Fault::answers(steps).after(1)
}

/// Nobody may notice, and no session may move: a connection that had died says nothing of its backend.
async fn stale(play: Play, begin: impl Fn(&Stage)) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    begin(&stage);
    stage.traffic.turns(stage.play.times(10)).await;
    let stale = stage.metric("ingle_retries_total", &[("reason", "stale")]).await;
    let closed = stage.metric("ingle_retries_total", &[("reason", "closed")]).await;
    stage.must(stale > 0.0, "no connection was found dead");
    stage.must(closed == 0.0, format!("{closed} fresh connections were taken for closed"));
    stage.note(format!("{stale} requests went over a fresh connection to the same backend"));
    stage.finish().await
}

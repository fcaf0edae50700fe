//! A backend that answers, but not with 200.

use crate::answers::plain;
use crate::exchange::Failure;
use crate::heads::{answered, ordeal};
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::script::{Fault, Probes, Step};
use crate::stage::Stage;
use crate::tally::{May, on};

/// It is an answer, and whose it is stands on it.
const ITS_OWN_500: May = May::new("gpu1's own 500, which is an answer", |seen, failure| {
    on(seen, "gpu1") && *failure == Failure::Status(500, WORDS.to_owned())
});

/// Each of its answers is tried elsewhere, until that would be more than a fifth of all requests.
const OVER_BUDGET: May = May::new("gpu1's own 429 or 503, where the retry budget is spent", |seen, failure| {
    on(seen, "gpu1") && matches!(failure, Failure::Status(429 | 503, words) if words == WORDS)
});

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("429", "gpu1 answers 429 under load; its probes are well", |play| says(play, 429)).may(&[OVER_BUDGET]),
        scenario("502", "gpu1 answers 502 under load; its probes are well", |play| says(play, 502)),
        scenario("503", "gpu1 answers 503 under load; its probes are well", |play| says(play, 503)).may(&[OVER_BUDGET]),
        scenario("loading", "gpu1 loads its model: 503 to requests and probes", loading),
        scenario("500", "gpu1 answers 500 under load; its probes are well", |play| says(play, 500)).may(&[ITS_OWN_500]),
    ]
}

const WORDS: &str = "this goes through as it is";

fn status(status: u16) -> Step {
    Step::Send(plain(status, WORDS.as_bytes()))
}

async fn says(play: Play, code: u16) -> Played {
    answered(play, vec![status(code)]).await
}

async fn loading(play: Play) -> Played {
    let stage = Stage::start(play, |setup| setup).await;
    ordeal(stage, Fault::answers([status(503)]).probes(Probes::Status(503))).await.finish().await
}

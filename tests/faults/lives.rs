//! Backends that die, freeze, vanish and come back.

use std::time::Duration;

use crate::backend::Backend;
use crate::cable::Cable;
use crate::connecting::over_a_cable;
use crate::exchange::Failure;
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::script::{Fault, Probes, Step};
use crate::stage::Stage;
use crate::tally::{May, STARTED, STARTED_THERE};

/// The gateway's own answer without a backend.
pub(crate) const NO_BACKEND: May =
    May::new("502 and 503 while no backend is there", |_, failure| matches!(failure, Failure::Status(502 | 503, _)));

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("restart", "gpu1 dies in the middle of everything and comes back cold", restart).may(&[STARTED_THERE]),
        scenario("freeze", "gpu1 accepts everything and says nothing, probes included", freeze),
        scenario("vanish", "gpu1 loses its network in the middle of everything: no FIN, no reset", vanish)
            .may(&[STARTED_THERE]),
        scenario("all", "all backends die and come back", all_die).may(&[STARTED, NO_BACKEND]),
        scenario("flap_50ms", "gpu1 dies and comes back every 50 ms", |play| flap(play, 50, 20)).may(&[STARTED_THERE]),
        scenario("flap_300ms", "gpu1 dies and comes back every 300 ms", |play| flap(play, 300, 6))
            .may(&[STARTED_THERE]),
        scenario("flap_1s", "gpu1 dies and comes back every second", |play| flap(play, 1000, 2)).may(&[STARTED_THERE]),
    ]
}

async fn restart(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    for _ in 0..stage.play.times(1) {
        stage.ordeal(Backend::die, Backend::revive).await;
    }
    stage.finish().await
}

async fn freeze(play: Play) -> Played {
    let stage = Stage::start(play, |setup| setup.health("interval: 100ms, timeout: 500ms")).await;
    let fault = Fault { greeting: vec![Step::Hang], ..Fault::answers([Step::Hang]).probes(Probes::Same) };
    crate::heads::ordeal(stage, fault).await.finish().await
}

async fn vanish(play: Play) -> Played {
    let cable = match Cable::plug() {
        Ok(cable) => cable,
        Err(why) => return Played::skipped(why),
    };
    let mut stage = over_a_cable(play, &cable, "connect: 500ms, idle: 3s").await;
    stage.ordeal(|_| cable.cut(), |_| cable.mend()).await;
    stage.finish().await
}

async fn all_die(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&["gpu0", "gpu1", "gpu2"]);
    for _ in 0..stage.play.times(1) {
        stage.fault_begins();
        stage.backends.iter().for_each(Backend::die);
        stage.traffic.turns(5).await;
        stage.backends.iter().for_each(Backend::revive);
        stage.fault_ends();
        stage.traffic.turns(2).await;
        for name in ["gpu0", "gpu1", "gpu2"] {
            stage.until_serving(name).await;
        }
        stage.traffic.turns(3).await;
    }
    stage.finish().await
}

async fn flap(play: Play, every: u64, times: usize) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    let every = Duration::from_millis(every);
    stage.fault_begins();
    for _ in 0..stage.play.times(times) {
        stage.gpu1().die();
        tokio::time::sleep(every).await;
        stage.gpu1().revive();
        tokio::time::sleep(every).await;
    }
    stage.fault_ends();
    stage.traffic.turns(2).await;
    stage.until_serving("gpu1").await;
    stage.traffic.turns(3).await;
    stage.finish().await
}

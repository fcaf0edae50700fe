//! A backend that can't be connected to.

use std::time::Duration;

use crate::backend::Backend;
use crate::cable::Cable;
use crate::certs::{Authority, Files};
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::script::{Fault, Step};
use crate::stage::{Stage, setup};
use crate::tally::STARTED_THERE;

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("refused", "gpu1 refuses connections for a while", refused),
        scenario("blackhole", "packets to gpu1 vanish: nobody answers a SYN", blackhole).may(&[STARTED_THERE]),
        scenario("reset", "gpu1 accepts connections and resets them", |play| greeted(play, vec![Step::Reset])),
        scenario("closed", "gpu1 accepts connections and closes them", |play| greeted(play, vec![Step::Close])),
        scenario("half_open", "gpu1 accepts connections and reads nothing for 200 ms, then resets them", |play| {
            greeted(play, vec![Step::Wait(Duration::from_millis(200)), Step::Reset])
        }),
        scenario("tls_hang", "gpu1, behind https, accepts connections and says nothing in the handshake", tls_hang),
    ]
}

async fn refused(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.ordeal(Backend::refuses, Backend::accepts).await;
    stage.finish().await
}

async fn greeted(play: Play, steps: Vec<Step>) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage
        .ordeal(
            |gpu1| {
                gpu1.fails(Fault::greets(steps.clone()));
                gpu1.closes_idle_after(Duration::ZERO);
            },
            |gpu1| {
                gpu1.is_well();
                gpu1.accepts();
            },
        )
        .await;
    stage.finish().await
}

/// Three backends of which gpu1 is at the other end of a cable.
pub(crate) async fn over_a_cable(play: Play, cable: &Cable, timeouts: &str) -> Stage {
    let gpu1 = cable.in_back(|address| Backend::at("gpu1", address, None));
    let backends = vec![Backend::start("gpu0"), gpu1, Backend::start("gpu2")];
    let setup = setup().pool(&format!("timeouts: {{ {timeouts} }}"));
    let setup = backends
        .iter()
        .fold(setup, |setup, backend| setup.backend(backend.name(), &format!("http://{}", backend.address)));
    Stage::of(play, backends, &setup.yaml()).await
}

async fn blackhole(play: Play) -> Played {
    let cable = match Cable::plug() {
        Ok(cable) => cable,
        Err(why) => return Played::skipped(why),
    };
    let mut stage = over_a_cable(play, &cable, "connect: 300ms, idle: 2s").await;
    // No connection is left over which it could still be reached.
    stage.gpu1().closes_idle_after(Duration::ZERO);
    stage.traffic.turns(1).await;
    stage.ordeal(|_| cable.cut(), |_| cable.mend()).await;
    let connects = stage.metric("ingle_retries_total", &[("reason", "connect")]).await;
    stage.must(connects > 0.0, "no connection ran out of time");
    stage.note(format!("{connects} connections ran out of time"));
    stage.finish().await
}

async fn tls_hang(play: Play) -> Played {
    let (authority, files) = (Authority::new(), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    let tls = authority.issue(&["127.0.0.1"]).server(None);
    let gpu1 = Backend::at("gpu1", ([127, 0, 0, 1], 0).into(), Some(tls));
    let backends = vec![Backend::start("gpu0"), gpu1, Backend::start("gpu2")];
    let setup = setup().pool("timeouts: { connect: 300ms }").pool(&format!("upstream_tls: {{ ca: {ca:?} }}"));
    let setup = backends.iter().enumerate().fold(setup, |setup, (number, backend)| {
        let scheme = if number == 1 { "https" } else { "http" };
        setup.backend(backend.name(), &format!("{scheme}://{}", backend.address))
    });
    let mut stage = Stage::of(play, backends, &setup.yaml()).await;
    stage
        .ordeal(
            |gpu1| {
                gpu1.fails(Fault::greets([Step::Hang]));
                gpu1.closes_idle_after(Duration::ZERO);
            },
            |gpu1| {
                gpu1.is_well();
                gpu1.accepts();
            },
        )
        .await;
    stage.finish().await
}

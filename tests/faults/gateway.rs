//! The gateway's own life: reloads, upgrades, a kill, a stop.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpSocket;

use crate::asked::{Asked, Kind};
use crate::backend::Backend;
use crate::exchange::{Caller, Failure};
use crate::process::{BINARY, Process};
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::stage::{Stage, setup};
use crate::tally::May;
use crate::traffic::Seen;

/// There is no process that could answer.
const NO_GATEWAY: May =
    May::new("what runs when the process is killed, and what comes until it is there again", |_, failure| {
        matches!(failure, Failure::Refused | Failure::Unanswered | Failure::Cut | Failure::CutBeforeOutput)
    });

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("sighup", "the config is reloaded by SIGHUP again and again", sighup),
        scenario("upgrade", "a new process takes over, again and again", upgrade),
        scenario("sigkill", "the gateway is killed and started again", sigkill).may(&[NO_GATEWAY]),
        scenario("sigterm", "the gateway is told to stop while 50 streams of 5 s run", sigterm),
    ]
}

fn yaml(backends: &[Backend], more: &str) -> String {
    let setup = backends.iter().fold(setup().pool(more), |setup, backend| {
        setup.backend(backend.name(), &format!("http://{}", backend.address))
    });
    setup.yaml()
}

async fn sighup(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    let reloads = stage.play.times(10);
    for number in 1..=reloads {
        let budget = if number % 2 == 0 { "budget: 20%" } else { "budget: 30%" };
        std::fs::write(&stage.process.config, yaml(&stage.backends, &format!("retry: {{ {budget} }}"))).unwrap();
        stage.process.signal(Signal::HUP);
        stage.process.until_count("config reloaded: ", number).await;
        stage.traffic.turns(1).await;
    }
    stage.note(format!("{reloads} reloads"));
    stage.finish().await
}

async fn upgrade(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    let upgrades = stage.play.times(3);
    for _ in 0..upgrades {
        stage.process.upgrade().await;
        stage.traffic.turns(2).await;
    }
    stage.note(format!("{upgrades} upgrades"));
    stage.finish().await
}

async fn sigkill(play: Play) -> Played {
    // The port stays ours while nobody listens.
    let port = TcpSocket::new_v4().unwrap();
    port.set_reuseaddr(true).unwrap();
    port.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = port.local_addr().unwrap();
    let mut stage = Stage::start(play, |setup| setup.listeners(&[address])).await;
    stage.faulty(&[]);
    let (kills, mut longest) = (stage.play.times(1), Duration::ZERO);
    for _ in 0..kills {
        stage.fault_begins();
        stage.process.signal(Signal::KILL);
        stage.process.until_ended().await;
        stage.traffic.turns(1).await;
        let (config, begun) = (stage.process.config.clone(), Instant::now());
        let mut command = Command::new(BINARY);
        command.args(["--log-format", "json", "run", "--config"]).arg(&config);
        stage.process = Process::spawn(command, config).await;
        stage.fault_ends();
        longest = longest.max(begun.elapsed());
        stage.traffic.turns(4).await;
    }
    stage.note(format!("killed {kills} times; it listened again within {} ms of its start", longest.as_millis()));
    stage.finish().await
}

async fn sigterm(play: Play) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    // Those who would come again are not what this is about.
    let mut all = stage.traffic.stop().await;
    let address = stage.process.address;
    let streams: Vec<_> = (0..50)
        .map(|number| {
            let (id, session) = (format!("long-{number}"), Some(format!("session-{number}")));
            let asked =
                Asked { id, kind: Kind::Stream { pieces: 50, pause: 100 }, session, padding: 0, chunked: false };
            tokio::spawn(async move {
                let mut caller = match number % 4 {
                    3 => Caller::Http2(None),
                    _ => Caller::Http1 { keeps: true, connection: None },
                };
                let begun = Instant::now();
                let done = caller.ask(address, &asked).await;
                Seen { asked, begun, ended: Instant::now(), done }
            })
        })
        .collect();
    let under_way = async |stage: &Stage| stage.metric("ingle_in_flight_requests", &[]).await;
    while under_way(&stage).await < 50.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.process.signal(Signal::TERM);
    for stream in streams {
        all.push(stream.await.unwrap());
    }
    let last = all.iter().map(|seen| seen.ended).max().unwrap();
    let status = stage.process.until_ended().await;
    let after = last.elapsed();
    stage.must(status.code() == Some(0), format!("it ended with {status}"));
    stage.must(after < Duration::from_secs(1), format!("it ended {after:?} after the last stream"));
    stage.note(format!("it ended {} ms after the last of 50 streams", after.as_millis()));
    stage.played.tally = crate::tally::tally(&all, &[], &[], &[]);
    stage.end()
}

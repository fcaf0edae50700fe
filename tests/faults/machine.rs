//! The machine that the gateway runs on: its descriptors, its clock.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::asked::{Asked, Kind};
use crate::backend::Backend;
use crate::exchange::{Caller, Failure};
use crate::harness::file;
use crate::process::{BINARY, Process};
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::stage::{Stage, setup};
use crate::tally::{BEGUN_THERE, May};
use crate::traffic::Seen;

/// There is no descriptor for it.
const NO_DESCRIPTOR: May = May::new("new requests while no descriptor is free: 503, or not accepted", |_, failure| {
    matches!(failure, Failure::Refused | Failure::Unanswered | Failure::Status(503, _))
});

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("descriptors", "all descriptors of the gateway are taken for 2 s, while 10 streams run", descriptors)
            .may(&[NO_DESCRIPTOR]),
        scenario(
            "clock",
            "the wall clock leaps an hour forth, two back, and a day forth, while gpu1 dies and comes back",
            clock,
        )
        .may(&[BEGUN_THERE]),
    ]
}

/// The usual backends, and the file of a config for them.
fn usual() -> (Vec<Backend>, PathBuf) {
    let backends: Vec<Backend> = ["gpu0", "gpu1", "gpu2"].map(Backend::start).into();
    let setup = backends
        .iter()
        .fold(setup(), |setup, backend| setup.backend(backend.name(), &format!("http://{}", backend.address)));
    (backends, file(&setup.yaml()))
}

async fn descriptors(play: Play) -> Played {
    let (backends, config) = usual();
    let mut command = Command::new("/bin/sh");
    let script = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" --log-format json run --config \"$1\"");
    command.args(["-c", &script, BINARY]).arg(&config);
    let mut stage = Stage::behind(play, backends, Process::spawn(command, config).await).await;
    stage.faulty(&["gpu0", "gpu1", "gpu2"]);
    let address = stage.process.address;
    let streams: Vec<_> = (0..10)
        .map(|number| {
            let kind = Kind::Stream { pieces: 40, pause: 100 };
            let asked = Asked { id: format!("long-{number}"), kind, session: None, padding: 0, chunked: false };
            tokio::spawn(async move {
                let begun = Instant::now();
                let done = Caller::Http1 { keeps: false, connection: None }.ask(address, &asked).await;
                Seen { asked, begun, ended: Instant::now(), done }
            })
        })
        .collect();
    while stage.metric("ingle_in_flight_requests", &[]).await < 10.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.fault_begins();
    let mut idle = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let taken = std::fs::read_dir(format!("/proc/{}/fd", stage.process.pid())).unwrap().count();
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(idle);
    // Who was not accepted meanwhile is accepted now.
    stage.traffic.turns(1).await;
    stage.fault_ends();
    stage.traffic.turns(stage.play.times(3)).await;
    for stream in streams {
        let seen = stream.await.unwrap();
        if let Some(failure) = seen.done.failure {
            stage.problem(format!("a stream that ran before failed: {failure:?}"));
        }
    }
    stage.note(format!("{taken} of {DESCRIPTORS} descriptors were taken; all 10 streams went on"));
    let mut played = stage.finish().await;
    if let Some(time) = played.left_alone {
        played.problems.push(format!("a backend was blamed for it after {time:?}"));
    }
    played
}

/// What the gateway may open.
const DESCRIPTORS: usize = 150;

async fn clock(play: Play) -> Played {
    let Some(library) = faketime() else {
        return Played::skipped("libfaketime is not there (Debian: apt-get install faketime)");
    };
    let (backends, config) = usual();
    let offset = file("+0");
    let mut command = Command::new(BINARY);
    command.args(["--log-format", "json", "run", "--config"]).arg(&config);
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &offset);
    // Only the wall clock can be set; the other one counts seconds, whatever anybody does.
    command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")]);
    let mut stage = Stage::behind(play, backends, Process::spawn(command, config).await).await;
    let mut reloads = 0;
    for leap in ["+3600", "-3600", "+86400"] {
        std::fs::write(&offset, leap).unwrap();
        stage.process.signal(Signal::HUP);
        reloads += 1;
        stage.process.until_count("config reloaded", reloads).await;
        let line = stage.process.log().into_iter().rev().find(|line| line["timestamp"].is_string()).unwrap();
        let at = humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
        let now = std::time::SystemTime::now();
        let away = at.duration_since(now).or_else(|_| now.duration_since(at)).unwrap();
        stage.must(away > Duration::from_secs(3000), format!("the clock did not leap by {leap}, but {away:?}"));
        stage.fault_begins();
        stage.gpu1().die();
        stage.traffic.turns(2).await;
        stage.gpu1().revive();
        stage.fault_ends();
        stage.until_serving("gpu1").await;
        stage.traffic.turns(2).await;
    }
    // What the log says of when is an hour off.
    let mut played = stage.finish().await;
    (played.left_alone, played.back) = (None, None);
    played
}

/// Where Debian puts it.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    files.find(|file| file.exists())
}

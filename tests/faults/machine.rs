//! The machine that the gateway runs on: its descriptors, its memory, its clock.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::asked::{Asked, Kind};
use crate::backend::Backend;
use crate::exchange::{Caller, Failure};
use crate::harness::{PATIENCE, Setup, file};
use crate::process::{BINARY, Process};
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::stage::{Stage, setup};
use crate::tally::{May, STARTED_THERE};

/// There is no descriptor for it, or no memory.
const NO_ROOM: May = May::new("what is new while there is no room: 503, or not accepted", |_, failure| {
    matches!(failure, Failure::Refused | Failure::Unanswered | Failure::Status(503, _))
});

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario(
            "descriptors",
            "400 idle connections take all 150 descriptors for 2 s, while 10 streams run",
            descriptors,
        )
        .may(&[NO_ROOM]),
        scenario("memory", "900 idle connections take all of `limits.memory` for 2 s, while 10 streams run", memory)
            .may(&[NO_ROOM]),
        scenario(
            "clock",
            "the wall clock leaps an hour forth, two back, and a day forth, while gpu1 dies and comes back",
            clock,
        )
        .may(&[STARTED_THERE]),
    ]
}

/// The usual backends, and the file of a config for them.
fn usual(more: impl Fn(Setup) -> Setup) -> (Vec<Backend>, PathBuf) {
    let backends: Vec<Backend> = ["gpu0", "gpu1", "gpu2"].map(Backend::start).into();
    let setup = backends
        .iter()
        .fold(more(setup()), |setup, backend| setup.backend(backend.name(), &format!("http://{}", backend.address)));
    (backends, file(&setup.yaml()))
}

async fn descriptors(play: Play) -> Played {
    let (backends, config) = usual(|setup| setup);
    let mut command = Command::new("/bin/sh");
    let script = "ulimit -n 150; exec \"$0\" --log-format json run --config \"$1\"";
    command.args(["-c", script, BINARY]).arg(&config);
    let stage = Stage::behind(play, backends, Process::spawn(command, config).await).await;
    crowded(stage, 400).await
}

async fn memory(play: Play) -> Played {
    // As it counts, the traffic and the streams take 6 MiB of it at most, and the idle connections and the streams would take
    // 8.6, even when there is no other traffic at the moment.
    crowded(Stage::start(play, |setup| setup.top("limits: { memory: 8704KiB }")).await, 900).await
}

/// `count` idle connections take all the room. What runs goes on, what is new is refused, no backend counts a failure.
async fn crowded(mut stage: Stage, count: usize) -> Played {
    stage.faulty(&["gpu0", "gpu1", "gpu2"]);
    let (address, started) = (stage.process.address, Instant::now());
    let streams: Vec<JoinHandle<Option<Failure>>> = (0..10)
        .map(|number| {
            let kind = Kind::Stream { pieces: 40, pause: 100 };
            let asked = Asked { id: format!("long-{number}"), kind, session: None, padding: 0, chunked: false };
            let mut caller = Caller::Http1 { keeps: false, connection: None };
            tokio::spawn(async move { caller.ask(address, &asked).await.failure })
        })
        .collect();
    while stage.backends.iter().map(Backend::long).sum::<usize>() < 10 {
        assert!(started.elapsed() < PATIENCE, "the streams do not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.fault_begins();
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(idle);
    // Who was not accepted meanwhile is accepted now.
    stage.traffic.turns(1).await;
    stage.fault_ends();
    stage.traffic.turns(stage.play.times(3)).await;
    for stream in streams {
        if let Some(failure) = stream.await.unwrap() {
            stage.problem(format!("a stream that ran before failed: {failure:?}"));
        }
    }
    let refused = stage.metric("ingle_refused_total", &[]).await;
    stage.must(refused > 0.0, "nothing was refused");
    stage.note(format!("{refused} refused; all 10 streams went on"));
    let mut played = stage.finish().await;
    if let Some(time) = played.left_alone {
        played.problems.push(format!("a backend was blamed for it after {time:?}"));
    }
    played
}

async fn clock(play: Play) -> Played {
    let Some(library) = faketime() else {
        return Played::skipped("libfaketime is not there (Debian: apt-get install faketime)");
    };
    let (backends, config) = usual(|setup| setup);
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

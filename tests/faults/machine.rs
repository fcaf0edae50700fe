//! The machine that the gateway runs on: its clock.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::backend::Backend;
use crate::harness::file;
use crate::process::{BINARY, Process};
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::stage::{Stage, setup};
use crate::tally::BEGUN_THERE;

pub(crate) fn all() -> Vec<Scenario> {
    vec![
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

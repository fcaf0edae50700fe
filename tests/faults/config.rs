//! A config file that must not come into force.

use rustix::process::Signal;

use crate::client::Req;
use crate::process::run;
use crate::scenario::{Play, Played, Scenario, scenario};
use crate::stage::Stage;

pub(crate) fn all() -> Vec<Scenario> {
    let changed = |from: &'static str, to: &'static str| move |good: &str| good.replacen(from, to, 1);
    vec![
        scenario("invalid", "the file is no YAML", move |play| refused(play, |good| format!("{good}\n  ]{{"))),
        scenario("zero_weight", "a backend has a weight of 0", move |play| {
            refused(play, changed("server: generic", "server: generic, weight: 0"))
        }),
        scenario("duplicate", "two backends have one name", move |play| {
            refused(play, changed("name: gpu1", "name: gpu0"))
        }),
        scenario("empty", "the pool has no backend", move |play| {
            refused(play, |good: &str| format!("{}    backends: []\n", good.split("    backends:").next().unwrap()))
        }),
    ]
}

/// `check` refuses it, a reload by signal and one by request refuse it, and nothing is different from before.
async fn refused(play: Play, spoil: impl Fn(&str) -> String) -> Played {
    let mut stage = Stage::start(play, |setup| setup).await;
    stage.faulty(&[]);
    let config = stage.process.config.clone();
    let good = std::fs::read_to_string(&config).unwrap();
    let bad = spoil(&good);
    stage.must(bad != good, "the file was not changed");
    let before = known(&stage).await;
    std::fs::write(&config, &bad).unwrap();

    let check = run(&["check", "--config", config.to_str().unwrap()]);
    stage.must(check.status.code() == Some(2), format!("check ended with {}", check.status));
    let text = String::from_utf8_lossy(&check.stderr).into_owned();
    let first = text.lines().next().unwrap_or_default().replace(config.to_str().unwrap(), "FILE");
    stage.note(format!("\"{}\"", first.replace('|', "/")));
    stage.process.signal(Signal::HUP);
    stage.process.until_count("config not reloaded", 1).await;
    let asked = stage.admin(&Req::post("/reload", b"")).await;
    stage.must(asked.status == 422, format!("POST /reload was {}", asked.status));
    stage.traffic.turns(stage.play.times(3)).await;
    let after = known(&stage).await;
    stage.must(after == before, format!("{before} became {after}"));

    // And the good one is taken again.
    std::fs::write(&config, &good).unwrap();
    stage.process.signal(Signal::HUP);
    stage.process.until_count("config reloaded: ", 1).await;
    stage.traffic.turns(2).await;
    stage.finish().await
}

/// Names, states and weights of the backends.
async fn known(stage: &Stage) -> String {
    let all = stage.admin(&Req::get("/backends")).await.json();
    let each = |backend: &serde_json::Value| format!("{} {} {}", backend["name"], backend["state"], backend["weight"]);
    all["backends"].as_array().unwrap().iter().map(each).collect::<Vec<_>>().join(", ")
}

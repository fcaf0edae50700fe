//! Every turn at home, shares by weight, replicas agree.

use std::collections::BTreeMap;

use ingle_sim::load::{LoadConfig, LoadRun, UrlChoice};

use crate::client::Req;
use crate::harness::{Setup, sims};
use crate::scripted::Scripted;

#[tokio::test]
async fn every_turn_of_every_session_is_served_at_home() {
    let sims = sims(3).await;
    let gateway = Setup::new().unbounded().sims(&sims).start().await;
    let load = LoadConfig { sessions: 100, turns: 5, concurrency: 16, ..LoadConfig::new([gateway.url()]) };
    let report = LoadRun::start(load.clone()).unwrap().finish().await;
    assert_eq!((report.succeeded, report.failed(), report.moved_sessions), (500, 0, 0));
    assert_eq!(report.affinity, BTreeMap::from([("home".to_owned(), 500)]));
    assert!(report.later_turns.reuse().unwrap() > 0.9, "{report}");
    for (index, sim) in sims.iter().enumerate() {
        let stats = sim.stats();
        assert!(stats.sessions.values().all(|turns| *turns == 5), "all turns or none");
        let homes = (0..100).filter(|i| gateway.home(&load.session_id(*i)) == sims[index].name()).count();
        assert_eq!(stats.sessions.len(), homes);
    }
    assert_eq!(gateway.metric("ingle_requests_total", &[("affinity", "home"), ("code", "2xx")]).await, 500.0);
    gateway.until_idle().await;
}

#[tokio::test]
async fn two_gateways_agree_whatever_the_order_of_the_file() {
    let sims = sims(4).await;
    let one = Setup::new().unbounded().sims(&sims).start().await;
    let other = Setup::new().unbounded().sims(sims.iter().rev()).start().await;
    let urls = [one.url(), other.url()];
    let load = LoadConfig { sessions: 80, turns: 4, url_choice: UrlChoice::PerRequest, ..LoadConfig::new(urls) };
    let report = LoadRun::start(load).unwrap().finish().await;
    assert_eq!((report.succeeded, report.moved_sessions), (320, 0), "{report}");
    assert!((0..2000).all(|i| one.home(&format!("{i}")) == other.home(&format!("{i}"))));
}

#[tokio::test]
async fn another_seed_is_another_placement() {
    let sims = sims(4).await;
    let one = Setup::new().sims(&sims).start().await;
    let other = Setup::new().sims(&sims).top("affinity: { hash_seed: secret }").start().await;
    let same = (0..1000).filter(|i| one.home(&format!("{i}")) == other.home(&format!("{i}"))).count();
    assert!((200..300).contains(&same), "as often as chance has it: {same}");
}

#[tokio::test]
async fn shares_follow_the_weights() {
    let backends = [Scripted::ok("a").await, Scripted::ok("b").await, Scripted::ok("c").await];
    let mut setup = Setup::new();
    for (backend, (name, weight)) in backends.iter().zip([("a", 1), ("b", 3), ("c", 6)]) {
        setup = setup.backend_with(name, &backend.url(), &format!("weight: {weight}"));
    }
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    for i in 0..2000 {
        assert_eq!(client.send(&Req::get("/v1/models").session(&format!("user-{i}"))).await.affinity(), "home");
    }
    let shares = backends.each_ref().map(|backend| backend.count() as f64 / 20.0);
    println!("shares of 2,000 sessions at weights 1 : 3 : 6, per cent: {shares:?}");
    for (share, expected) in shares.into_iter().zip([10.0, 30.0, 60.0]) {
        assert!((share - expected).abs() < 3.0, "{share} for {expected}");
    }
}

#[tokio::test]
async fn requests_without_a_session_take_turns_exactly() {
    let backends = [Scripted::ok("a").await, Scripted::ok("b").await, Scripted::ok("c").await];
    let mut setup = Setup::new();
    for (backend, (name, weight)) in backends.iter().zip([("a", 1), ("b", 3), ("c", 6)]) {
        setup = setup.backend_with(name, &backend.url(), &format!("weight: {weight}"));
    }
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    for _ in 0..200 {
        assert_eq!(client.send(&Req::get("/v1/models")).await.affinity(), "balanced");
    }
    assert_eq!(backends.each_ref().map(Scripted::count), [20, 60, 120]);
    assert_eq!(gateway.metric("ingle_requests_total", &[("affinity", "balanced")]).await, 200.0);
}

#[tokio::test]
async fn the_next_tier_serves_only_while_nobody_of_the_first_is_available() {
    let sims = sims(3).await;
    let mut setup = Setup::new();
    for (sim, priority) in sims.iter().zip([0, 0, 1]) {
        setup = setup.backend_with(sim.name(), &sim.url(), &format!("priority: {priority}"));
    }
    let gateway = setup.top("affinity: { return_home: immediately }").start().await;
    let reqs: Vec<Req> = (0..30).map(|i| Req::get("/v1/models").session(&format!("s{i}"))).collect();
    for req in &reqs {
        assert_ne!(gateway.send(req).await.backend(), "c");
    }
    sims[0].kill().await;
    for req in &reqs {
        assert_eq!(gateway.send(req).await.backend(), "b");
    }
    sims[1].kill().await;
    for req in &reqs {
        assert_eq!(gateway.send(req).await.outcome(), "c failover 200");
    }
    sims[0].revive().await.unwrap();
    gateway.until_state("a", "healthy").await;
    for req in &reqs {
        assert_eq!(gateway.send(req).await.backend(), "a");
    }
}

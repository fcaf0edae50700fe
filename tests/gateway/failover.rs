//! A killed backend: who moves, who stays, who returns.

use std::collections::BTreeMap;
use std::time::Duration;

use ingle_sim::load::{ErrorKind, LoadConfig, LoadRun};
use ingle_sim::{Fault, Scope, SimConfig, SimServer};

use crate::client::{Answer, Req, header_of};
use crate::harness::{Gateway, PATIENCE, Setup, sims, sims_of, until};
use crate::scripted::{Gate, Scripted, Step, stream_head};

const SESSIONS: usize = 90;

fn turn(session: &str) -> Req {
    Req::chat("and then?", 2, false).session(session)
}

/// One turn of each session; where each was served, and how.
async fn turns(gateway: &Gateway) -> Vec<(String, String)> {
    let mut client = gateway.client().await;
    let mut outcomes = Vec::new();
    for i in 0..SESSIONS {
        let answer: Answer = client.send(&turn(&format!("s{i}"))).await;
        assert_eq!(answer.status, 200, "no request fails: {answer:?}");
        outcomes.push((answer.backend().to_owned(), answer.affinity().to_owned()));
    }
    outcomes
}

fn count(outcomes: &[(String, String)], affinity: &str) -> usize {
    outcomes.iter().filter(|(_, a)| a == affinity).count()
}

#[tokio::test]
async fn only_the_sessions_of_a_killed_backend_move_and_each_moves_once() {
    let sims = sims(3).await;
    let gateway = Setup::new().sims(&sims).start().await;
    let first = turns(&gateway).await;
    assert_eq!(count(&first, "home"), SESSIONS);
    let lost = first.iter().filter(|(backend, _)| backend == "a").count();

    sims[0].kill().await;
    let unnoticed = turns(&gateway).await;
    assert_eq!((count(&unnoticed, "home"), count(&unnoticed, "failover")), (SESSIONS - lost, lost));
    gateway.until_state("a", "unhealthy").await;
    let noticed = turns(&gateway).await;
    assert_eq!((count(&noticed, "home"), count(&noticed, "stayed")), (SESSIONS - lost, lost));

    sims[0].revive().await.unwrap();
    gateway.until_state("a", "healthy").await;
    let back = turns(&gateway).await;
    assert_eq!((count(&back, "home"), count(&back, "stayed")), (SESSIONS - lost, lost), "their caches are elsewhere");

    let mut spread = BTreeMap::<&str, usize>::new();
    for i in 0..SESSIONS {
        let places = [&first[i].0, &unnoticed[i].0, &noticed[i].0, &back[i].0];
        match places[0].as_str() {
            "a" => {
                assert!(places[1] != "a" && places[1] == places[2] && places[2] == places[3], "{i}: {places:?}");
                *spread.entry(places[1]).or_default() += 1;
            }
            home => assert!(places.iter().all(|place| *place == home), "{i} had no reason to move: {places:?}"),
        }
    }
    println!("{lost} sessions of the killed backend went to {spread:?}");
    assert!(spread.values().all(|n| *n * 4 >= lost) && spread.len() == 2, "over both others: {spread:?}");

    let of = |affinity| [("affinity", affinity), ("code", "2xx")];
    assert_eq!(gateway.metric("ingle_requests_total", &of("home")).await, (4 * SESSIONS - 3 * lost) as f64);
    assert_eq!(gateway.metric("ingle_requests_total", &of("failover")).await, lost as f64);
    assert_eq!(gateway.metric("ingle_requests_total", &of("stayed")).await, (2 * lost) as f64);
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[("pool", "main")]).await, lost as f64);
}

#[tokio::test]
async fn under_load_nothing_fails_that_had_not_begun() {
    let slow = |name: &str| SimConfig { time_scale: 0.05, slots: 64, ..SimConfig::llama_server(name) };
    let sims = sims_of(3, slow).await;
    let gateway = Setup::new().sims(&sims).start().await;
    let load = LoadConfig { sessions: 40, turns: 8, concurrency: 24, ..LoadConfig::new([gateway.url()]) };
    let run = LoadRun::start(load).unwrap();
    sims[0].wait_for(PATIENCE, |stats| stats.completed >= 20).await.unwrap();
    let begun = sims[0].stats().in_flight;
    sims[0].kill().await;
    sims[1].wait_for(PATIENCE, |stats| stats.completed >= 60).await.unwrap();
    sims[0].revive().await.unwrap();
    let report = run.finish().await;
    let broken = report.errors.get(&ErrorKind::Broken).copied().unwrap_or(0);
    println!("killed with {begun} requests in flight, of which {broken} had begun to answer: {report}");
    assert_eq!(report.failed(), broken, "only streams that had begun can break: {report}");
    assert!(broken <= begun as u64 + 24, "{report}");
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_session_that_was_silent_for_long_goes_home() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).top("affinity: { idle_ttl: 400ms }").start().await;
    let session = gateway.session_of("a");
    sims[0].kill().await;
    assert_eq!(gateway.send(&turn(&session)).await.outcome(), "b failover 200");
    sims[0].revive().await.unwrap();
    gateway.until_state("a", "healthy").await;
    let snapshot = gateway.inner.snapshot.load_full();
    until("its stay is over", || snapshot.pool.displaced() == 0).await;
    assert_eq!(gateway.send(&turn(&session)).await.outcome(), "a home 200");
}

#[tokio::test]
async fn sessions_return_at_once_if_the_config_says_so() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).top("affinity: { return_home: immediately }").start().await;
    let session = gateway.session_of("a");
    sims[0].kill().await;
    for _ in 0..3 {
        assert_eq!(gateway.send(&turn(&session)).await.outcome(), "b failover 200");
    }
    sims[0].revive().await.unwrap();
    gateway.until_state("a", "healthy").await;
    assert_eq!(gateway.send(&turn(&session)).await.outcome(), "a home 200");
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[]).await, 0.0);
}

#[tokio::test]
async fn a_session_whose_place_dies_too_moves_on() {
    let sims = sims(3).await;
    let gateway = Setup::new().sims(&sims).start().await;
    let session = gateway.session_of("a");
    sims[0].kill().await;
    let second = gateway.send(&turn(&session)).await;
    let place = sims.iter().find(|sim| sim.name() == second.backend()).unwrap();
    place.kill().await;
    let third = gateway.send(&turn(&session)).await;
    assert_eq!((third.status, third.affinity()), (200, "failover"));
    assert!(third.backend() != "a" && third.backend() != second.backend());
    assert_eq!(gateway.send(&turn(&session)).await.outcome(), format!("{} stayed 200", third.backend()));
}

#[tokio::test]
async fn when_nobody_is_healthy_everybody_is_tried_in_the_same_order() {
    let sims = sims(2).await;
    let gateway = Setup::new().sims(&sims).start().await;
    sims.iter().for_each(|sim| sim.inject(Fault::status(500).on(Scope::Health)));
    gateway.until_state("a", "unhealthy").await;
    gateway.until_state("b", "unhealthy").await;
    for home in ["a", "b"] {
        let session = gateway.session_of(home);
        assert_eq!(gateway.send(&turn(&session)).await.outcome(), format!("{home} fail_open 200"));
    }
    assert_eq!(gateway.send(&Req::chat("sidecar", 2, false)).await.affinity(), "fail_open");
    sims[0].kill().await;
    assert_eq!(gateway.send(&turn(&gateway.session_of("a"))).await.outcome(), "b fail_open 200");
    assert_eq!(gateway.metric("ingle_requests_total", &[("affinity", "fail_open")]).await, 4.0);
    sims[1].kill().await;
    let answer = gateway.send(&turn("s")).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_failed"), "both were tried");
}

#[tokio::test]
async fn a_gateway_that_begins_while_a_backend_loads_sends_nobody_there() {
    let loading = SimServer::start(SimConfig { loading: Duration::from_secs(3600), ..SimConfig::llama_server("a") });
    let sims = [loading.await.unwrap(), SimServer::start(SimConfig::llama_server("b").instant()).await.unwrap()];
    let gateway = Setup::new().sims(&sims).start_cold().await;
    gateway.until_state("b", "healthy").await;
    let session = gateway.session_of("a");
    assert_eq!(gateway.send(&turn(&session)).await.outcome(), "b failover 200");
    assert_eq!(gateway.state("a"), "warming");
    sims[0].set_loading(false);
    gateway.until_state("a", "healthy").await;
    assert_eq!(gateway.send(&turn(&session)).await.outcome(), "b stayed 200");
}

/// A gateway that was killed and begins again: sessions whose home was not probed yet do not leave it for those that were.
#[tokio::test]
async fn a_request_that_comes_before_the_first_probes_are_over_goes_home() {
    let sims = sims(2).await;
    sims[0].inject(Fault::Freeze);
    let gateway = Setup::new().sims(&sims).health("interval: 50ms, timeout: 20s").start_cold().await;
    gateway.until_state("b", "healthy").await;
    let (mut client, session) = (gateway.client().await, gateway.session_of("a"));
    let turn = tokio::spawn(async move { client.send(&turn(&session)).await.outcome() });
    until("it has come", || gateway.inner.requests.get() == 1).await;
    sims[0].clear_faults();
    assert_eq!(turn.await.unwrap(), "a home 200");
}

/// Its cache is being built there: the turn does not wait for the first one's end to be counted.
#[tokio::test]
async fn a_turn_beside_a_stream_that_failed_over_stays_with_it() {
    let sims = sims(1).await;
    let b = Scripted::start(|_| vec![Step::Send(stream_head()), Step::Hang]).await;
    let gateway = Setup::new().sims(&sims).backend("b", &b.url()).start().await;
    let session = gateway.session_of("a");
    sims[0].kill().await;
    let (mut first, mut second) = (gateway.client().await, gateway.client().await);
    first.write(&turn(&session).bytes()).await;
    assert_eq!(header_of(&first.head().await, "X-Ingle-Affinity"), Some("failover"));
    sims[0].revive().await.unwrap();
    gateway.until_state("a", "healthy").await;
    second.write(&turn(&session).bytes()).await;
    assert_eq!(header_of(&second.head().await, "X-Ingle-Affinity"), Some("stayed"));
}

/// More requests than the retry budget's floor wait: each moves once, and that multiplies no load.
#[tokio::test]
async fn all_that_wait_on_a_backend_move_when_it_is_killed() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| vec![Step::Wait(held.clone()), Step::Close]).await;
    let b = Scripted::ok("b").await;
    let gateway = Setup::new().unbounded().one_probe().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let mut clients = Vec::new();
    for session in gateway.sessions_of("a", 30) {
        let mut client = gateway.client().await;
        client.write(&turn(&session).bytes()).await;
        clients.push(client);
    }
    until("all wait", || a.count() == 30).await;
    (0..30).for_each(|_| gate.open());
    for client in &mut clients {
        assert_eq!(client.answer().await.outcome(), "b failover 200");
    }
    assert_eq!((a.count(), b.count()), (30, 30));
    assert_eq!(gateway.state("a"), "unhealthy");
}

#[tokio::test]
async fn a_session_on_a_higher_tier_leaves_it_as_soon_as_the_lower_one_serves_again() {
    let sims = sims(2).await;
    let setup = Setup::new().backend_with("a", &sims[0].url(), "server: llama_server, priority: 0");
    let gateway = setup.backend_with("b", &sims[1].url(), "server: llama_server, priority: 1").start().await;
    assert_eq!(gateway.send(&turn("s")).await.outcome(), "a home 200");
    sims[0].kill().await;
    assert_eq!(gateway.send(&turn("s")).await.outcome(), "b failover 200");
    gateway.until_state("a", "unhealthy").await;
    assert_eq!(gateway.send(&turn("s")).await.outcome(), "b stayed 200");
    sims[0].revive().await.unwrap();
    gateway.until_state("a", "healthy").await;
    assert_eq!(gateway.send(&turn("s")).await.outcome(), "a home 200");
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[]).await, 0.0);
}

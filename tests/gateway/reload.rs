//! A new config: what changes, what stays, what is refused.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use serde_json::json;
use tokio::net::TcpStream;

use crate::client::{Answer, Client, Req};
use crate::harness::{Gateway, Setup, nobody, sims, until};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, stream_head};

/// An address of this machine at which nobody listens.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A backend whose streams have a first piece at once, and the second when the gate opens.
async fn gated(gate: &Gate) -> Scripted {
    let gate = gate.clone();
    Scripted::start(move |seen| {
        if seen.head.starts_with("GET /quick ") {
            return vec![Step::Send(answer(200, "", b"quick"))];
        }
        let wait = Step::Wait(gate.clone());
        vec![
            Step::Send(stream_head()),
            Step::Send(chunk(b"one")),
            wait,
            Step::Send([chunk(b"two"), chunk(b"")].concat()),
        ]
    })
    .await
}

async fn stream(gateway: &Gateway, session: &str) -> Client {
    let mut client = gateway.client().await;
    client.write(&Req::post("/v1/chat/completions", b"{}").session(session).bytes()).await;
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), b"one");
    client
}

async fn end_of(client: &mut Client) {
    assert_eq!((client.chunk().await.unwrap(), client.chunk().await.unwrap()), (b"two".to_vec(), Vec::new()));
}

async fn until_no_series_of(gateway: &Gateway, backend: &str) {
    let label = format!("backend=\"{backend}\"");
    let series = async || gateway.admin_get("/metrics").await.text().matches(&label).count();
    for _ in 0..1000 {
        if series().await == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("there are still {} series of {backend}", series().await);
}

fn changes(answer: &Answer) -> serde_json::Value {
    let answer = answer.json();
    assert_eq!(answer["result"], "ok", "{answer}");
    answer["changes"].clone()
}

#[tokio::test]
async fn backends_come_and_go_and_only_their_own_sessions_move() {
    let (a, b, c) = (Scripted::ok("a").await, Scripted::ok("b").await, Scripted::ok("c").await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let sessions: Vec<String> = (0..60).map(|i| format!("s{i}")).collect();
    let homes = |gateway: &Gateway| sessions.iter().map(|session| gateway.home(session)).collect::<Vec<_>>();
    let before = homes(&gateway);

    let answer =
        gateway.reload(&Setup::new().backend("a", &a.url()).backend("b", &b.url()).backend("c", &c.url())).await;
    assert_eq!(answer.status, 200);
    let added = changes(&answer);
    assert_eq!((&added["backends"]["added"], &added["keys"]), (&json!(["c"]), &json!([])));
    assert!((0.31..0.36).contains(&added["sessions"]["share"].as_f64().unwrap()), "a third: {added}");
    gateway.until_state("c", "healthy").await;
    let with_c = homes(&gateway);
    for (session, (before, now)) in sessions.iter().zip(before.iter().zip(&with_c)) {
        assert!(now == before || now == "c", "{session} moved from {before} to {now}");
        let answer = gateway.send(&Req::get("/").session(session)).await;
        assert_eq!(answer.outcome(), format!("{now} home 200"));
    }

    let answer = gateway.reload(&Setup::new().backend("c", &c.url()).backend_with("a", &a.url(), "weight: 3")).await;
    let changed = &changes(&answer)["backends"];
    assert_eq!(changed["removed"], json!(["b"]));
    let weights = json!([{"name": "a", "keys": ["server", "weight"], "weight_before": 1, "weight": 3}]);
    assert_eq!(changed["changed"], weights);
    for (session, (before, now)) in sessions.iter().zip(with_c.iter().zip(homes(&gateway))) {
        assert!(now == *before || before == "b" || now == "a", "{session} moved from {before} to {now}");
    }
    assert_eq!(gateway.metric("ingle_config_reloads_total", &[("result", "ok")]).await, 2.0);
}

#[tokio::test]
async fn a_stream_on_a_removed_backend_ends_well_and_then_nothing_is_left_of_it() {
    let gate = Gate::new();
    let (a, b) = (gated(&gate).await, Scripted::ok("b").await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let session = gateway.session_of("a");
    let mut client = stream(&gateway, &session).await;
    assert_eq!(gateway.reload(&Setup::new().backend("b", &b.url())).await.status, 200);

    assert_eq!(gateway.send(&Req::get("/").session(&session)).await.outcome(), "b home 200");
    let removed = gateway.backend("a").await;
    assert_eq!((&removed["removed"], &removed["in_flight"], &removed["weight"]), (&true.into(), &1.into(), &1.into()));
    assert_eq!(gateway.metric("ingle_in_flight_requests", &[("backend", "a")]).await, 1.0);
    gate.open();
    end_of(&mut client).await;

    until_no_series_of(&gateway, "a").await;
    let all = gateway.admin_get("/backends").await.json();
    assert_eq!(all["backends"].as_array().unwrap().len(), 1, "{all}");
    assert_eq!(gateway.metric("ingle_requests_total", &[("backend", "b")]).await, 1.0, "of others nothing is lost");
    let probes = a.probes();
    until("the other one is probed further", || b.probes() > 20).await;
    assert!(a.probes() <= probes + 1, "it is probed no more");
}

#[tokio::test]
async fn request_waits_for_no_removed_backend() {
    let gate = Gate::new();
    let (a, b) = (gated(&gate).await, Scripted::ok("b").await);
    let bounded = || Setup::new().pool("overload: { max_in_flight: 1, queue_wait: 60s }");
    let gateway = bounded().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let session = gateway.session_of("a");
    let mut before = stream(&gateway, &session).await;
    gate.open();
    end_of(&mut before).await;
    gateway.until_idle().await;
    let mut first = stream(&gateway, &gateway.sessions_of("a", 2)[1]).await;
    let mut second = gateway.client().await;
    second.write(&Req::post("/", b"{}").session(&session).bytes()).await;
    let link = gateway.inner.snapshot.load().links[0].clone();
    until("the second waits for its cache", || link.queue.len() == 1).await;

    assert_eq!(gateway.reload(&bounded().backend("b", &b.url())).await.status, 200);
    assert_eq!(second.answer().await.outcome(), "b home 200");
    assert_eq!(gateway.backend("a").await["removed"], true);
    gate.open();
    end_of(&mut first).await;
    until_no_series_of(&gateway, "a").await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn waiting_requests_go_to_an_added_backend() {
    let gate = Gate::new();
    let (a, b) = (gated(&gate).await, Scripted::ok("b").await);
    let bounded = || Setup::new().pool("overload: { max_in_flight: 1, queue_wait: 60s }").backend("a", &a.url());
    let gateway = bounded().start().await;
    let mut first = stream(&gateway, "first").await;
    let mut clients = Vec::new();
    for n in 0..4 {
        let mut client = gateway.client().await;
        let req = Req::post("/", b"{}");
        let req = if n % 2 == 0 { req.session(&format!("s{n}")) } else { req };
        client.write(&req.bytes()).await;
        clients.push(client);
    }
    let link = gateway.inner.snapshot.load().links[0].clone();
    until("four wait", || link.queue.len() == 4).await;
    assert_eq!(gateway.reload(&bounded().backend("b", &b.url())).await.status, 200);
    for client in &mut clients {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.backend()), (200, "b"));
    }
    gate.open();
    end_of(&mut first).await;
    gateway.until_idle().await;
    assert_eq!(gateway.metric("ingle_queued_requests", &[]).await, 0.0);
}

/// The pool has no backend that can serve, and gets one by a reload.
#[tokio::test]
async fn held_requests_go_to_an_added_backend() {
    let b = Scripted::ok("b").await;
    let held = || Setup::new().pool("hold: { timeout: 60s }").backend("a", &nobody());
    let gateway = held().start_cold().await;
    gateway.until_state("a", "unhealthy").await;
    let mut client = gateway.client().await;
    client.write(&Req::post("/", b"{}").session("s").bytes()).await;
    until("it is held", || gateway.inner.snapshot.load().held.get() == 1).await;
    assert_eq!(gateway.reload(&held().backend("b", &b.url())).await.status, 200);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.backend()), (200, "b"));
}

#[tokio::test]
async fn sessions_that_spilled_stay_where_they_are_and_who_was_seen_is_known() {
    let gate = Gate::new();
    let (a, b) = (gated(&gate).await, gated(&gate).await);
    let bounded = || Setup::new().pool("overload: { max_in_flight: 1 }");
    let gateway = bounded().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let sessions = gateway.sessions_of("a", 2);
    let mut first = stream(&gateway, &sessions[0]).await;
    let mut second = stream(&gateway, &sessions[1]).await;
    assert_eq!(gateway.metric("ingle_spills_total", &[]).await, 1.0);

    let other = || bounded().backend("b", &b.url()).backend("a", &a.url());
    assert_eq!(gateway.reload(&other()).await.status, 200);
    (0..2).for_each(|_| gate.open());
    end_of(&mut first).await;
    end_of(&mut second).await;
    gateway.until_idle().await;
    assert_eq!(gateway.reload(&other().top("limits: { max_connections: 100 }")).await.status, 200);
    let figure = async |name: &str| gateway.metric(name, &[]).await;
    assert_eq!((figure("ingle_known_sessions").await, figure("ingle_displaced_sessions").await), (2.0, 1.0));
    assert_eq!(gateway.backend("b").await["sessions"], 1);
    let outcome = async |id: &str| gateway.send(&Req::get("/quick").session(id)).await.outcome();
    assert_eq!(outcome(&sessions[0]).await, "a home 200");
    assert_eq!(outcome(&sessions[1]).await, "b stayed 200", "its home is free, but its cache is here");
    assert_eq!(figure("ingle_spills_total").await, 1.0, "what was counted stays");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_every_mistake_is_told() {
    let (a, b) = (Scripted::ok("a").await, Scripted::ok("b").await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let homes: Vec<String> = (0..20).map(|i| gateway.home(&format!("s{i}"))).collect();
    std::fs::write(&gateway.file, "listeners: [{ address: nowhere }]\npools: []\nlimit: {}\n").unwrap();
    let answer = gateway.admin_post("/reload").await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_config"));
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    let keys: Vec<&str> = errors.iter().map(|error| error["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["listeners[0].address", "pools", "limit"]);
    assert_eq!((&errors[0]["line"], &errors[0]["column"]), (&1.into(), &24.into()));

    std::fs::remove_file(&gateway.file).unwrap();
    assert_eq!(gateway.admin_post("/reload").await.status, 422, "no file");
    assert_eq!(gateway.metric("ingle_config_reloads_total", &[("result", "error")]).await, 2.0);
    assert_eq!(gateway.metric("ingle_config_reloads_total", &[("result", "ok")]).await, 0.0);
    let now: Vec<String> = (0..20).map(|i| gateway.home(&format!("s{i}"))).collect();
    assert_eq!(now, homes);
    assert_eq!(gateway.send(&Req::get("/")).await.status, 200);
}

#[tokio::test]
async fn health_counts_and_drains_outlive_a_reload() {
    let (sims, down) = (sims(3).await, nobody());
    let with = |setup: Setup| setup.sims(&sims).backend("down", &down).pool("retry: { max_attempts: 2 }");
    let gateway = with(Setup::new()).start_cold().await;
    gateway.until_state("down", "unhealthy").await;
    for name in ["a", "b", "c"] {
        gateway.until_state(name, "healthy").await;
    }
    gateway.admin_post("/backends/c/drain").await;
    let away = gateway.session_of("down");
    for i in 0..12 {
        gateway.send(&Req::chat("hello", 1, false).session(&format!("s{i}"))).await;
    }
    assert_eq!(gateway.send(&Req::chat("hello", 1, false).session(&away)).await.affinity(), "failover");
    let figures = async || {
        let all = gateway.admin_get("/backends").await.json()["backends"].clone();
        let all = all.as_array().unwrap().clone();
        let of = |b: &serde_json::Value| format!("{} {} {} {}", b["name"], b["state"], b["draining"], b["requests"]);
        (all.iter().map(of).collect::<Vec<_>>(), gateway.metric("ingle_displaced_sessions", &[]).await)
    };
    let before = figures().await;
    let transitions = gateway.metric("ingle_health_transitions_total", &[]).await;
    for round in 0..5 {
        let limit = format!("limits: {{ max_connections: {} }}", 100 + round);
        assert_eq!(gateway.reload(&with(Setup::new()).top(&limit)).await.status, 200);
        assert_eq!(figures().await, before);
    }
    assert_eq!(gateway.metric("ingle_health_transitions_total", &[]).await, transitions, "nobody changed state");
    assert!(before.1 > 0.0, "sessions of the one that is down are away, and stay where they are");
    assert_eq!(gateway.send(&Req::chat("hello", 1, false).session(&away)).await.affinity(), "stayed");
}

#[tokio::test]
async fn a_new_backend_gets_nothing_before_its_first_good_probe() {
    let (a, new) = (Scripted::ok("a").await, Scripted::ok("new").await);
    new.set_health(503);
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    assert_eq!(gateway.reload(&Setup::new().backend("a", &a.url()).backend("new", &new.url())).await.status, 200);
    for session in gateway.sessions_of("new", 10) {
        assert_eq!(gateway.send(&Req::get("/").session(&session)).await.outcome(), "a failover 200");
    }
    assert_eq!((gateway.state("new"), new.count()), ("warming", 0));
    assert!(gateway.inner.ready());
    new.set_health(200);
    gateway.until_state("new", "healthy").await;
    let session = gateway.sessions_of("new", 11).remove(10);
    assert_eq!(gateway.send(&Req::get("/").session(&session)).await.outcome(), "new home 200");
}

#[tokio::test]
async fn listeners_come_and_go_and_who_stays_keeps_its_socket() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let (first, second, third) = (free(), free(), free());
    let setup = |listeners: &[SocketAddr]| Setup::new().listeners(listeners).backend("a", &a.url());
    let gateway = setup(&[first, second]).start().await;
    let mut running = stream(&gateway, "s").await;
    let mut kept = Client::connect(second).await;
    assert_eq!(kept.send(&Req::get("/quick")).await.status, 200);

    let answer = gateway.reload(&setup(&[third, first])).await;
    let listeners = &changes(&answer)["listeners"];
    assert_eq!(*listeners, json!({"added": [third.to_string()], "removed": [second.to_string()], "changed": []}));
    for address in [first, third] {
        assert_eq!(Client::connect(address).await.send(&Req::get("/quick")).await.text(), "quick");
    }
    while TcpStream::connect(second).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let last = kept.send(&Req::get("/quick")).await;
    assert_eq!(
        (last.status, last.header("Connection")),
        (200, Some("close")),
        "who came in there is served, once more"
    );
    gate.open();
    end_of(&mut running).await;
}

#[tokio::test]
async fn an_address_that_is_taken_leaves_everything_as_it_was() {
    let a = Scripted::ok("a").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, other) = (free(), free());
    let gateway = Setup::new().listeners(&[own]).backend("a", &a.url()).start().await;
    let setup = Setup::new().listeners(&[other, taken.local_addr().unwrap()]).top("limits: { max_body: 1B }");
    let answer = gateway.reload(&setup.backend("a", &a.url())).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "not_in_force"));
    assert!(answer.text().contains("can't listen on"), "{}", answer.text());
    assert!(TcpStream::connect(other).await.is_err(), "what could be bound is not kept either");
    let answer = gateway.send(&Req::post("/", b"more than a byte")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn limits_are_new_for_new_requests_and_running_ones_keep_theirs() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let setup = || Setup::new().backend("a", &a.url());
    let gateway = setup().start().await;
    let mut running = stream(&gateway, "s").await;
    let quick = setup().pool("timeouts: { total: 200ms, idle: 100ms }").top("limits: { max_body: 5B }");
    let answer = gateway.reload(&quick.top("affinity: { headers: [X-Chat] }").top("access_log: json")).await;
    let mut keys: Vec<String> = serde_json::from_value(changes(&answer)["keys"].clone()).unwrap();
    keys.sort_unstable();
    let expected =
        ["access_log", "affinity.headers", "limits.max_body", "pools[0].timeouts.idle", "pools[0].timeouts.total"];
    assert_eq!(keys, expected);
    assert_eq!(gateway.send(&Req::post("/", b"123456")).await.status, 413);
    let mut cut = gateway.client().await;
    cut.write(&Req::get("/").header("X-Chat", "c").bytes()).await;
    assert!(cut.head().await.contains("X-Ingle-Affinity: home"));
    assert_eq!((cut.chunk().await.unwrap(), cut.chunk().await), (b"one".to_vec(), None), "over its time");
    gate.open();
    end_of(&mut running).await;
}

#[tokio::test]
async fn a_reload_that_moves_too_many_is_refused() {
    let (a, b, c) = (Scripted::ok("a").await, Scripted::ok("b").await, Scripted::ok("c").await);
    let setup = |top: &str| Setup::new().top(top).backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup("reload: { max_moved: 10% }").start().await;
    let three = setup("reload: { max_moved: 100% }").backend("c", &c.url());
    let answer = gateway.reload(&three).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "moves_too_many"), "the limit in force counts");
    assert_eq!(answer.json()["changes"]["backends"]["added"], json!(["c"]), "it says what it would have been");
    assert_eq!(gateway.metric("ingle_config_reloads_total", &[("result", "error")]).await, 1.0);
    assert_eq!(gateway.admin_get("/metrics").await.text().matches("backend=\"c\"").count(), 0);
    for (wrong, status) in [("max_moved=half", 400), ("max_moved=101%25", 400), ("max_moved=20%25", 409)] {
        assert_eq!(gateway.admin_post(&format!("/reload?{wrong}")).await.status, status, "{wrong}");
    }
    assert_eq!(gateway.admin_post("/reload?max_moved=40%25").await.status, 200);
    assert_eq!(gateway.admin_get("/backends").await.json()["backends"].as_array().unwrap().len(), 3);
    let seeded = setup("affinity: { hash_seed: other }").backend("c", &c.url());
    let moved = changes(&gateway.reload(&seeded).await);
    assert_eq!(moved["keys"], json!(["affinity.hash_seed"]));
    assert!(moved["sessions"]["share"].as_f64().unwrap() > 0.6, "two thirds have another home by chance: {moved}");
}

#[tokio::test]
async fn a_watched_file_comes_into_force_by_itself_and_a_bad_one_is_told_once() {
    let (a, b) = (Scripted::ok("a").await, Scripted::ok("b").await);
    let setup = || Setup::new().top("reload: { watch: true }").backend("a", &a.url());
    let gateway = setup().start().await;
    let results = || (gateway.inner.metrics.reloads.ok.get(), gateway.inner.metrics.reloads.error.get());
    replace(&gateway.file, &setup().backend("b", &b.url()).yaml());
    until("it is in force", || results() == (1, 0)).await;
    assert_eq!(gateway.home(&gateway.session_of("b")), "b");
    replace(&gateway.file, "listeners: [");
    until("it was seen to be bad", || results() == (1, 1)).await;
    replace(&gateway.file, &setup().yaml());
    until("the good one is in force", || results().0 == 2).await;
    assert_eq!(results(), (2, 1), "the bad one was told once");
}

/// As editors and Kubernetes do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

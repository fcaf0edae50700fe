//! Bounded load over sockets: who waits for room, who spills, who is refused.

use ingle_sim::SimServer;

use crate::client::{Answer, Client, Req};
use crate::harness::{Gateway, Setup, until};
use crate::scripted::{Gate, Scripted, Step, answer};

/// Answers each request when the test opens the gate once more.
async fn gated(name: &'static str) -> (Scripted, Gate) {
    let gate = Gate::new();
    let wait = gate.clone();
    let backend =
        Scripted::start(move |_| vec![Step::Wait(wait.clone()), Step::Send(answer(200, "", name.as_bytes()))]);
    (backend.await, gate)
}

/// Two gated backends behind a pool with these limits.
struct Pair {
    a: Scripted,
    b: Scripted,
    open_a: Gate,
    open_b: Gate,
    gateway: Gateway,
}

async fn pair(overload: &str) -> Pair {
    let ((a, open_a), (b, open_b)) = (gated("a").await, gated("b").await);
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url());
    let gateway = setup.pool(&format!("overload: {{ {overload} }}")).start().await;
    Pair { a, b, open_a, open_b, gateway }
}

impl Pair {
    /// Sends a chat of a session whose home is `a`; the answer is read later.
    async fn begin(&self, session: &str) -> Client {
        let mut client = self.gateway.client().await;
        client.write(&Req::post("/v1/chat/completions", b"{}").session(session).bytes()).await;
        client
    }

    /// Sessions whose home is `a`, and whose cache is there.
    async fn known(&self, count: usize) -> Vec<String> {
        let ids = self.gateway.sessions_of("a", count);
        for id in &ids {
            self.open_a.open();
            let answer = self.gateway.send(&Req::post("/v1/chat/completions", b"{}").session(id)).await;
            assert_eq!(answer.outcome(), "a home 200");
        }
        self.gateway.until_idle().await;
        ids
    }

    async fn queued(&self, count: usize) {
        let snapshot = self.gateway.inner.snapshot.load_full();
        let member = snapshot.pool.position("a").unwrap();
        until("so many wait", || snapshot.links[member].queue.len() == count).await;
    }

    async fn exits(&self, result: &str) -> f64 {
        self.gateway.metric("ingle_queue_exits_total", &[("result", result)]).await
    }

    /// Everybody has left, and nothing is counted that is not there.
    async fn is_over(&self) {
        self.gateway.until_idle().await;
        assert_eq!(self.gateway.metric("ingle_queued_requests", &[]).await, 0.0);
    }
}

#[tokio::test]
async fn a_full_home_spills_to_the_next_and_the_session_stays_there() {
    let pair = pair("max_in_flight: 1").await;
    let ids = pair.gateway.sessions_of("a", 2);
    let mut first = pair.begin(&ids[0]).await;
    until("the first is at home", || pair.a.count() == 1).await;
    let mut second = pair.begin(&ids[1]).await;
    until("the second is elsewhere", || pair.b.count() == 1).await;
    pair.open_a.open();
    pair.open_b.open();
    assert_eq!(first.answer().await.outcome(), "a home 200");
    assert_eq!(second.answer().await.outcome(), "b spilled 200");
    assert_eq!(pair.gateway.metric("ingle_spills_total", &[("reason", "max_in_flight")]).await, 1.0);
    // Its cache is there now, though its home is free again.
    pair.gateway.until_idle().await;
    pair.open_b.open();
    let next = pair.gateway.send(&Req::post("/v1/chat/completions", b"{}").session(&ids[1])).await;
    assert_eq!(next.outcome(), "b stayed 200");
    assert_eq!(pair.gateway.metric("ingle_displaced_sessions", &[]).await, 1.0);
    pair.is_over().await;
}

#[tokio::test]
async fn load_is_bounded_by_default_from_the_floor_on() {
    let ((a, open_a), (b, open_b)) = (gated("a").await, gated("b").await);
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let mut clients = Vec::new();
    for (n, id) in (1..).zip(gateway.sessions_of("a", 5)) {
        let mut client = gateway.client().await;
        client.write(&Req::post("/", b"{}").session(&id).bytes()).await;
        clients.push(client);
        until("it has arrived", || a.count() + b.count() == n).await;
    }
    assert_eq!((a.count(), b.count()), (4, 1), "the floor is 4");
    (0..4).for_each(|_| open_a.open());
    open_b.open();
    let mut outcomes = Vec::new();
    for client in &mut clients {
        outcomes.push(client.answer().await.outcome());
    }
    assert_eq!(outcomes, ["a home 200", "a home 200", "a home 200", "a home 200", "b spilled 200"]);
    assert_eq!(gateway.metric("ingle_spills_total", &[("reason", "balance")]).await, 1.0);
}

#[tokio::test]
async fn who_waits_is_served_at_home_first_come_first_served() {
    let pair = pair("max_in_flight: 1, queue_wait: 60s").await;
    let ids = pair.known(3).await;
    let mut clients = vec![pair.begin(&ids[0]).await];
    until("the first is at home", || pair.a.count() == 4).await;
    for (waiting, id) in (1..).zip(&ids[1..]) {
        clients.push(pair.begin(id).await);
        pair.queued(waiting).await;
    }
    assert_eq!(pair.gateway.metric("ingle_queued_requests", &[("backend", "a")]).await, 2.0);
    for (served, client) in (4..).zip(&mut clients) {
        until("the next one has its turn", || pair.a.count() == served).await;
        pair.open_a.open();
        assert_eq!(client.answer().await.outcome(), "a home 200");
    }
    let order: Vec<String> = pair.a.seen().iter().map(|seen| seen.header("X-Session-Id").unwrap().to_owned()).collect();
    assert_eq!(order[3..], ids, "first come, first served");
    assert_eq!((pair.b.count(), pair.exits("served").await), (0, 2.0));
    pair.is_over().await;
}

#[tokio::test]
async fn who_has_waited_for_long_enough_spills() {
    let pair = pair("max_in_flight: 1, queue_wait: 50ms").await;
    let ids = pair.known(2).await;
    let mut first = pair.begin(&ids[0]).await;
    until("the first is at home", || pair.a.count() == 3).await;
    let mut second = pair.begin(&ids[1]).await;
    until("the second went on", || pair.b.count() == 1).await;
    pair.open_b.open();
    assert_eq!(second.answer().await.outcome(), "b spilled 200");
    assert_eq!(pair.exits("spilled").await, 1.0);
    pair.open_a.open();
    assert_eq!(first.answer().await.outcome(), "a home 200");
    pair.is_over().await;
}

#[tokio::test]
async fn a_client_that_leaves_the_line_leaves_no_trace() {
    let pair = pair("max_in_flight: 1, queue_wait: 60s").await;
    let ids = pair.known(3).await;
    let mut first = pair.begin(&ids[0]).await;
    until("the first is at home", || pair.a.count() == 4).await;
    let second = pair.begin(&ids[1]).await;
    pair.queued(1).await;
    let mut third = pair.begin(&ids[2]).await;
    pair.queued(2).await;
    drop(second);
    pair.queued(1).await;
    pair.open_a.open();
    assert_eq!(first.answer().await.outcome(), "a home 200");
    until("the third has its turn", || pair.a.count() == 5).await;
    pair.open_a.open();
    assert_eq!(third.answer().await.outcome(), "a home 200");
    pair.is_over().await;
    assert_eq!((pair.exits("left").await, pair.exits("served").await), (1.0, 1.0));
    assert_eq!(pair.gateway.metric("ingle_requests_total", &[("code", "499")]).await, 1.0);
    assert_eq!(pair.b.count(), 0);
    assert_eq!(pair.gateway.state("a"), "healthy", "a client that left is nobody's fault");
}

#[tokio::test]
async fn who_waits_for_a_backend_that_dies_goes_elsewhere_at_once() {
    let sims = crate::harness::sims(1).await;
    let dying: &SimServer = &sims[0];
    let (b, open_b) = gated("b").await;
    let setup = Setup::new().backend("a", &dying.url()).backend("b", &b.url());
    let gateway = setup.pool("overload: { max_in_flight: 1, queue_wait: 60s }").start().await;
    let known = Req::post("/v1/chat/completions", br#"{"messages":[]}"#).session(&gateway.session_of("a"));
    assert_eq!(gateway.send(&known).await.outcome(), "a home 200");
    let snapshot = gateway.inner.snapshot.load_full();
    let member = snapshot.pool.position("a").unwrap();
    // Its only place is taken, by a request of the test's own that never ends.
    let taken = snapshot.pool.members()[member].backend.enter();
    let mut waiting = gateway.client().await;
    waiting.write(&known.bytes()).await;
    until("it waits", || snapshot.links[member].queue.len() == 1).await;
    dying.kill().await;
    until("it is elsewhere", || b.count() == 1).await;
    open_b.open();
    assert_eq!(waiting.answer().await.outcome(), "b failover 200");
    drop(taken);
    gateway.until_idle().await;
}

#[tokio::test]
async fn when_everybody_is_full_it_says_so_and_fails_nobody_open() {
    let pair = pair("max_in_flight: 1").await;
    let ids = pair.gateway.sessions_of("a", 3);
    let mut clients = [pair.begin(&ids[0]).await, pair.begin(&ids[1]).await];
    until("both are full", || pair.a.count() == 1 && pair.b.count() == 1).await;
    let refused = |answer: &Answer| {
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
        assert!(answer.header("Retry-After").is_some());
    };
    refused(&pair.gateway.send(&Req::post("/", b"{}").session(&ids[2])).await);
    refused(&pair.gateway.send(&Req::post("/", b"{}")).await);
    pair.open_a.open();
    pair.open_b.open();
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!((pair.a.count(), pair.b.count()), (1, 1));
    pair.is_over().await;
}

#[tokio::test]
async fn no_more_wait_than_may() {
    let pair = pair("max_in_flight: 1, queue_wait: 60s, max_waiting: 1").await;
    let ids = pair.known(3).await;
    let mut first = pair.begin(&ids[0]).await;
    until("the first is at home", || pair.a.count() == 4).await;
    let mut second = pair.begin(&ids[1]).await;
    pair.queued(1).await;
    let mut third = pair.begin(&ids[2]).await;
    until("the third is elsewhere", || pair.b.count() == 1).await;
    pair.open_b.open();
    assert_eq!(third.answer().await.outcome(), "b spilled 200");
    pair.open_a.open();
    assert_eq!(first.answer().await.outcome(), "a home 200");
    pair.open_a.open();
    assert_eq!(second.answer().await.outcome(), "a home 200");
    pair.is_over().await;
}

/// A first turn has no cache to wait for.
#[tokio::test]
async fn new_session_waits_for_no_home_beside_room() {
    for policy in ["consistent_hash", "least_ttft"] {
        let ((a, open_a), (b, open_b)) = (gated("a").await, gated("b").await);
        let setup = Setup::new().top(&format!("affinity: {{ policy: {policy} }}"));
        let setup = setup.pool("overload: { max_in_flight: 1, queue_wait: 60s }").backend("a", &a.url());
        let gateway = setup.backend("b", &b.url()).start().await;
        let ids = gateway.sessions_of("a", 2);
        let mut first = gateway.client().await;
        first.write(&Req::post("/", b"{}").session(&ids[0]).bytes()).await;
        until("the first is at home", || a.count() == 1).await;
        let explained = gateway.admin_get(&format!("/explain?session={}", ids[1])).await.json();
        assert_eq!((&explained["would_go_to"], &explained["would_wait_at"]), (&"b".into(), &serde_json::Value::Null));
        open_b.open();
        assert_eq!(gateway.send(&Req::post("/", b"{}").session(&ids[1])).await.outcome(), "b spilled 200", "{policy}");
        open_a.open();
        first.answer().await;
    }
}

#[tokio::test]
async fn explain_says_where_a_session_waits() {
    let pair = pair("max_in_flight: 1, queue_wait: 60s").await;
    let ids = pair.known(2).await;
    let mut first = pair.begin(&ids[0]).await;
    until("the first is at home", || pair.a.count() == 3).await;
    let explained = pair.gateway.admin_get(&format!("/explain?session={}", ids[1])).await.json();
    assert_eq!((&explained["would_go_to"], &explained["would_wait_at"]), (&serde_json::Value::Null, &"a".into()));
    assert_eq!((&explained["reason"], &explained["refused"]), (&"max_in_flight".into(), &serde_json::Value::Null));
    let mut second = pair.begin(&ids[1]).await;
    pair.queued(1).await;
    pair.open_a.open();
    pair.open_a.open();
    assert_eq!(
        (first.answer().await.outcome(), second.answer().await.outcome()),
        ("a home 200".into(), "a home 200".into())
    );
}

#[tokio::test]
async fn all_wait_while_all_are_full() {
    let pair = pair("max_in_flight: 1, queue_wait: 60s").await;
    let ids = pair.gateway.sessions_of("a", 3);
    let mut clients = vec![pair.begin(&ids[0]).await, pair.begin(&ids[1]).await];
    until("both are full", || pair.a.count() == 1 && pair.b.count() == 1).await;
    let mut session = pair.begin(&ids[2]).await;
    pair.queued(1).await;
    let mut keyless = pair.gateway.client().await;
    keyless.write(&Req::post("/v1/chat/completions", b"{}").bytes()).await;
    until("both wait", || {
        let snapshot = pair.gateway.inner.snapshot.load();
        snapshot.links.iter().map(|link| link.queue.len()).sum::<usize>() == 2
    })
    .await;
    // One backend serves all three: whoever waits elsewhere comes here.
    for served in 2..=3 {
        pair.open_b.open();
        until("the next has its turn", || pair.b.count() == served).await;
    }
    pair.open_b.open();
    assert_eq!(session.answer().await.status, 200);
    assert_eq!(keyless.answer().await.status, 200);
    pair.open_a.open();
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    pair.is_over().await;
}

/// A request that waits for its cache holds no other up that could go elsewhere.
#[tokio::test]
async fn room_elsewhere_is_used_past_one_that_waits() {
    let pair = pair("max_in_flight: 1, queue_wait: 60s").await;
    let ids = pair.known(2).await;
    let news = &pair.gateway.sessions_of("a", 4)[2..];
    let mut clients = [pair.begin(&ids[0]).await, pair.begin(&news[0]).await];
    until("both are full", || pair.a.count() == 3 && pair.b.count() == 1).await;
    let mut loyal = pair.begin(&ids[1]).await;
    pair.queued(1).await;
    let mut other = pair.begin(&news[1]).await;
    pair.queued(2).await;
    pair.open_b.open();
    pair.open_b.open();
    assert_eq!(other.answer().await.outcome(), "b spilled 200");
    assert_eq!(clients[1].answer().await.status, 200);
    pair.open_a.open();
    pair.open_a.open();
    assert_eq!((clients[0].answer().await.status, loyal.answer().await.outcome()), (200, "a home 200".into()));
    pair.is_over().await;
}

//! Backends behind https: who is believed and who is not.

use crate::certs::{Authority, Files, Front};
use crate::client::Req;
use crate::harness::{Setup, noise, until};
use crate::scripted::{Scripted, Step, answer, chunk, stream_head};

#[tokio::test]
async fn a_backend_is_believed_whose_authority_and_name_are_right() {
    let (authority, files) = (Authority::new(), Files::new());
    let a = Scripted::start(|seen| vec![Step::Send(answer(200, "", &seen.body))]).await;
    let ca = files.write("ca.pem", &authority.pem());
    for (names, host, more) in [
        (&["127.0.0.1"][..], "127.0.0.1", ""),
        (&["localhost"], "localhost", ""),
        (&["gpus.internal"], "127.0.0.1", ", server_name: gpus.internal"),
    ] {
        let front = Front::start(authority.issue(names).server(None), a.address).await;
        let setup = Setup::new().backend("a", &front.url(host)).pool(&format!("upstream_tls: {{ ca: {ca:?}{more} }}"));
        let gateway = setup.start().await;
        let body = noise(200_000);
        for _ in 0..3 {
            let answer = gateway.send(&Req::post("/", &body)).await;
            assert_eq!(answer.outcome(), "a balanced 200");
            assert!(answer.body == body);
        }
        assert_eq!(a.seen().last().unwrap().header("Host"), Some("llm.test"));
        assert!(a.seen().last().unwrap().reused > 0, "connections over TLS are kept, too");
        gateway.until_idle().await;
    }
}

#[tokio::test]
async fn a_backend_with_a_wrong_name_or_authority_is_refused() {
    let (authority, stranger, files) = (Authority::new(), Authority::new(), Files::new());
    let a = Scripted::ok("a").await;
    let ca = files.write("ca.pem", &authority.pem());
    for pair in [authority.issue(&["other.test"]), stranger.issue(&["127.0.0.1"])] {
        let front = Front::start(pair.server(None), a.address).await;
        let setup = Setup::new().backend("a", &front.url("127.0.0.1")).pool(&format!("upstream_tls: {{ ca: {ca:?} }}"));
        let gateway = setup.health("interval: 20ms, type: tcp").start_cold().await;
        gateway.until_state("a", "unhealthy").await;
        let error = gateway.backend("a").await["last_error"].to_string();
        assert!(
            error.contains("the TLS handshake failed: its certificate is ") && error.contains("upstream_tls."),
            "{error}"
        );
        let answer = gateway.send(&Req::get("/")).await;
        assert_eq!((answer.status, answer.code()), (502, "backend_failed".to_owned()));
        gateway.until_idle().await;
    }
    assert_eq!((a.count(), a.probes()), (0, 0), "not a byte");
}

/// In the retry table a TLS failure is a connect failure: nothing was sent, so another backend may have the request.
#[tokio::test]
async fn a_tls_failure_is_tried_on_the_next_backend() {
    let (authority, files) = (Authority::new(), Files::new());
    let (a, b) = (Scripted::ok("a").await, Scripted::ok("b").await);
    let ca = files.write("ca.pem", &authority.pem());
    let good = authority.issue(&["127.0.0.1"]);
    let fronts = [Front::start(good.server(None), a.address).await, Front::start(good.server(None), b.address).await];
    let setup = Setup::new().pool(&format!("upstream_tls: {{ ca: {ca:?} }}")).one_probe();
    let setup = setup.backend("a", &fronts[0].url("127.0.0.1")).backend("b", &fronts[1].url("127.0.0.1"));
    let gateway = setup.start().await;
    let session = gateway.session_of("a");
    fronts[0].become_another(authority.issue(&["other.test"]).server(None));
    let body = noise(300_000);
    assert_eq!(gateway.send(&Req::post("/", &body).session(&session)).await.outcome(), "b failover 200");
    assert_eq!(gateway.metric("ingle_retries_total", &[("reason", "connect")]).await, 1.0);
    assert_eq!((a.count(), b.count()), (0, 1));
    assert!(b.seen()[0].body == body);
    gateway.until_idle().await;
}

#[tokio::test]
async fn a_backend_that_asks_is_shown_the_gateways_certificate() {
    let (authority, gateways, files) = (Authority::new(), Authority::new(), Files::new());
    let a = Scripted::ok("a").await;
    let front = Front::start(authority.issue(&["127.0.0.1"]).server(Some(&gateways)), a.address).await;
    let ca = files.write("ca.pem", &authority.pem());
    let setup = || Setup::new().backend("a", &front.url("127.0.0.1"));
    let own = files.pair("own", &gateways.issue(&["ingle"]));
    let gateway = setup().pool(&format!("upstream_tls: {{ ca: {ca:?}, {own} }}")).start().await;
    assert_eq!(gateway.send(&Req::get("/")).await.outcome(), "a balanced 200");
    assert!(front.met() > 0);

    // A new one is used as soon as it is there; a stranger's is refused.
    files.pair("own", &Authority::new().issue(&["ingle"]));
    gateway.inner.certificates.refresh();
    gateway.until_state("a", "unhealthy").await;
    files.pair("own", &gateways.issue(&["ingle"]));
    gateway.inner.certificates.refresh();
    until("it is believed again", || ["healthy", "probation"].contains(&gateway.state("a"))).await;
    assert_eq!(gateway.send(&Req::get("/")).await.outcome(), "a balanced 200");
}

#[tokio::test]
async fn without_verification_anybody_is_believed() {
    let a = Scripted::ok("a").await;
    let front = Front::start(Authority::new().issue(&["whoever"]).server(None), a.address).await;
    let setup = Setup::new().backend("a", &front.url("127.0.0.1")).pool("upstream_tls: { verify: false }");
    let gateway = setup.start().await;
    assert_eq!(gateway.inner.snapshot.load().config.warnings.len(), 1);
    assert_eq!(gateway.send(&Req::get("/")).await.outcome(), "a balanced 200");
}

#[tokio::test]
async fn streams_upgrades_and_departures_are_as_without_tls() {
    let (authority, files) = (Authority::new(), Files::new());
    let bytes = noise(300_000);
    let whole = bytes.clone();
    let a = Scripted::start(move |seen| match seen.head.split(' ').nth(1).unwrap() {
        "/stream" => {
            let chunks = whole.chunks(7_001).map(|piece| Step::Send(chunk(piece)));
            [Step::Send(stream_head())].into_iter().chain(chunks).chain([Step::Send(chunk(b""))]).collect()
        }
        "/ws" => vec![
            Step::Send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec()),
            Step::Echo,
        ],
        _ => vec![Step::Send(stream_head()), Step::Send(chunk(b"data: 1\n\n")), Step::Hang],
    })
    .await;
    let front = Front::start(authority.issue(&["127.0.0.1"]).server(None), a.address).await;
    let ca = files.write("ca.pem", &authority.pem());
    let setup = Setup::new().backend("a", &front.url("127.0.0.1")).pool(&format!("upstream_tls: {{ ca: {ca:?} }}"));
    // The idle limit cuts the connection under the TLS session.
    let gateway = setup.pool("timeouts: { idle: 1s }").start().await;
    let mut client = gateway.client().await;
    let answer = client.send(&Req::get("/stream")).await;
    assert!(answer.whole && answer.body == bytes);

    let upgrade = Req::get("/ws").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let upgrade = upgrade.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(client.send(&upgrade).await.status, 101);
    client.write(b"hello").await;
    client.until("hello").await;
    drop(client);

    let mut client = gateway.client().await;
    client.write(&Req::get("/silent").bytes()).await;
    client.until("data: 1").await;
    drop(client);
    until("the backend sees that the client is gone", || a.left().len() == 1).await;

    let answer = gateway.send(&Req::get("/silent")).await;
    assert_eq!((answer.status, answer.whole, answer.text()), (200, false, "data: 1\n\n".to_owned()));
    until("the backend sees that it was cut", || a.left().len() == 2).await;
    gateway.until_idle().await;
}

#[tokio::test]
async fn signals_are_asked_for_over_tls_too() {
    let (authority, files) = (Authority::new(), Files::new());
    let a = Scripted::start(|seen| {
        let metrics = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 0\n";
        vec![Step::Send(answer(if seen.head.contains(" /metrics ") { 200 } else { 404 }, "", metrics.as_bytes()))]
    });
    let (a, ca) = (a.await, files.write("ca.pem", &authority.pem()));
    let front = Front::start(authority.issue(&["127.0.0.1"]).server(None), a.address).await;
    let setup = Setup::new().backend("a", &front.url("127.0.0.1")).pool("signals: { interval: 100ms }");
    let gateway = setup.pool(&format!("upstream_tls: {{ ca: {ca:?} }}")).start().await;
    let backend = std::sync::Arc::clone(&gateway.inner.snapshot.load().links[0].backend);
    until("its load is known", || backend.signals().is_some_and(|signals| signals.running == Some(3))).await;
}

//! Clients over TLS: certificates by name, client certificates, ALPN; certificates that change under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncWriteExt;

use crate::certs::{Authority, Caller, Files, shown};
use crate::client::{Client, Req};
use crate::h2c::H2c;
use crate::harness::{Setup, noise, until};
use crate::scripted::{Scripted, Step, answer, chunk, stream_head};

const WINDOW: u32 = 65_535;

#[tokio::test]
async fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() {
    let (authority, files) = (Authority::new(), Files::new());
    let pairs =
        [&["first.test", "127.0.0.1"][..], &["*.gpu.test"], &["a.gpu.test"]].map(|names| authority.issue(names));
    let more = [files.pair("two", &pairs[1]), files.pair("three", &pairs[2])];
    let keys = format!("{}, certificates: [{{ {} }}, {{ {} }}]", files.pair("one", &pairs[0]), more[0], more[1]);
    let a = Scripted::ok("a").await;
    let gateway = Setup::new().tls(&keys).backend("a", &a.url()).start().await;
    for (name, expected) in [("first.test", 0), ("127.0.0.1", 0), ("b.gpu.test", 1), ("a.gpu.test", 2)] {
        for version in [&TLS12, &TLS13] {
            let caller = Caller::with(&authority, name, None, &[version]);
            let mut client = caller.client(gateway.address).await;
            assert_eq!(shown(&client.stream), pairs[expected].der(), "{name}");
            assert_eq!(client.send(&Req::get("/")).await.outcome(), "a balanced 200");
        }
    }
    // Nobody has this name: the first one is shown, and it is the client who says no.
    assert!(Caller::new(&authority, "other.test").connect(gateway.address).await.is_err());
    assert!(a.seen().iter().all(|seen| seen.header("X-Forwarded-Proto") == Some("https")));
    assert!(a.seen().iter().all(|seen| seen.header("X-Forwarded-For") == Some("127.0.0.1")));
    let metric = "ingle_certificate_expiry_timestamp_seconds";
    assert!(gateway.metric(metric, &[("certificate", &files.path("two.pem"))]).await > 4e9, "far away");
    gateway.until_idle().await;
}

#[tokio::test]
async fn with_client_ca_nobody_passes_without_a_certificate_of_it() {
    let (authority, clients, files) = (Authority::new(), Authority::new(), Files::new());
    let ca = files.write("clients.pem", &clients.pem());
    let keys = format!("{}, client_ca: {ca:?}", files.pair("own", &authority.issue(&["llm.test"])));
    let a = Scripted::ok("a").await;
    let gateway = Setup::new().tls(&keys).backend("a", &a.url()).start().await;
    let (good, foreign) = (clients.issue(&["harness"]), Authority::new().issue(&["harness"]));
    for version in [&TLS12, &TLS13] {
        let mut client = Caller::with(&authority, "llm.test", Some(&good), &[version]).client(gateway.address).await;
        assert_eq!(client.send(&Req::get("/")).await.status, 200);
        for own in [None, Some(&foreign)] {
            let caller = Caller::with(&authority, "llm.test", own, &[version]);
            // In TLS 1.3 the client's part is over before the server has seen its certificate.
            if let Ok(stream) = caller.connect(gateway.address).await {
                let mut client = Client::over(stream);
                let _ = client.stream.write_all(&Req::get("/").bytes()).await;
                assert_eq!(client.rest().await, "");
            }
        }
    }
    assert_eq!(a.count(), 2);
    gateway.until_idle().await;
}

#[tokio::test]
async fn client_and_gateway_agree_on_a_protocol() {
    let (authority, files) = (Authority::new(), Files::new());
    let a = Scripted::ok("a").await;
    let keys = files.pair("own", &authority.issue(&["llm.test"]));
    let gateway = Setup::new().tls(&keys).backend("a", &a.url()).start().await;
    let caller = |protocols: &[&str]| Caller::new(&authority, "llm.test").alpn(protocols);
    for (offered, agreed) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1", "h2"], Some("h2")), (&["h2"], Some("h2"))]
    {
        let stream = caller(offered).connect(gateway.address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
        let h2 = H2c::over(stream, WINDOW).await;
        for _ in 0..3 {
            assert_eq!(h2.send(&Req::post("/", b"{}"), true).await.body(), b"a");
        }
    }
    for (offered, agreed) in [(&["http/1.1"][..], Some("http/1.1")), (&[], None)] {
        let mut client = caller(offered).client(gateway.address).await;
        assert_eq!(client.stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
        for _ in 0..3 {
            assert_eq!(client.send(&Req::post("/", b"{}")).await.text(), "a");
        }
    }
    assert!(caller(&["spdy/3"]).connect(gateway.address).await.is_err(), "nothing in common");
    assert!(a.seen().iter().all(|seen| seen.header("X-Forwarded-Proto") == Some("https")));
    gateway.until_idle().await;
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_and_who_says_nothing_is_closed() {
    let (authority, files, a) = (Authority::new(), Files::new(), Scripted::ok("a").await);
    let keys = files.pair("own", &authority.issue(&["llm.test"]));
    let setup = Setup::new().tls(&keys).top("limits: { header_timeout: 300ms, max_connections: 1 }");
    let gateway = setup.backend("a", &a.url()).start().await;
    let answer = gateway.send(&Req::post("/", b"{}").header("X-Long", &"x".repeat(2000))).await;
    assert_eq!((answer.status, answer.code(), answer.whole), (400, "tls_required".to_owned(), true));
    // A record that never ends, and no byte at all: the handshake is a part of `header_timeout`.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b""] {
        until("nobody is there", || gateway.inner.connections.get() == 0).await;
        let mut client = gateway.client().await;
        client.write(bytes).await;
        until("it counts as a connection", || gateway.inner.connections.get() == 1).await;
        let one_too_many = Caller::new(&authority, "llm.test").connect(gateway.address).await;
        assert!(one_too_many.is_err(), "max_connections counts who is in a handshake");
        client.closed_after().await;
    }
    until("nobody is there", || gateway.inner.connections.get() == 0).await;
    let mut client = Caller::new(&authority, "llm.test").client(gateway.address).await;
    assert_eq!(client.send(&Req::get("/")).await.status, 200);
    assert_eq!(a.count(), 1);
}

/// Streams, an upgrade, and a client that leaves: as without TLS.
#[tokio::test]
async fn streams_and_upgrades_pass_as_they_are() {
    let (authority, files) = (Authority::new(), Files::new());
    let bytes = noise(300_000);
    let whole = bytes.clone();
    let a = Scripted::start(move |seen| match seen.head.split(' ').nth(1).unwrap() {
        "/stream" => {
            let chunks = whole.chunks(7_001).map(|piece| Step::Send(chunk(piece)));
            [Step::Send(stream_head())].into_iter().chain(chunks).chain([Step::Send(chunk(b""))]).collect()
        }
        "/silent" => vec![Step::Send(stream_head()), Step::Send(chunk(b"data: 1\n\n")), Step::Hang],
        "/ws" => vec![
            Step::Send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec()),
            Step::Echo,
        ],
        _ => vec![Step::Send(answer(200, "", &seen.body))],
    })
    .await;
    let keys = files.pair("own", &authority.issue(&["llm.test"]));
    let gateway = Setup::new().tls(&keys).backend("a", &a.url()).start().await;
    let caller = Caller::new(&authority, "llm.test");

    let mut client = caller.client(gateway.address).await;
    let answer = client.send(&Req::get("/stream")).await;
    assert!(answer.whole && answer.body == bytes);
    let answer = client.send(&Req::post("/echo", &bytes)).await;
    assert!(answer.whole && answer.body == bytes);
    let h2 =
        H2c::over(Caller::new(&authority, "llm.test").alpn(&["h2"]).connect(gateway.address).await.unwrap(), WINDOW);
    assert!(*h2.await.send(&Req::get("/stream"), true).await.body() == bytes);

    let upgrade = Req::get("/ws").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let upgrade = upgrade.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(client.send(&upgrade).await.status, 101);
    client.write(b"hello").await;
    client.until("hello").await;
    drop(client);

    let mut client = caller.client(gateway.address).await;
    client.write(&Req::get("/silent").bytes()).await;
    client.until("data: 1").await;
    drop(client);
    until("the backend sees that the client is gone", || !a.left().is_empty()).await;
    gateway.until_idle().await;
}

/// What must be shown: certificates are replaced again and again while connections come and streams run; no handshake
/// and no request fails, and each new connection gets what is new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_changes_under_load_and_nothing_fails() {
    let (authority, files) = (Arc::new(Authority::new()), Files::new());
    let bytes = noise(20_000);
    let whole = bytes.clone();
    let a = Scripted::start(move |_| {
        let chunks = whole.chunks(500).map(|piece| Step::Send(chunk(piece)));
        [Step::Send(stream_head())].into_iter().chain(chunks).chain([Step::Send(chunk(b""))]).collect()
    })
    .await;
    let first = authority.issue(&["llm.test"]);
    let keys = files.pair("own", &first);
    let gateway = Setup::new().tls(&keys).backend("a", &a.url()).start().await;
    let (over, requests, handshakes) = (Arc::new(AtomicBool::new(false)), counter(), counter());
    let mut load = tokio::task::JoinSet::new();
    for each in [1, 1, 1, 20] {
        let (authority, over, address) = (Arc::clone(&authority), Arc::clone(&over), gateway.address);
        let (requests, handshakes, bytes) = (Arc::clone(&requests), Arc::clone(&handshakes), bytes.clone());
        load.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let mut client = Caller::new(&authority, "llm.test").client(address).await;
                handshakes.fetch_add(1, Ordering::Relaxed);
                for _ in 0..each {
                    let answer = client.send(&Req::get("/")).await;
                    assert!(answer.status == 200 && answer.whole && answer.body == bytes);
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    // One connection lives through all of it.
    let caller = Caller::new(&authority, "llm.test");
    let mut long = caller.client(gateway.address).await;
    for swap in 0..20 {
        let next = authority.issue(&["llm.test"]);
        files.pair("own", &next);
        // The first time it is left to the gateway to look.
        if swap > 0 {
            gateway.inner.certificates.refresh();
        }
        loop {
            let stream = caller.connect(gateway.address).await.unwrap();
            if shown(&stream) == next.der() {
                break;
            }
            assert_eq!(swap, 0, "a change is in force as soon as it was seen");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(long.send(&Req::get("/")).await.body == bytes);
        let before = requests.load(Ordering::Relaxed);
        until("the load goes on", || requests.load(Ordering::Relaxed) > before + 10).await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(client) = load.join_next().await {
        client.unwrap();
    }
    let (requests, handshakes) = (requests.load(Ordering::Relaxed), handshakes.load(Ordering::Relaxed));
    println!("20 certificates, {handshakes} handshakes, {requests} requests, 0 failures");
    assert_eq!(shown(&long.stream), first.der(), "it has what it began with");
    assert_eq!(gateway.metric("ingle_certificate_reloads_total", &[("result", "ok")]).await, 20.0);
    assert_eq!(gateway.metric("ingle_certificate_reloads_total", &[("result", "error")]).await, 0.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[("code", "2xx")]).await, 21.0 + requests as f64 - 1.0);
}

fn counter() -> Arc<AtomicUsize> {
    Arc::default()
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_former_in_force() {
    let (authority, files, a) = (Authority::new(), Files::new(), Scripted::ok("a").await);
    let first = authority.issue(&["llm.test"]);
    let keys = files.pair("own", &first);
    let gateway = Setup::new().tls(&keys).backend("a", &a.url()).start().await;
    let caller = Caller::new(&authority, "llm.test");
    let failed = async || gateway.metric("ingle_certificate_reloads_total", &[("result", "error")]).await;

    files.write("own.pem", &authority.issue(&["llm.test"]).certificate);
    gateway.inner.certificates.refresh();
    gateway.inner.certificates.refresh();
    assert_eq!(failed().await, 1.0, "a certificate without its key");
    assert_eq!(shown(&caller.connect(gateway.address).await.unwrap()), first.der());
    gateway.inner.certificates.refresh();
    assert_eq!(failed().await, 1.0, "counted once");

    std::fs::remove_file(files.path("own.key")).unwrap();
    gateway.inner.certificates.refresh();
    gateway.inner.certificates.refresh();
    assert_eq!(failed().await, 2.0, "no key at all");
    assert_eq!(shown(&caller.connect(gateway.address).await.unwrap()), first.der());

    let next = authority.issue(&["llm.test"]);
    files.pair("own", &next);
    gateway.inner.certificates.refresh();
    assert_eq!(shown(&caller.connect(gateway.address).await.unwrap()), next.der());
}

#[tokio::test]
async fn a_reload_changes_certificates_and_who_may_come() {
    let (authority, clients, files, a) = (Authority::new(), Authority::new(), Files::new(), Scripted::ok("a").await);
    let setup = |keys: &str| Setup::new().tls(keys).backend("a", &a.url());
    let one = files.pair("one", &authority.issue(&["one.test"]));
    let gateway = setup(&one).start().await;
    let mut old = Caller::new(&authority, "one.test").client(gateway.address).await;
    assert_eq!(old.send(&Req::get("/")).await.status, 200);

    let ca = files.write("clients.pem", &clients.pem());
    let two = files.pair("two", &authority.issue(&["two.test"]));
    let reload = gateway.reload(&setup(&format!("{two}, client_ca: {ca:?}"))).await;
    assert_eq!(
        (reload.status, &reload.json()["changes"]["listeners"]["changed"]),
        (200, &serde_json::json!(["127.0.0.1:0"]))
    );
    assert!(Caller::new(&authority, "one.test").connect(gateway.address).await.is_err(), "another name");
    let own = clients.issue(&["harness"]);
    let mut new =
        Caller::with(&authority, "two.test", Some(&own), rustls::DEFAULT_VERSIONS).client(gateway.address).await;
    assert_eq!(new.send(&Req::get("/")).await.status, 200);
    assert_eq!(old.send(&Req::get("/")).await.status, 200, "a connection keeps what it began with");

    let metric = "ingle_certificate_expiry_timestamp_seconds";
    assert_eq!(gateway.metric(metric, &[("certificate", &files.path("one.pem"))]).await, 0.0, "not told any more");

    files.write("two.key", "nonsense");
    let answer = gateway.reload(&setup(&two).top("access_log: human")).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.text().contains("holds no PEM key"), "{answer:?}");
}

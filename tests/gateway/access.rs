//! Who may come: API keys, addresses, proxies that are believed, keys of backends, keys of admins.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ingle::config::Digest;
use tokio::net::TcpSocket;

use crate::client::{Client, Req};
use crate::h2c::H2c;
use crate::harness::{Gateway, Setup, file, sims, until};
use crate::process::Process;
use crate::scripted::{Gate, Scripted, Step, answer, chunk, stream_head};

/// A file of keys: `name key limits`, one a line.
pub(crate) fn keys(lines: &[&str]) -> PathBuf {
    file(&text(lines))
}

fn text(lines: &[&str]) -> String {
    let line = |line: &&str| {
        let (name, rest) = line.split_once(' ').unwrap();
        let (key, limits) = rest.split_once(' ').unwrap_or((rest, ""));
        format!("{name} sha256:{} {limits}\n", Digest::of(key.as_bytes()).to_hex())
    };
    lines.iter().map(line).collect()
}

/// Requests must show one of these keys.
fn asking(setup: Setup, keys: &Path) -> Setup {
    setup.top(&format!("access: {{ keys_file: {keys:?} }}"))
}

fn get(key: &str) -> Req {
    Req::get("/").header("Authorization", &format!("Bearer {key}"))
}

async fn one(lines: &[&str]) -> (Gateway, Scripted, PathBuf) {
    let (a, keys) = (Scripted::ok("a").await, keys(lines));
    let gateway = asking(Setup::new(), &keys).backend("a", &a.url()).start().await;
    (gateway, a, keys)
}

async fn results(gateway: &Gateway, key: &str, result: &str) -> f64 {
    gateway.metric("ingle_key_requests_total", &[("key", key), ("result", result)]).await
}

/// Sends a request from this address of the machine; `None` if the connection is closed without a word.
async fn from(source: [u8; 4], to: SocketAddr, req: &Req) -> Option<u16> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    let mut client = Client::over(socket.connect(to).await.unwrap());
    let said = client.rest_of(&req.clone().header("Connection", "close")).await;
    (!said.is_empty()).then(|| said.split(' ').nth(1).unwrap().parse().unwrap())
}

#[tokio::test]
async fn without_a_known_key_nothing_reaches_a_backend() {
    let (gateway, a, _) = one(&["alice a-key", "bob b-key"]).await;
    let wrong = [
        Req::get("/"),
        get("c-key"),
        get(""),
        get("A-KEY"),
        Req::get("/").header("Authorization", "a-key"),
        Req::get("/").header("Authorization", "Basic a-key"),
        get("a-key").header("Authorization", "Bearer b-key"),
        Req::get("/?api_key=a-key"),
        Req::new("OPTIONS", "/", b""),
        Req::get("/health"),
    ];
    for req in &wrong {
        let answer = gateway.send(req).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_api_key"), "{req:?}");
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
        assert!(!answer.text().contains("-key\""), "{}", answer.text());
    }
    let http2 = H2c::connect(gateway.address).await;
    assert_eq!(http2.send(&get("c-key"), true).await.status(), 401);
    assert_eq!(a.count(), 0, "{:?}", a.seen());

    assert_eq!(http2.send(&get("b-key"), true).await.status(), 200);
    assert_eq!(gateway.send(&get("a-key")).await.status, 200);
    assert_eq!(gateway.send(&Req::get("/").header("X-Api-Key", "a-key")).await.status, 200);
    assert_eq!(results(&gateway, "alice", "accepted").await, 2.0);
    assert_eq!(results(&gateway, "bob", "accepted").await, 1.0);
    let refused = results(&gateway, "none", "no_key").await + results(&gateway, "none", "unknown_key").await;
    assert_eq!(refused, 11.0);
    assert_eq!(gateway.metric("ingle_requests_total", &[("backend", "none"), ("code", "4xx")]).await, 11.0);
}

#[tokio::test]
async fn a_large_body_without_a_key_is_not_waited_for() {
    let (gateway, a, _) = one(&["alice a-key"]).await;
    let mut client = gateway.client().await;
    client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 401);
    assert_eq!((a.count(), gateway.inner.bodies.get()), (0, 0));
}

#[tokio::test]
async fn valid_key_counts_in_every_header_of_sdks() {
    let (gateway, a, _) = one(&["alice a-key"]).await;
    for name in ["X-Api-Key", "api-key", "x-goog-api-key"] {
        for dummy in [None, Some("Bearer dummy"), Some("Basic ZHVtbXk6")] {
            let req = Req::get("/").header(name, "a-key");
            let req = dummy.into_iter().fold(req, |req, dummy| req.header("Authorization", dummy));
            assert_eq!(gateway.send(&req).await.status, 200, "{name} beside {dummy:?}");
        }
        let wrong = Req::get("/").header(name, "wrong").header("Authorization", "Bearer dummy");
        assert_eq!(gateway.send(&wrong).await.status, 401, "{name}");
        for seen in a.seen() {
            assert_eq!((seen.count("Authorization"), seen.count(name)), (0, 0), "{}", seen.head);
        }
    }
}

#[tokio::test]
async fn keys_that_the_gateway_asks_for_end_there() {
    let (gateway, a, _) = one(&["alice a-key"]).await;
    gateway.send(&get("a-key").header("X-Api-Key", "another")).await;
    gateway.send(&Req::get("/").header("X-Api-Key", "a-key")).await;
    for seen in a.seen() {
        assert_eq!((seen.count("Authorization"), seen.count("X-Api-Key")), (0, 0), "{}", seen.head);
    }
}

#[tokio::test]
async fn a_key_has_a_rate_of_its_own() {
    let (gateway, a, _) = one(&["alice a-key requests=3/h", "bob b-key"]).await;
    for _ in 0..3 {
        assert_eq!(gateway.send(&get("a-key")).await.status, 200);
    }
    let answer = gateway.send(&get("a-key")).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limit_exceeded"));
    let wait: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&wait), "a third of an hour: {wait}");
    assert_eq!(gateway.send(&get("b-key")).await.status, 200);
    assert_eq!((a.count(), results(&gateway, "alice", "rate").await), (4, 1.0));
}

#[tokio::test]
async fn a_key_has_so_many_requests_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |seen| match seen.head.starts_with("POST /slow ") {
        true => vec![Step::Wait(held.clone()), Step::Send(answer(200, "", b"slow"))],
        false => vec![Step::Send(answer(200, "", b"quick"))],
    })
    .await;
    let keys = keys(&["alice a-key in_flight=1", "bob b-key"]);
    let gateway = asking(Setup::new(), &keys).backend("a", &a.url()).start().await;
    let slow = Req::post("/slow", b"{}").header("Authorization", "Bearer a-key");
    let mut client = gateway.client().await;
    client.write(&slow.bytes()).await;
    until("it is there", || a.count() == 1).await;
    let second = gateway.send(&slow).await;
    assert_eq!((second.status, second.code().as_str()), (429, "too_many_requests"));
    assert!(second.header("Retry-After").is_some());
    assert_eq!(gateway.send(&get("b-key")).await.status, 200);
    assert_eq!(gateway.metric("ingle_key_in_flight_requests", &[("key", "alice")]).await, 1.0);
    gate.open();
    assert_eq!(client.answer().await.text(), "slow");
    gateway.until_idle().await;
    assert_eq!(gateway.send(&get("a-key")).await.status, 200);

    // A client that leaves gives its place back, too.
    let mut client = gateway.client().await;
    client.write(&slow.bytes()).await;
    until("it is there", || a.count() == 4).await;
    drop(client);
    gateway.until_idle().await;
    assert_eq!(gateway.send(&get("a-key")).await.status, 200);
    assert_eq!(gateway.metric("ingle_key_in_flight_requests", &[]).await, 0.0);
}

#[tokio::test]
async fn a_key_file_that_changes_comes_into_force_and_ends_no_stream() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |seen| match seen.head.starts_with("GET /stream ") {
        true => vec![
            Step::Send(stream_head()),
            Step::Send(chunk(b"begun")),
            Step::Wait(held.clone()),
            Step::Send(chunk(b"ended")),
            Step::Send(chunk(b"")),
        ],
        false => vec![Step::Send(answer(200, "", b"quick"))],
    })
    .await;
    let keys = keys(&["alice old-key"]);
    let gateway = asking(Setup::new(), &keys).backend("a", &a.url()).start().await;
    let mut stream = gateway.client().await;
    stream.write(&Req::get("/stream").header("Authorization", "Bearer old-key").bytes()).await;
    stream.until("begun").await;

    std::fs::write(&keys, "alice old-key\n").unwrap();
    until("the bad file is told", || gateway.inner.metrics.access.failed.get() == 1).await;
    assert_eq!(gateway.send(&get("old-key")).await.status, 200, "the former keys stay");
    std::fs::write(&keys, text(&["alice new-key", "carol c-key"])).unwrap();
    until("the new file is in force", || gateway.inner.metrics.access.loaded.get() == 1).await;
    assert_eq!(gateway.send(&get("old-key")).await.status, 401);
    assert_eq!(gateway.send(&get("new-key")).await.status, 200);
    gate.open();
    stream.until("ended").await;

    // A reload of the config reads the files at once, and may do without.
    std::fs::write(&keys, text(&["carol c-key"])).unwrap();
    let setup = asking(Setup::new(), &keys).backend("a", &a.url());
    assert_eq!(gateway.reload(&setup).await.status, 200);
    assert_eq!(gateway.send(&get("new-key")).await.status, 401);
    assert_eq!(gateway.send(&get("c-key")).await.status, 200);
    assert!(!gateway.admin_get("/metrics").await.text().contains("key=\"alice\""), "her series have ended");
    std::fs::write(&keys, "broken").unwrap();
    let answer = gateway.reload(&setup).await;
    assert!(answer.status == 422 && answer.text().contains("access.keys_file"), "{}", answer.text());
    assert_eq!(gateway.send(&get("c-key")).await.status, 200);
    assert_eq!(gateway.reload(&Setup::new().backend("a", &a.url())).await.status, 200);
    assert_eq!(gateway.send(&Req::get("/")).await.status, 200);
}

#[tokio::test]
async fn a_backend_gets_the_key_that_it_wants_from_everybody() {
    let (a, b) = (Scripted::ok("slots 1").await, Scripted::ok("b").await);
    let secret = file("sk-backend\n");
    let setup = Setup::new()
        .backend_with("a", &a.url(), &format!("api_key_file: {secret:?}"))
        .backend("b", &b.url())
        .health("path: /v1/models, interval: 50ms")
        .pool("signals: { interval: 100ms }");
    let gateway = setup.clone().start().await;
    let paid = |path: &str, key: &str| {
        let wanted = format!("Bearer {key}");
        a.seen()
            .iter()
            .rev()
            .find(|seen| seen.head.contains(path))
            .is_some_and(|seen| seen.header("Authorization") == Some(&wanted) && seen.count("Authorization") == 1)
    };
    let req = get("of-the-client").header("X-Api-Key", "of-the-client");
    for name in ["a", "b"] {
        assert_eq!(gateway.send(&req.clone().session(&gateway.session_of(name))).await.backend(), name);
    }
    until("traffic, probes and signals show it", || {
        ["GET / ", "/v1/models", "/metrics"].iter().all(|path| paid(path, "sk-backend"))
    })
    .await;
    assert!(!a.seen().iter().any(|seen| seen.head.contains("of-the-client")), "{:?}", a.seen());
    let other = b.seen().into_iter().find(|seen| seen.head.starts_with("GET / ")).unwrap();
    assert_eq!(other.header("Authorization"), Some("Bearer of-the-client"), "it passes to whom has none of its own");
    assert_eq!(other.header("X-Api-Key"), Some("of-the-client"));
    assert!(!b.seen().iter().any(|seen| seen.head.contains("sk-backend")));

    std::fs::write(&secret, "sk-new").unwrap();
    until("the file is followed", || paid("/v1/models", "sk-new") && paid("/metrics", "sk-new")).await;
    gateway.send(&req.clone().session(&gateway.session_of("a"))).await;
    assert!(paid("GET / ", "sk-new"));
    for path in ["/backends", "/status", "/metrics", "/explain?session=s"] {
        let shown = gateway.admin_get(path).await.text();
        assert!(!shown.contains("sk-") && !shown.contains("Bearer"), "{path}: {shown}");
    }
}

#[tokio::test]
async fn no_log_shows_a_key_and_the_access_log_names_its_holder() {
    let (a, keys) = (Scripted::ok("a").await, keys(&["alice client-secret", "bob limited-secret requests=1/h"]));
    let backend = file("backend-secret");
    let admin = self::keys(&["ops admin-secret"]);
    let setup = asking(Setup::new(), &keys)
        .admin(&format!("keys_file: {admin:?}"))
        .backend_with("a", &a.url(), &format!("api_key_file: {backend:?}"))
        .top("access_log: json");
    let process = Process::start_with(&setup.yaml(), &["-vv"]).await;
    process.until_line(|line| line["backend"] == "a" && line["to"] == "healthy").await;
    for key in ["client-secret", "guessed-secret"] {
        Client::connect(process.address)
            .await
            .send(&Req::get(&format!("/{}", key.len())).header("X-Api-Key", key))
            .await;
    }
    let line = process.until_line(|line| line["path"] == "/13").await;
    assert_eq!((&line["key"], &line["client"]), (&"alice".into(), &"127.0.0.1".into()));
    let line = process.until_line(|line| line["path"] == "/14").await;
    assert_eq!((&line["key"], &line["status"]), (&serde_json::Value::Null, &401.into()));
    assert_eq!((&line["client"], &line["error"]), (&"127.0.0.1".into(), &"invalid_api_key".into()));
    let limited = Req::get("/limited").header("X-Api-Key", "limited-secret");
    assert_eq!(Client::connect(process.address).await.send(&limited).await.status, 200);
    assert_eq!(Client::connect(process.address).await.send(&limited).await.status, 429);
    let line = process.until_line(|line| line["path"] == "/limited" && line["status"] == 429).await;
    assert_eq!((&line["key"], &line["error"]), (&"bob".into(), &"rate_limit_exceeded".into()));
    let drain = Req::post("/backends/a/drain", b"").header("Authorization", "Bearer admin-secret");
    assert_eq!(Client::connect(process.admin).await.send(&drain).await.status, 200);
    process.until_line(|line| line["message"] == "set by the admin listener" && line["who"] == "ops").await;
    for _ in 0..3 {
        let guess = Req::get("/backends").header("Authorization", "Bearer guessed-secret");
        assert_eq!(Client::connect(process.admin).await.send(&guess).await.status, 401);
    }
    let told = |line: &serde_json::Value| {
        line["message"].as_str().is_some_and(|text| text.starts_with("refused on the admin listener"))
    };
    assert!(process.until_line(told).await["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(process.count("refused on the admin listener"), 1, "once a minute");
    std::fs::write(&backend, "two secrets").unwrap();
    process
        .until_line(|line| line["why"].as_str().is_some_and(|why| why.contains("something else than one word")))
        .await;
    for line in process.lines() {
        assert!(!line.contains("secret"), "{line}");
    }
}

#[tokio::test]
async fn a_listener_serves_only_addresses_that_it_allows() {
    let a = Scripted::ok("a").await;
    let setup = |allow: &str| Setup::new().listener(allow).backend("a", &a.url());
    let gateway = setup("allow: [127.0.0.2, 10.0.0.0/8]").start().await;
    let req = Req::get("/");
    assert_eq!(from([127, 0, 0, 1], gateway.address, &req).await, None, "closed without a word");
    assert_eq!(from([127, 0, 0, 3], gateway.address, &req).await, None);
    assert_eq!(from([127, 0, 0, 2], gateway.address, &req).await, Some(200));
    // Who shows an address that is allowed is believed only if he comes from one.
    let forged = req.clone().header("X-Forwarded-For", "127.0.0.2");
    assert_eq!(from([127, 0, 0, 1], gateway.address, &forged).await, None);
    assert_eq!((a.count(), gateway.metric("ingle_refused_total", &[("reason", "address")]).await), (1, 3.0));
    assert_eq!(gateway.reload(&setup("allow: [127.0.0.0/24]")).await.status, 200);
    assert_eq!(gateway.send(&req).await.status, 200);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_nobody_else() {
    let a = Scripted::ok("a").await;
    let setup = Setup::new().top("access: { trusted_proxies: [127.0.0.2, 10.0.0.0/8] }").backend("a", &a.url());
    let gateway = setup.start().await;
    let req = Req::get("/")
        .header("X-Forwarded-For", "203.0.113.7, 10.0.0.9")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "public.test")
        .header("X-Forwarded-Port", "443")
        .header("X-Real-IP", "203.0.113.7")
        .header("Forwarded", "for=203.0.113.7");
    from([127, 0, 0, 2], gateway.address, &req).await.unwrap();
    from([127, 0, 0, 3], gateway.address, &req).await.unwrap();
    from([127, 0, 0, 2], gateway.address, &Req::get("/")).await.unwrap();
    let [believed, forged, silent] = a.seen().try_into().unwrap();
    let said = |seen: &crate::scripted::Seen| {
        let names =
            ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "Forwarded"];
        names.map(|name| {
            assert!(seen.count(name) < 2, "{name}: {}", seen.head);
            seen.header(name).map(str::to_owned)
        })
    };
    let some = |text: &str| Some(text.to_owned());
    let all = ["203.0.113.7, 10.0.0.9, 127.0.0.2", "https", "public.test", "443", "203.0.113.7", "for=203.0.113.7"];
    assert_eq!(said(&believed), all.map(some));
    assert_eq!(said(&forged), [some("127.0.0.3"), some("http"), some("llm.test"), None, None, None]);
    assert_eq!(said(&silent), [some("127.0.0.2"), some("http"), some("llm.test"), None, None, None]);
}

#[tokio::test]
async fn the_admin_listener_wants_a_key_if_it_has_keys() {
    let (sims, keys) = (sims(1).await, keys(&["prometheus p-key", "ops o-key"]));
    let gateway = Setup::new().admin(&format!("keys_file: {keys:?}")).sims(&sims).start().await;
    let send = async |req: Req| Client::connect(gateway.admin).await.send(&req).await;
    for path in ["/", "/page.js", "/metrics", "/backends", "/status", "/explain?session=s", "/nothing"] {
        let answer = send(Req::get(path)).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_api_key"), "{path}");
        assert!(answer.header("WWW-Authenticate").unwrap().starts_with("Basic realm="), "a browser asks for it");
        assert_eq!(send(Req::get(path).header("Authorization", "Bearer x-key")).await.status, 401, "{path}");
    }
    for path in ["/backends/a/drain", "/reload"] {
        assert_eq!(send(Req::post(path, b"")).await.status, 401, "{path}");
    }
    assert!(!gateway.inner.snapshot.load().links[0].backend.draining());
    let refused = gateway.inner.metrics.limits.admin_key.get();
    assert_eq!(refused, 2 * 7 + 2, "each is counted");
    for path in ["/livez", "/readyz"] {
        assert_eq!(send(Req::get(path)).await.status, 200, "{path} is for load balancers");
    }
    let metrics = send(Req::get("/metrics").header("Authorization", "Bearer p-key")).await;
    assert!(metrics.status == 200 && !metrics.text().contains("key=\"ops\""), "these are no clients");
    // "anybody:o-key"
    let page = send(Req::get("/").header("Authorization", "Basic YW55Ym9keTpvLWtleQ==")).await;
    assert_eq!(page.status, 200);
    let drain = Req::post("/backends/a/drain", b"").header("Authorization", "Bearer o-key");
    assert_eq!(send(drain.clone().header("Origin", "http://evil.test")).await.status, 403, "a page of another site");
    assert_eq!(send(drain).await.status, 200);
}

#[tokio::test]
async fn the_admin_listener_serves_only_addresses_that_it_allows() {
    let sims = sims(1).await;
    let gateway = Setup::new().admin("allow: [127.0.0.2]").sims(&sims).start().await;
    assert_eq!(from([127, 0, 0, 1], gateway.admin, &Req::get("/livez")).await, None);
    assert_eq!(from([127, 0, 0, 2], gateway.admin, &Req::get("/livez")).await, Some(200));
}

#[tokio::test]
async fn ingle_key_makes_a_key_that_opens() {
    let run = |args: &[&str]| std::process::Command::new(env!("CARGO_BIN_EXE_ingle")).args(args).output().unwrap();
    let made = run(&["key", "alice"]);
    let (line, said) = (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    let key = said.trim().rsplit(' ').next().unwrap();
    let (a, keys) = (Scripted::ok("a").await, file(&line));
    let gateway = asking(Setup::new(), &keys).backend("a", &a.url()).start().await;
    assert_eq!(gateway.send(&get(key)).await.status, 200);
    assert_eq!(run(&["key", "none"]).status.code(), Some(2));
    assert_eq!(run(&["key"]).status.code(), Some(2));
}

#[tokio::test]
async fn a_trusted_proxys_clients_have_limits_of_their_own() {
    let a = Scripted::ok("a").await;
    let setup = Setup::new()
        .top("access: { trusted_proxies: [127.0.0.2] }")
        .top("limits: { per_client: { max_connections: 1, requests: 1/h } }")
        .backend("a", &a.url());
    let gateway = setup.start().await;
    // However many connections it has, each client asks for itself.
    let mut held = Vec::new();
    for _ in 0..3 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
        held.push(Client::over(socket.connect(gateway.address).await.unwrap()));
    }
    let of = |client: &str| Req::get("/").header("X-Forwarded-For", client);
    for (proxy, client) in held.iter_mut().zip(["203.0.113.1", "203.0.113.2", "203.0.113.3"]) {
        assert_eq!(proxy.send(&of(client)).await.status, 200, "{client}");
    }
    assert_eq!(held[0].send(&of("203.0.113.3")).await.status, 429);
    assert_eq!(held[1].send(&of("203.0.113.4")).await.status, 200);
    // Who is not trusted is one client, whatever it says.
    assert_eq!(from([127, 0, 0, 3], gateway.address, &of("203.0.113.5")).await, Some(200));
    assert_eq!(from([127, 0, 0, 3], gateway.address, &of("203.0.113.6")).await, Some(429));
}

#[tokio::test]
async fn who_is_refused_takes_no_room_from_who_has_a_key() {
    let (a, keys) = (Scripted::ok("a").await, keys(&["alice a-key"]));
    let setup = asking(Setup::new(), &keys).top("limits: { memory: 2MiB }").backend("a", &a.url());
    let gateway = setup.start().await;
    let mut refused = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.client().await;
        client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
        refused.push(client);
    }
    for client in &mut refused {
        assert!(client.head().await.contains(" 401 "));
    }
    // They are still listened to, for a second.
    assert_eq!(gateway.send(&get("a-key")).await.status, 200);
    assert_eq!(gateway.metric("ingle_refused_total", &[("reason", "memory")]).await, 0.0);

    let http2 = H2c::connect(gateway.address).await;
    for _ in 0..50 {
        assert_eq!(http2.stall(&Req::post("/", &[b'x'; 1000]), 10).await, Some(401));
    }
    assert_eq!(gateway.send(&get("a-key")).await.status, 200);
    gateway.until_idle().await;
    assert_eq!(gateway.inner.refused.get(), 0);
}

#[tokio::test]
async fn the_admin_listener_has_so_many_connections_and_traffic_goes_on() {
    let sims = sims(1).await;
    let gateway = Setup::new().sims(&sims).start().await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(Client::connect(gateway.admin).await);
    }
    for oldest in &mut silent[..16] {
        assert_eq!(oldest.rest().await, "", "the oldest ones are closed");
    }
    assert_eq!(gateway.send(&Req::get("/v1/models")).await.status, 200);
    assert_eq!(from([127, 0, 0, 1], gateway.admin, &Req::get("/livez")).await, Some(200), "others have room");
}

/// Puts a pipe in a file's place: who reads it waits, as on a file system that hangs.
fn hang(file: &Path) {
    std::fs::remove_file(file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(file).status().unwrap().success());
}

/// The other end of the pipe, if somebody reads it: without a reader it can't be opened.
fn writer(pipe: &Path) -> Option<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options.write(true), NONBLOCK).open(pipe).ok()
}

#[tokio::test]
async fn a_key_file_that_can_not_be_read_in_time_holds_no_reload_up() {
    let (a, former, next) = (Scripted::ok("a").await, keys(&["alice a-key"]), keys(&["alice b-key"]));
    let mut gateway = asking(Setup::new(), &former).backend("a", &a.url()).start().await;
    let look = |gateway: &Gateway| {
        let inner = std::sync::Arc::clone(&gateway.inner);
        std::thread::spawn(move || inner.refresh())
    };
    hang(&former);
    let first = look(&gateway);
    let begun = std::time::Instant::now();
    let mut late = loop {
        if let Some(writer) = writer(&former) {
            break writer;
        }
        assert!(begun.elapsed() < crate::harness::PATIENCE, "it is read");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(gateway.send(&Req::get("/")).await.status, 401);
    assert_eq!(gateway.reload(&asking(Setup::new(), &next).backend("a", &a.url())).await.status, 200);
    assert_eq!(gateway.send(&get("b-key")).await.status, 200);

    // Who looks meanwhile leaves no gap into which what is read late could go.
    hang(&next);
    let second = look(&gateway);
    let mut other = None;
    while !second.is_finished() && other.is_none() {
        other = writer(&next);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    std::io::Write::write_all(&mut late, text(&["alice a-key", "carol c-key"]).as_bytes()).unwrap();
    drop(late);
    first.join().unwrap();
    assert_eq!(gateway.send(&get("a-key")).await.status, 401, "what was read late is of no use");
    assert_eq!(gateway.send(&get("b-key")).await.status, 200);
    // Whoever reads the other pipe is let go.
    let aside = next.with_extension("pipe");
    std::fs::rename(&next, &aside).unwrap();
    drop((other, writer(&aside)));
    second.join().unwrap();
    gateway.stop();
    assert_eq!(gateway.until_drained().await, ingle::server::Drained::All);
}

/// `O_NONBLOCK` of Linux.
const NONBLOCK: i32 = 0o4000;

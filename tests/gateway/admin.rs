//! The admin listener's endpoints.

use serde_json::json;

use crate::client::{Client, Req};
use crate::harness::{Gateway, PATIENCE, Setup, sims, until};
use crate::scripted::{Gate, Scripted, Step, answer};

async fn two() -> (Gateway, Vec<ingle_sim::SimServer>) {
    let sims = sims(2).await;
    (Setup::new().sims(&sims).start().await, sims)
}

#[tokio::test]
async fn every_endpoint_answers_as_what_it_is() {
    let (gateway, _sims) = two().await;
    until("the first round is over", || gateway.inner.ready()).await;
    let pages = [
        ("/", "text/html; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/livez", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/backends", "application/json"),
        ("/status", "application/json"),
        ("/explain?session=s", "application/json"),
    ];
    for (path, kind) in pages {
        let answer = gateway.admin_get(path).await;
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some(kind)), "{path}");
        assert!(!answer.body.is_empty() && answer.header("Cache-Control") == Some("no-store"), "{path}");
        let head = Client::connect(gateway.admin).await.send(&Req::new("HEAD", path, b"")).await;
        assert_eq!((head.status, head.header("Content-Type")), (200, Some(kind)), "HEAD {path}");
    }
}

#[tokio::test]
async fn the_status_page_needs_nothing_from_elsewhere() {
    let (gateway, _sims) = two().await;
    until("the first round is over", || gateway.inner.ready()).await;
    let page = gateway.admin_get("/").await.text();
    assert!(page.contains("<meta name=\"viewport\""), "readable on a phone: {page}");
    let links = page
        .split(['"'])
        .zip(page.split('"').skip(1))
        .filter(|(before, _)| before.ends_with("src=") || before.ends_with("href="));
    for (_, link) in links.filter(|(_, link)| !link.starts_with("data:")) {
        assert!(!link.contains("//"), "{link} is elsewhere");
        let asset = gateway.admin_get(&format!("/{}", link.trim_start_matches('/'))).await;
        assert_eq!(asset.status, 200, "{link}");
        assert!(!asset.text().contains("@import") && !asset.text().contains("https://"), "{link}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_done_405() {
    let (gateway, _sims) = two().await;
    for path in ["/nothing", "/v1/chat/completions", "/backends/a", "/metrics/", "/explainx"] {
        let answer = gateway.admin_get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    for path in ["/backends/nobody/drain", "/backends/a/stop", "/backends//drain", "/metrics"] {
        assert_eq!(gateway.admin_post(path).await.status, 404, "{path}");
    }
    let mut client = Client::connect(gateway.admin).await;
    assert_eq!(client.send(&Req::new("DELETE", "/backends/a", b"")).await.status, 405);
}

#[tokio::test]
async fn nothing_of_it_is_on_the_traffic_port() {
    let a = Scripted::ok("the backend").await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    for path in ["/metrics", "/backends", "/livez", "/readyz", "/status", "/"] {
        assert_eq!(gateway.send(&Req::get(path)).await.text(), "the backend", "{path}");
    }
    assert_eq!(gateway.send(&Req::post("/backends/a/drain", b"")).await.text(), "the backend");
    assert_eq!(gateway.backend("a").await["draining"], false);
}

#[tokio::test]
async fn backends_are_listed_with_every_field() {
    let a = Scripted::start(|_| vec![Step::Hang]).await;
    let sims = sims(1).await;
    let setup = Setup::new().backend_with("gpu0", &a.url(), "weight: 3, priority: 1").sims(&sims);
    let gateway = setup.start().await;
    let all = gateway.admin_get("/backends").await.json();
    assert_eq!(all["backends"].as_array().unwrap().len(), 2);
    let gpu0 = gateway.backend("gpu0").await;
    let expected = serde_json::json!({
        "name": "gpu0", "url": a.url(), "pool": "main", "state": "healthy", "draining": false, "weight": 3,
        "priority": 1, "in_flight": 0, "queued": 0, "sessions": 0, "requests": 0, "last_error": null, "last_error_at": null,
        "streams_broken": 0, "on_trial": false, "warning": null,
        "first_token": null, "prompt_tokens": 0, "cached_prompt_tokens": 0, "signals": null,
    });
    assert_eq!(gpu0, expected);
    gateway.send(&Req::chat("hello", 3, false)).await;
    sims[0].kill().await;
    let mut client = gateway.client().await;
    client.write(&Req::chat("hello", 3, false).bytes()).await;
    until("it waits at gpu0", || a.count() == 1).await;
    assert_eq!(
        (&gateway.backend("gpu0").await["in_flight"], &gateway.backend("gpu0").await["requests"]),
        (&1.into(), &1.into())
    );
    let dead = gateway.backend("a").await;
    assert!(dead["last_error"].as_str().unwrap().starts_with("connect: ") || dead["last_error"].is_string());
    assert!(dead["last_error_at"].as_str().unwrap().ends_with('Z') && dead["prompt_tokens"].as_u64().unwrap() > 0);
    assert!(dead["first_token"]["p50_ms"].as_u64() <= dead["first_token"]["p99_ms"].as_u64(), "{dead}");
    assert!(dead["first_token"]["p50_ms"].is_u64(), "{dead}");
}

#[tokio::test]
async fn a_draining_backend_finishes_what_runs_and_gets_nothing_new() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| vec![Step::Wait(held.clone()), Step::Send(answer(200, "", b"a"))]).await;
    let b = Scripted::ok("b").await;
    let gateway = Setup::new().backend("a", &a.url()).backend("b", &b.url()).start().await;
    let session = gateway.session_of("a");
    let mut client = gateway.client().await;
    client.write(&Req::get("/").session(&session).bytes()).await;
    until("it runs", || a.count() == 1).await;

    let answer = gateway.admin_post("/backends/a/drain").await;
    assert_eq!((answer.status, &answer.json()["draining"], &answer.json()["name"]), (200, &true.into(), &"a".into()));
    assert_eq!(gateway.backend("a").await["draining"], true);
    assert_eq!(gateway.send(&Req::get("/").session(&session)).await.outcome(), "b failover 200");
    for _ in 0..4 {
        assert_eq!(gateway.send(&Req::get("/")).await.outcome(), "b balanced 200");
    }
    assert_eq!(gateway.metric("ingle_backend_healthy", &[("backend", "a")]).await, 1.0, "it is well");
    gate.open();
    assert_eq!(client.answer().await.text(), "a", "what ran has ended well");

    assert_eq!(gateway.admin_post("/backends/a/undrain").await.json()["draining"], false);
    gate.open();
    let other = gateway.sessions_of("a", 2).remove(1);
    assert_eq!(gateway.send(&Req::get("/").session(&other)).await.outcome(), "a home 200");
}

#[tokio::test]
async fn a_drained_backend_is_not_even_tried_when_all_else_fails() {
    let (gateway, sims) = two().await;
    gateway.admin_post("/backends/a/drain").await;
    sims[1].kill().await;
    gateway.until_state("b", "unhealthy").await;
    assert_eq!(gateway.send(&Req::chat("hello", 1, false)).await.status, 502);
    gateway.admin_post("/backends/b/drain").await;
    let answer = gateway.send(&Req::chat("hello", 1, false)).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"));
    assert_eq!(sims[0].stats().completions, 0);
}

#[tokio::test]
async fn names_in_paths_may_be_escaped() {
    let a = Scripted::ok("a").await;
    let gateway = Setup::new().backend("\"10.0.0.1:80\"", &a.url()).start().await;
    assert_eq!(gateway.admin_post("/backends/10.0.0.1%3A80/drain").await.json()["draining"], true);
    assert_eq!(gateway.admin_post("/backends/10.0.0.1:80/undrain").await.json()["draining"], false);
}

#[tokio::test]
async fn explain_says_what_happens() {
    let (gateway, sims) = two().await;
    let session = gateway.session_of("a");
    let explained = gateway.admin_get(&format!("/explain?session={session}")).await.json();
    assert_eq!((&explained["session"], &explained["home"]), (&session.as_str().into(), &"a".into()));
    assert_eq!(explained["order"], serde_json::json!(["a", "b"]));
    assert_eq!((&explained["would_go_to"], &explained["affinity"]), (&"a".into(), &"home".into()));
    assert!(explained["reason"].is_null() && explained["refused"].is_null(), "{explained}");
    sims[0].kill().await;
    gateway.until_state("a", "unhealthy").await;
    let path = format!("/explain?x=1&session={session}");
    let explained = gateway.admin_get(&path).await.json();
    assert_eq!((&explained["home"], &explained["would_go_to"]), (&"a".into(), &"b".into()));
    assert_eq!((&explained["affinity"], &explained["reason"]), (&"failover".into(), &"unhealthy".into()));
    assert_eq!(
        (&explained["backends"][0]["name"], &explained["backends"][0]["obstacle"]),
        (&"a".into(), &"unhealthy".into())
    );
    assert_eq!(gateway.metric("ingle_displaced_sessions", &[]).await, 0.0, "asking moves nobody");
    gateway.send(&Req::chat("hello", 1, false).session(&session)).await;
    let stayed = gateway.admin_get(&path).await.json();
    assert_eq!((&stayed["affinity"], &stayed["turns"]), (&"stayed".into(), &1.into()));
    assert_eq!((&stayed["backends"][1]["last"], &stayed["backends"][1]["seen"]["warm"]), (&true.into(), &true.into()));
    assert!(stayed["backends"][1]["score"].is_null(), "the hash has no scores");
    assert_eq!(gateway.backend("b").await["sessions"], 1, "one session is there");

    let spaced = gateway.admin_get("/explain?session=two%20words").await.json();
    assert_eq!((&spaced["session"], &spaced["home"]), (&"two words".into(), &gateway.home("two words").into()));
    for query in ["", "?", "?session=", "?session=%ff", "?session=%00", "?other=1", "?session=s&bytes=many"] {
        assert_eq!(gateway.admin_get(&format!("/explain{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_may_not_drain() {
    let (gateway, _sims) = two().await;
    let host = gateway.admin.to_string();
    let mut req = Req::post("/backends/a/drain", b"");
    req.headers = vec![("Host".into(), host.clone())];
    for origin in ["http://evil.example", "null", "https://evil.example:9180"] {
        let mut client = Client::connect(gateway.admin).await;
        assert_eq!(client.send(&req.clone().header("Origin", origin)).await.status, 403, "{origin}");
    }
    assert_eq!(gateway.backend("a").await["draining"], false);
    let own = req.clone().header("Origin", &format!("http://{host}"));
    assert_eq!(Client::connect(gateway.admin).await.send(&own).await.status, 200);
    assert_eq!(gateway.backend("a").await["draining"], true);
}

/// DNS rebinding: the page's own name points here, so that its requests are not another site's.
#[tokio::test]
async fn a_page_whose_name_was_made_to_point_here_may_not_drain() {
    let (gateway, _sims) = two().await;
    let port = gateway.admin.port();
    let from = |host: &str| {
        let mut req = Req::post("/backends/a/drain", b"").header("Origin", &format!("http://{host}"));
        req.headers[0].1 = host.to_owned();
        req
    };
    for host in ["evil.example".to_owned(), format!("evil.example:{port}"), "127.0.0.1.evil.example".to_owned()] {
        assert_eq!(Client::connect(gateway.admin).await.send(&from(&host)).await.status, 403, "{host}");
        assert_eq!(gateway.backend("a").await["draining"], false);
    }
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")] {
        assert_eq!(Client::connect(gateway.admin).await.send(&from(&host)).await.status, 200, "{host}");
    }
    assert_eq!(gateway.backend("a").await["draining"], true);
}

#[tokio::test]
async fn readyz_says_no_while_draining() {
    let a = Scripted::start(|_| vec![Step::Hang]).await;
    let mut gateway = Setup::new().backend("a", &a.url()).start().await;
    until("it is ready", || gateway.inner.ready()).await;
    assert_eq!(gateway.admin_get("/readyz").await.status, 200);
    let mut client = gateway.client().await;
    client.write(&Req::get("/").bytes()).await;
    until("a request runs", || a.count() == 1).await;
    gateway.stop();
    until("it stops", || gateway.inner.stopping()).await;
    assert_eq!((gateway.admin_get("/readyz").await.status, gateway.admin_get("/livez").await.status), (503, 200));
    drop(client);
    tokio::time::timeout(PATIENCE, gateway.until_drained()).await.unwrap();
}

#[tokio::test]
async fn state_change_is_sent_to_every_backend() {
    let ok = |body: &'static str| Scripted::start(move |_| vec![Step::Send(answer(200, "", body.as_bytes()))]);
    let (a, b) = (ok(r#"{"added":true}"#).await, ok("Success").await);
    let secret = crate::harness::file("backend-secret");
    let gone = crate::harness::nobody();
    let key = format!("server: generic, api_key_file: {secret:?}");
    let setup = Setup::new().backend_with("a", &a.url(), &key).backend("b", &b.url()).backend("c", &gone);
    let gateway = setup.start_cold().await;
    for (name, state) in [("a", "healthy"), ("b", "healthy"), ("c", "unhealthy")] {
        gateway.until_state(name, state).await;
    }
    let send = async |req: Req| Client::connect(gateway.admin).await.send(&req).await;
    let load =
        Req::post("/v1/load_lora_adapter?x=1", b"{\"lora_name\":\"l\"}").header("Content-Type", "application/json");
    let answer = send(load).await;
    let expected = json!({"backends": [
        {"name": "a", "status": 200, "body": {"added": true}},
        {"name": "b", "status": 200, "body": "Success"},
        {"name": "c", "skipped": "unhealthy"},
    ]});
    assert_eq!((answer.status, answer.json()), (200, expected));
    for backend in [&a, &b] {
        let seen = backend.seen();
        let [call] = &seen[..] else { panic!("{seen:?}") };
        assert!(call.head.starts_with("POST /v1/load_lora_adapter?x=1 HTTP/1.1\r\n"), "{}", call.head);
        assert_eq!(call.body, b"{\"lora_name\":\"l\"}");
        assert_eq!(call.header("Content-Type"), Some("application/json"));
    }
    assert_eq!(a.seen()[0].header("Authorization"), Some("Bearer backend-secret"));
    assert_eq!(send(Req::get("/sleep")).await.status, 405);
    assert_eq!(send(Req::post("/sleep", b"").header("Origin", "http://evil.example")).await.status, 403);
    assert_eq!(send(Req::post("/sleep", &vec![b' '; (1 << 20) + 1])).await.status, 413);
    assert_eq!((a.count(), b.count()), (1, 1));
}

#[tokio::test]
async fn state_change_that_a_backend_refuses_is_502() {
    let a = Scripted::ok("{}").await;
    let b = Scripted::start(|_| vec![Step::Send(answer(404, "", b"no"))]).await;
    let c = Scripted::start(|_| vec![Step::Close]).await;
    let keys = crate::access::keys(&["admin admin-key"]);
    let setup = Setup::new().admin(&format!("keys_file: {keys:?}"));
    let setup = setup.backend("a", &a.url()).backend("b", &b.url()).backend("c", &c.url());
    let gateway = setup.start().await;
    let call = Req::post("/reset_prefix_cache", b"");
    assert_eq!(Client::connect(gateway.admin).await.send(&call).await.status, 401);
    assert_eq!(a.count(), 0);
    let call = call.header("Authorization", "Bearer admin-key");
    let answer = Client::connect(gateway.admin).await.send(&call).await;
    let backends = &answer.json()["backends"];
    assert_eq!((answer.status, &backends[0]["status"], &backends[1]["status"]), (502, &json!(200), &json!(404)));
    assert!(backends[2]["error"].is_string(), "{backends}");
    assert_eq!(a.seen()[0].header("Authorization"), None, "keys of admins are not for backends");
}

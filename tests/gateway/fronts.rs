//! Between clients, proxies and backends: buffering, kept connections, Unix sockets, headers and keys.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::client::{Client, Req, header_of};
use crate::h2c::H2c;
use crate::harness::{Setup, file, until};
use crate::process::run;
use crate::scripted::{Gate, Scripted, Step, answer, chunk, event_head};

const EVENT: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";

#[tokio::test]
async fn event_stream_is_not_to_be_buffered() {
    let own =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: yes\r\nContent-Length: 0\r\n\r\n";
    let stream = || [event_head(), chunk(EVENT), b"0\r\n\r\n".to_vec()].concat();
    for until in ["first_token", "first_byte"] {
        let a = Scripted::start(move |seen| match seen.head.split(' ').nth(1).unwrap() {
            "/stream" => vec![Step::Send(stream())],
            "/own" => vec![Step::Send(own.into())],
            _ => vec![Step::Send(answer(200, "Content-Type: application/json\r\n", b"{}"))],
        })
        .await;
        let setup = Setup::new().backend("a", &a.url()).pool(&format!("retry: {{ until: {until} }}"));
        let gateway = setup.start().await;
        let http2 = H2c::connect(gateway.address).await;
        for (path, expected) in [("/stream", Some("no")), ("/json", None)] {
            let answer = gateway.send(&Req::post(path, b"{}")).await;
            assert_eq!((answer.status, answer.header("X-Accel-Buffering")), (200, expected), "{path}");
            let answer = http2.send(&Req::post(path, b"{}"), true).await;
            let header = answer.headers().get("x-accel-buffering").map(|value| value.to_str().unwrap());
            assert_eq!(header, expected, "{path}, HTTP/2");
        }
        // As nginx asks by default.
        let mut client = gateway.client().await;
        client.write(b"GET /stream HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(client.rest().await.contains("X-Accel-Buffering: no\r\n"));
        if until == "first_byte" {
            let answer = gateway.send(&Req::post("/own", b"{}")).await;
            assert_eq!(answer.header("X-Accel-Buffering"), Some("yes"));
            assert_eq!(answer.head.matches("X-Accel-Buffering").count(), 1);
        }
    }
}

/// What an answer says of its connection is what happens to it.
#[tokio::test]
async fn connection_is_kept_or_closed_as_announced() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |seen| match seen.head.contains("/slow ") {
        true => vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na".to_vec()),
            Step::Wait(held.clone()),
            Step::Send(b"b".to_vec()),
        ],
        false => vec![Step::Send(answer(200, "", b"ok"))],
    })
    .await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let request = |path: &str, rest: &str| format!("GET {path} HTTP/1.{rest}\r\n\r\n").into_bytes();
    let (new, old, kept) = ("1\r\nHost: a", "0", "0\r\nConnection: keep-alive");
    for (first, second, connection) in
        [(old, None, "close"), (kept, Some(kept), "keep-alive"), (new, Some(new), "keep-alive")]
    {
        let mut client = gateway.client().await;
        client.write(&request("/", first)).await;
        let answer = client.answer().await;
        assert_eq!(answer.header("Connection"), Some(connection), "HTTP/1.{first}");
        match second {
            Some(second) => {
                client.write(&request("/", second)).await;
                assert_eq!(client.answer().await.status, 200);
            }
            None => assert_eq!(client.rest().await, ""),
        }
    }
    // A second request at once: the answer says that it is not served.
    let mut client = gateway.client().await;
    client.write(&[request("/", new), request("/", new)].concat()).await;
    assert_eq!(client.answer().await.header("Connection"), Some("close"));
    assert_eq!(client.rest().await, "");
    // After the answer's head has promised that the connection stays, it is.
    for version in [new, kept] {
        let mut client = gateway.client().await;
        client.write(&request("/slow", version)).await;
        client.until("\r\n\r\na").await;
        let path = format!("/{}", "x".repeat(2000));
        client.write(&request(&path, version)).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        gate.open();
        let answers = [client.answer().await, client.answer().await];
        assert_eq!(answers.each_ref().map(|answer| answer.text()), ["ab", "ok"]);
        assert!(a.seen().last().unwrap().head.starts_with(&format!("GET {path} ")), "whole");
    }
}

#[tokio::test]
async fn admin_answers_say_what_becomes_of_the_connection() {
    let a = Scripted::ok("a").await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut client = Client::connect(gateway.admin).await;
    client.write(b"GET /livez HTTP/1.0\r\n\r\n").await;
    let all = client.rest().await;
    assert!(all.contains("Connection: close\r\n") && all.ends_with("alive\n"), "{all}");
}

/// An HTTP/1.1 server on a Unix socket.
fn on_socket() -> (PathBuf, Arc<Mutex<Vec<String>>>) {
    let path = file("").with_extension("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = socket.read(&mut bytes).await {
                    let head = String::from_utf8_lossy(&bytes[..length]).into_owned();
                    let body: &[u8] = if head.contains("/slots") { b"[{\"is_processing\":true}]" } else { b"{}" };
                    seen.lock().push(head);
                    socket.write_all(&answer(200, "Content-Type: application/json\r\n", body)).await.unwrap();
                }
            });
        }
    });
    (path, heads)
}

#[tokio::test]
async fn unix_socket_is_a_backend_like_any_other() {
    let (path, heads) = on_socket();
    let url = format!("unix:{}", path.display());
    let setup = Setup::new().backend_with("a", &url, "server: llama_server").pool("signals: { interval: 100ms }");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.send(&Req::post("/v1/chat/completions", b"{}")).await.outcome(), "a balanced 200");
    }
    assert_eq!(gateway.backend("a").await["url"], url);
    until("its load is asked for", || {
        heads.lock().iter().any(|head| head.contains("/metrics") || head.contains("/slots"))
    })
    .await;
    let probe = heads.lock().iter().find(|head| head.starts_with("GET /health")).cloned().unwrap();
    assert_eq!(header_of(&probe, "Host"), Some("localhost"));
    gateway.until_idle().await;

    let missing = format!("unix:{}.gone", path.display());
    let gateway = Setup::new().backend("a", &missing).health("interval: 20ms, type: tcp").start_cold().await;
    gateway.until_state("a", "unhealthy").await;
    let error = gateway.backend("a").await["last_error"].to_string();
    assert!(error.contains("No such file or directory"), "{error}");
    assert_eq!(gateway.send(&Req::get("/")).await.status, 502);
}

#[tokio::test]
async fn backend_gets_its_own_headers() {
    let (a, b) = (Scripted::ok("a").await, Scripted::ok("b").await);
    let with =
        |rank: &str| format!("server: generic, headers: {{ X-Data-Parallel-Rank: {rank}, api-key: top-secret }}");
    let setup = |rank| {
        let setup = Setup::new().one_probe().backend_with("a", &a.url(), &with(rank));
        setup.backend("b", &b.url())
    };
    let gateway = setup("3").start().await;
    let req = |name: &str| {
        let req = Req::get("/").session(&gateway.session_of(name)).header("x-data-parallel-rank", "9");
        req.header("Api-Key", "of-the-client").header("X-Other", "kept")
    };
    assert_eq!((gateway.send(&req("a")).await.backend(), gateway.send(&req("b")).await.backend()), ("a", "b"));
    let [seen_a, seen_b] = [a.seen().remove(0), b.seen().remove(0)];
    assert_eq!((seen_a.header("X-Data-Parallel-Rank"), seen_a.count("X-Data-Parallel-Rank")), (Some("3"), 1));
    assert_eq!((seen_a.header("Api-Key"), seen_a.count("Api-Key")), (Some("top-secret"), 1));
    assert_eq!((seen_b.header("X-Data-Parallel-Rank"), seen_b.header("Api-Key")), (Some("9"), Some("of-the-client")));
    assert_eq!((seen_a.header("X-Other"), seen_b.header("X-Other")), (Some("kept"), Some("kept")));

    let reload = gateway.reload(&setup("4")).await;
    assert_eq!(reload.status, 200);
    gateway.send(&req("a")).await;
    assert_eq!(a.seen().last().unwrap().header("X-Data-Parallel-Rank"), Some("4"));
    let shown = [reload.text(), gateway.admin_get("/backends").await.text(), gateway.admin_get("/status").await.text()];
    assert!(shown.iter().all(|text| !text.contains("top-secret")), "{shown:?}");
}

#[tokio::test]
async fn probe_has_the_headers_of_its_backend() {
    let (path, heads) = on_socket();
    let more = "server: generic, headers: { X-Gate: open }";
    let gateway = Setup::new().backend_with("a", &format!("unix:{}", path.display()), more).start().await;
    assert_eq!(header_of(&heads.lock()[0], "X-Gate"), Some("open"));
    drop(gateway);
}

#[test]
fn bad_headers_of_a_backend_are_errors_without_values() {
    for (headers, expected) in [
        ("{ Connection: top-secret }", "headers.Connection: belongs to one connection"),
        ("{ Host: top-secret }", "headers.Host: is a header that ingle sets itself"),
        ("{ X-Ingle-Backend: top-secret }", "headers.X-Ingle-Backend: is a header that ingle sets itself"),
        ("{ authorization: top-secret }", "headers.authorization: belongs in `api_key_file`"),
        ("{ X-A: \"top-secret\\n\" }", "headers.X-A: has a value that"),
        ("{ X-A: [top-secret] }", "headers.X-A: is not text"),
        ("{ \"X A\": top-secret }", "headers.X A: is not the name of a header"),
        ("{ X-A: one, x-a: top-secret }", "headers.x-a: is given twice"),
        ("top-secret", "headers: must be a map"),
    ] {
        let yaml = Setup::new().backend_with("a", "http://127.0.0.1:1", &format!("headers: {headers}")).yaml();
        let output = run(&["check", "--config", file(&yaml).to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(2) && said.contains(expected), "{headers}: {said}");
        assert!(!said.contains("top-secret"), "{said}");
    }
}

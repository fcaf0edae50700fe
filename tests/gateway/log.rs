//! The access log and the log of the process, as they come out of standard error.

use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Client, Req};
use crate::h2c::H2c;
use crate::harness::{Setup, sims, until};
use crate::process::Process;
use crate::scripted::{Scripted, Step, chunk, stream_head};

async fn access_line(process: &Process, path: &str) -> Value {
    process.until_line(|line| line["path"] == path).await
}

/// Waits until both backends serve.
async fn until_healthy(process: &Process, count: usize) {
    for i in 0..count {
        let name = ["a", "b"][i];
        process.until_line(|line| line["backend"] == name && line["to"] == "healthy").await;
    }
}

#[tokio::test]
async fn one_json_line_for_each_request_says_what_became_of_it() {
    let (a, b) = (Scripted::start(|_| vec![Step::Close]).await, Scripted::ok("hello").await);
    let setup = Setup::new().backend("a", &a.url()).backend("b", &b.url()).top("access_log: json");
    let process = Process::start(&setup.yaml()).await;
    until_healthy(&process, 2).await;
    let order = Client::connect(process.admin).await.send(&Req::get("/explain?session=s")).await.json();
    let (home, attempts) = (order["home"].as_str().unwrap(), if order["home"] == "a" { 2 } else { 1 });
    let req = Req::post("/v1/x?key=secret", b"12345").session("s").header("X-Request-Id", "mine");
    assert_eq!(Client::connect(process.address).await.send(&req).await.backend(), "b");

    let line = access_line(&process, "/v1/x").await;
    assert_eq!((&line["method"], &line["status"], &line["pool"]), (&"POST".into(), &200.into(), &"main".into()));
    assert_eq!((&line["backend"], &line["attempts"]), (&"b".into(), &attempts.into()));
    assert_eq!(line["affinity"], if home == "a" { "failover" } else { "home" });
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &5.into()));
    assert!(line["first_byte_ms"].is_u64() && line["total_ms"].is_u64());
    assert_eq!((&line["session"], &line["request_id"]), (&order["session_hash"], &"mine".into()));
    assert_eq!(line["error"], Value::Null);
    assert!(humantime::parse_rfc3339(line["time"].as_str().unwrap()).is_ok());
    assert!(process.lines().iter().all(|line| !line.contains("secret")), "the query may hold secrets");
}

#[tokio::test]
async fn the_gateways_own_answers_and_clients_that_left_are_logged_too() {
    let silent = || vec![Step::Send(stream_head()), Step::Send(chunk(b"12345")), Step::Hang];
    let a = Scripted::start(move |_| silent()).await;
    let setup = Setup::new().backend("a", &a.url()).top("access_log: json").top("limits: { max_body: 1KiB }");
    let process = Process::start(&setup.yaml()).await;
    until_healthy(&process, 1).await;
    Client::connect(process.address).await.send(&Req::post("/large", &[b'x'; 2000])).await;
    let line = access_line(&process, "/large").await;
    assert_eq!((&line["status"], &line["backend"], &line["attempts"]), (&413.into(), &Value::Null, &0.into()));
    assert_eq!(line["error"], "body_too_large");

    let mut client = Client::connect(process.address).await;
    client.write(&Req::get("/left").bytes()).await;
    client.until("12345").await;
    drop(client);
    let line = access_line(&process, "/left").await;
    assert_eq!((&line["status"], &line["backend"], &line["bytes_out"]), (&499.into(), &"a".into(), &5.into()));
    assert_eq!((&line["affinity"], &line["session"]), (&"balanced".into(), &Value::Null));
    until("a is rid of it", || a.left().len() == 1).await;
}

#[tokio::test]
async fn people_get_a_line_that_they_can_read() {
    let sims = sims(1).await;
    let process = Process::start(&Setup::new().sims(&sims).top("access_log: human").yaml()).await;
    until_healthy_by_metrics(&process).await;
    Client::connect(process.address).await.send(&Req::get("/v1/models").session("s")).await;
    until("it is logged", || process.lines().iter().any(|line| line.contains(" GET /v1/models 200 "))).await;
    let line = process.lines().into_iter().find(|line| line.contains(" GET /v1/models ")).unwrap();
    for part in ["backend=a", "affinity=home", "attempts=1", "in=0", "session=", "id="] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// The log is not all JSON then.
async fn until_healthy_by_metrics(process: &Process) {
    loop {
        let all = Client::connect(process.admin).await.send(&Req::get("/backends")).await.json();
        if all["backends"][0]["state"] == "healthy" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn without_an_access_log_requests_leave_no_line_and_changes_of_state_do() {
    let sims = sims(1).await;
    let process = Process::start(&Setup::new().sims(&sims).yaml()).await;
    until_healthy(&process, 1).await;
    Client::connect(process.address).await.send(&Req::get("/v1/models").session("my-secret-session")).await;
    sims[0].kill().await;
    let line = process.until_line(|line| line["backend"] == "a" && line["to"] == "unhealthy").await;
    assert_eq!((&line["from"], &line["pool"], &line["level"]), (&"healthy".into(), &"main".into(), &"WARN".into()));
    assert_eq!(line["cause"], "probe_failed");
    assert_eq!(line["last_error"], "probe: connection refused");
    assert!(process.lines().iter().all(|line| !line.contains("/v1/models") && !line.contains("my-secret")));
}

#[tokio::test]
async fn not_even_the_most_verbose_log_has_sessions_or_keys() {
    let (a, b) = (Scripted::start(|_| vec![Step::Close]).await, Scripted::ok("b").await);
    let yaml = Setup::new().one_probe().backend("a", &a.url()).backend("b", &b.url()).yaml();
    let process = Process::start_with(&yaml, &["-vv"]).await;
    until_healthy(&process, 2).await;
    let req =
        Req::post("/v1/completions", b"{}").session("my-private-session").header("Authorization", "Bearer my-key");
    for _ in 0..4 {
        assert_eq!(Client::connect(process.address).await.send(&req).await.status, 200);
    }
    let http2 = H2c::connect(process.address).await;
    assert_eq!(http2.send(&req, true).await.status(), 200);
    drop(http2);
    process.signal(Signal::TERM);
    process.until_line(|line| line["message"] == "drained, ingle ends").await;
    assert!(process.log().iter().any(|line| line["level"] == "DEBUG"), "it is verbose: {:#?}", process.lines());
    for line in process.lines() {
        assert!(!line.contains("my-private") && !line.contains("my-key"), "{line}");
    }
}

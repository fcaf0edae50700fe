//! When the gateway itself runs out of something: what is new is refused early, what runs goes on, nobody is blamed.

use std::process::Command;

use ingle::config::memory::{OF_CONNECTION, OF_HTTP2, OF_REQUEST};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::client::{Answer, Client, Req};
use crate::h2c::H2c;
use crate::harness::{Gateway, Setup, file, noise, sum, until};
use crate::process::{BINARY, Process};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, stream_head};

/// A backend whose streams have two pieces, the second when the gate opens; `/quick` is answered at once, and closed.
async fn gated(gate: &Gate) -> Scripted {
    let gate = gate.clone();
    Scripted::start(move |seen| {
        if seen.head.starts_with("GET /quick ") {
            return vec![Step::Send(answer(200, "Connection: close\r\n", b"quick")), Step::Close];
        }
        let rest = [chunk(b"two"), chunk(b"")].concat();
        vec![Step::Send(stream_head()), Step::Send(chunk(b"one")), Step::Wait(gate.clone()), Step::Send(rest)]
    })
    .await
}

async fn begin(mut client: Client) -> Client {
    client.write(&Req::post("/v1/chat/completions", b"{}").bytes()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.chunk().await.unwrap(), b"one");
    client
}

async fn ends_well(client: &mut Client) {
    assert_eq!((client.chunk().await.unwrap(), client.chunk().await.unwrap()), (b"two".to_vec(), Vec::new()));
}

fn overloaded(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    assert!(answer.whole && answer.header("Retry-After").is_some());
}

async fn with_memory(bytes: usize, gate: &Gate) -> (Gateway, Scripted) {
    let a = gated(gate).await;
    let setup = Setup::new().unbounded().backend("a", &a.url());
    (setup.top(&format!("limits: {{ memory: {bytes}B }}")).start().await, a)
}

async fn refused_for_memory(gateway: &Gateway) -> f64 {
    gateway.metric("ingle_refused_total", &[("reason", "memory")]).await
}

#[tokio::test]
async fn beyond_the_memory_a_request_is_refused_before_its_body_and_streams_go_on() {
    let gate = Gate::new();
    let stream = OF_CONNECTION + OF_REQUEST;
    let (gateway, a) = with_memory(10 * stream + OF_CONNECTION, &gate).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(begin(gateway.client().await).await);
    }
    let mut late = gateway.client().await;
    late.write(&Req::post("/", &noise(200_000)).head()).await;
    overloaded(&late.answer().await);
    assert!(gateway.inner.memory() <= 10 * stream + OF_CONNECTION, "who is only told so counts as little");
    drop(late);
    until("only the streams are left", || gateway.inner.connections.get() == 10).await;
    assert_eq!(gateway.inner.memory(), 10 * stream);
    assert_eq!(gateway.metric("ingle_memory_accounted_bytes", &[]).await, (10 * stream) as f64);
    assert_eq!((refused_for_memory(&gateway).await, a.count()), (1.0, 10));

    (0..10).for_each(|_| gate.open());
    for client in &mut streams {
        ends_well(client).await;
    }
    assert_eq!(gateway.send(&Req::get("/quick")).await.status, 200);
    drop(streams);
    until("everything is given back", || gateway.inner.memory() == 0).await;
    assert_eq!(gateway.state("a"), "healthy");
}

#[tokio::test]
async fn beyond_the_memory_a_connection_is_turned_away() {
    let (gateway, _a) = with_memory(112 * OF_CONNECTION + OF_REQUEST, &Gate::new()).await;
    let most = (112 * OF_CONNECTION + OF_REQUEST) / OF_CONNECTION;
    let mut idle = Vec::new();
    for count in 1..=most {
        idle.push(gateway.client().await);
        until("it is counted", || gateway.inner.connections.get() == count).await;
    }
    let mut late = gateway.client().await;
    overloaded(&late.answer().await);
    assert_eq!(late.rest().await, "");
    idle.truncate(1);
    until("there is room", || gateway.inner.connections.get() == 1).await;
    assert_eq!(idle[0].send(&Req::get("/quick")).await.status, 200);
    assert_eq!(refused_for_memory(&gateway).await, 1.0);
}

#[tokio::test]
async fn a_body_that_the_memory_cannot_hold_passes_unheld() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Scripted::start(move |_| vec![Step::Wait(held.clone()), Step::Send(answer(200, "", b"a"))]).await;
    let limits = format!("limits: {{ memory: {}B }}", (1 << 20) + OF_CONNECTION + OF_REQUEST);
    let gateway = Setup::new().backend("a", &a.url()).top(&limits).start().await;
    let (fits, does_not) = (noise(1 << 20), noise((1 << 20) + 1));
    for (req, is_held) in [
        (Req::post("/", &fits), true),
        (Req::post("/", &does_not), false),
        (Req::post("/", &fits).chunked(5000), true),
        (Req::post("/", &noise(3 << 20)).chunked(5000), false),
    ] {
        let before = a.count();
        let mut client = gateway.client().await;
        client.write(&req.bytes()).await;
        until("all of it is there", || a.count() > before).await;
        let bodies = gateway.inner.bodies.get();
        assert!(bodies == if is_held { req.body.len() } else { 0 } || !is_held && req.chunk.is_some(), "{bodies}");
        assert!(a.seen().last().unwrap().body == req.body);
        gate.open();
        assert_eq!(client.answer().await.outcome(), "a balanced 200");
        drop(client);
        until("everything is given back", || gateway.inner.memory() == 0).await;
    }
    assert_eq!(refused_for_memory(&gateway).await, 0.0);
}

#[tokio::test]
async fn over_http2_streams_beyond_the_memory_are_refused_one_by_one() {
    let gate = Gate::new();
    let own = OF_CONNECTION + OF_HTTP2;
    let (gateway, a) = with_memory(own + 8 * OF_REQUEST, &gate).await;
    let client = H2c::connect(gateway.address).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(client.begin(&Req::post("/v1/chat/completions", b"{}")).await);
    }
    let refused = client.send(&Req::post("/", b"{}"), true).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!((streams.len(), a.count(), refused_for_memory(&gateway).await), (8, 8, 1.0));
    (0..8).for_each(|_| gate.open());
    for stream in streams {
        let mut body = stream.into_body();
        let mut all = Vec::new();
        while let Some(piece) = body.data().await {
            all.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(all, b"onetwo");
    }
    until("the streams are given back", || gateway.inner.memory() == own).await;
}

async fn health(process: &Process) -> (serde_json::Value, serde_json::Value) {
    let backends = Client::connect(process.admin).await.send(&Req::get("/backends")).await.json();
    (backends["backends"][0]["state"].clone(), backends["backends"][0]["last_error"].clone())
}

async fn metric(process: &Process, family: &str, label: (&str, &str)) -> f64 {
    sum(&Client::connect(process.admin).await.send(&Req::get("/metrics")).await.text(), family, &[label])
}

/// A process that may have 80 descriptors, and how many clients with a request it says that they suffice for.
async fn with_few_descriptors(backend: &Scripted) -> (Process, usize) {
    let config = file(&Setup::new().unbounded().backend("a", &backend.url()).yaml());
    let mut command = Command::new("sh");
    let script = "ulimit -n 80 && exec \"$0\" --log-format json run --config \"$1\"";
    command.args(["-c", script, BINARY]).arg(&config);
    let process = Process::spawn(command, config).await;
    let told = |line: &serde_json::Value| {
        line["message"].as_str().is_some_and(|text| text.starts_with("the limit of open files allows"))
    };
    let line = process.until_line(told).await;
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("limits.max_connections") && message.contains("LimitNOFILE="), "{message}");
    let allowed = message.split(' ').find_map(|word| word.parse().ok()).unwrap();
    (process, allowed)
}

#[tokio::test]
async fn where_the_system_allows_few_descriptors_connections_are_turned_away_and_streams_go_on() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let (process, allowed) = with_few_descriptors(&a).await;
    assert!((5..40).contains(&allowed), "{allowed}");

    let mut streams = Vec::new();
    for _ in 0..allowed {
        streams.push(begin(Client::connect(process.address).await).await);
    }
    for _ in 0..20 {
        overloaded(&Client::connect(process.address).await.answer().await);
    }
    assert_eq!(health(&process).await, ("healthy".into(), ().into()), "admins are served, and probes go on");
    assert_eq!(metric(&process, "ingle_refused_total", ("reason", "descriptors")).await, 20.0);
    (0..allowed).for_each(|_| gate.open());
    for client in &mut streams {
        ends_well(client).await;
    }
    drop(streams.pop());
    let begun = std::time::Instant::now();
    while Client::connect(process.address).await.send(&Req::get("/quick")).await.status != 200 {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "there is room again");
    }
    let more = Setup::new().unbounded().backend("a", &a.url()).backend("b", &a.url()).yaml();
    std::fs::write(&process.config, more).unwrap();
    let reload = Client::connect(process.admin).await.send(&Req::post("/reload", b"")).await;
    assert_eq!(reload.status, 200, "{}", reload.text());
    assert_eq!(process.count("the limit of open files allows"), 1, "said once");
    assert_eq!(metric(&process, "ingle_health_transitions_total", ("to", "unhealthy")).await, 0.0);
}

#[tokio::test]
async fn silent_connections_take_one_descriptor_each_and_leave_some_for_requests() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let (process, each_with_a_request) = with_few_descriptors(&a).await;
    let connections = async || metric(&process, "ingle_memory_accounted_bytes", ("of", "connections")).await;
    let one = {
        let _client = Client::connect(process.address).await;
        until_async("it is counted", async || connections().await > 0.0).await;
        connections().await
    };
    until_async("it has left", async || connections().await == 0.0).await;

    let mut silent = Vec::new();
    while metric(&process, "ingle_refused_total", ("reason", "descriptors")).await == 0.0 {
        silent.push(Client::connect(process.address).await);
        let seen = async || {
            connections().await == one * silent.len() as f64
                || metric(&process, "ingle_refused_total", ("reason", "descriptors")).await > 0.0
        };
        until_async("it was let in or refused", seen).await;
    }
    silent.pop();
    assert!(silent.len() > each_with_a_request, "{} of {each_with_a_request}", silent.len());
    let room = 2 * each_with_a_request - silent.len();
    let mut streams = Vec::new();
    for client in silent.drain(..room) {
        streams.push(begin(client).await);
    }
    assert!(!silent.is_empty());
    overloaded(&silent[0].send(&Req::post("/v1/chat/completions", b"{}")).await);
    (0..room).for_each(|_| gate.open());
    for client in &mut streams {
        ends_well(client).await;
    }
    assert_eq!(silent[1].send(&Req::get("/quick")).await.status, 200, "there is room again");
    assert_eq!(health(&process).await, ("healthy".into(), ().into()));
}

/// Waits until a condition holds that has to be asked for.
async fn until_async(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "not in time: {what}");
    }
}

/// From now on the process gets no descriptor that it does not have already, or as many as it may again.
fn limit_descriptors(process: &Process, none: bool) {
    let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap());
    // Its hard limit is this process's, which it has inherited.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = if none { Some(3) } else { maximum };
    prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

#[tokio::test]
async fn without_descriptors_accepting_pauses_streams_go_on_and_no_backend_is_blamed() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let process = Process::start(&Setup::new().unbounded().backend("a", &a.url()).yaml()).await;
    let mut streams = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..5 {
        streams.push(begin(Client::connect(process.address).await).await);
        let mut client = Client::connect(process.address).await;
        assert_eq!(client.send(&Req::get("/quick")).await.status, 200);
        kept.push(client);
    }
    limit_descriptors(&process, true);
    process.until_count("not probed: the gateway lacks", 5).await;
    for client in &mut kept {
        overloaded(&client.send(&Req::post("/v1/chat/completions", b"{}")).await);
    }
    // The kernel takes the connection; the gateway can't.
    let mut waiting = Client::connect(process.address).await;
    waiting.write(&Req::get("/quick").bytes()).await;
    (0..5).for_each(|_| gate.open());
    for client in &mut streams {
        ends_well(client).await;
    }
    process.until_count("not probed: the gateway lacks", 10).await;

    limit_descriptors(&process, false);
    assert_eq!(waiting.answer().await.status, 200, "accepting goes on by itself");
    assert_eq!(health(&process).await, ("healthy".into(), ().into()));
    assert_eq!(metric(&process, "ingle_health_transitions_total", ("to", "unhealthy")).await, 0.0);
    assert!(metric(&process, "ingle_refused_total", ("reason", "descriptors")).await >= 5.0);
    assert!(process.count("Accept() failed") < 10, "no busy loop: {:#?}", process.lines());
}

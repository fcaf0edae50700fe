//! Thousands of streams at once.

use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use crate::client::{Client, Req};
use crate::harness::{Setup, sum, until};
use crate::process::Process;
use crate::scripted::{Gate, Scripted, Step, chunk, stream_head};

/// How many streams this machine allows: each has two ends in the gateway's process and two in this one.
fn streams() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).unwrap();
    let most = limit.maximum.map_or(5000, |maximum| usize::try_from(maximum).unwrap().saturating_sub(1000) / 2);
    assert!(most >= 1000, "too few open files are allowed here: {limit:?}");
    most.min(5000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_streams_are_open_at_once_and_none_is_broken() {
    let streams = streams();
    let gate = Gate::new();
    let mut backends = Vec::new();
    let mut setup = Setup::new().unbounded().health("interval: 1s, timeout: 20s");
    for name in ["a", "b", "c"] {
        let gate = gate.clone();
        let backend = Scripted::start(move |_| {
            let mut steps = vec![Step::Send(stream_head())];
            for i in 0..10 {
                steps.push(Step::Send(chunk(format!("data: {i}\n\n").as_bytes())));
                steps.extend((i == 4).then(|| Step::Wait(gate.clone())));
            }
            steps.push(Step::Send(chunk(b"")));
            steps
        })
        .await;
        setup = setup.backend(name, &backend.url());
        backends.push(backend);
    }
    let process = Process::start(&setup.yaml()).await;
    for name in ["a", "b", "c"] {
        process.until_line(|line| line["backend"] == name && line["to"] == "healthy").await;
    }
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for i in 0..streams {
        let address = process.address;
        tasks.spawn(async move {
            let mut client = Client::connect(address).await;
            let answer = client.send(&Req::post("/v1/chat/completions", b"{}").session(&format!("s{i}"))).await;
            answer.status == 200 && answer.whole && answer.body == whole()
        });
    }
    until("all are open", || backends.iter().map(Scripted::count).sum::<usize>() == streams).await;
    let metrics_now = metrics(&process).await;
    assert_eq!(sum(&metrics_now, "ingle_in_flight_requests", &[]), streams as f64, "at once");
    println!("{streams} streams open after {:?}", begun.elapsed());
    (0..streams).for_each(|_| gate.open());
    let mut good = 0;
    while let Some(stream) = tasks.join_next().await {
        good += usize::from(stream.unwrap());
    }
    println!("all over after {:?}", begun.elapsed());
    assert_eq!(good, streams);
    let metrics = loop {
        let metrics = metrics(&process).await;
        // The client may see the end of its stream before the gateway is done with it.
        if sum(&metrics, "ingle_in_flight_requests", &[]) == 0.0 {
            break metrics;
        }
    };
    let at_home = [("affinity", "home"), ("code", "2xx")];
    assert_eq!(sum(&metrics, "ingle_requests_total", &at_home), streams as f64);
    assert_eq!(sum(&metrics, "ingle_retries_total", &[]), 0.0);
}

async fn metrics(process: &Process) -> String {
    Client::connect(process.admin).await.send(&Req::get("/metrics")).await.text()
}

fn whole() -> Vec<u8> {
    (0..10).flat_map(|i| format!("data: {i}\n\n").into_bytes()).collect()
}

//! Another process takes over; sockets from systemd, and what it is told.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::client::{Client, Req};
use crate::harness::{PATIENCE, Setup, sum, until};
use crate::process::{BINARY, Process, file};
use crate::scripted::{Gate, Scripted, Step, answer, chunk, stream_head};

/// A backend that answers `GET /quick` at once and everything else with a stream that waits for the gate.
async fn gated(gate: &Gate) -> Scripted {
    let gate = gate.clone();
    Scripted::start(move |seen| match seen.head.starts_with("GET /quick ") {
        true => vec![Step::Send(answer(200, "", b"quick"))],
        false => vec![
            Step::Send([stream_head(), chunk(b"one")].concat()),
            Step::Wait(gate.clone()),
            Step::Send([chunk(b"two"), chunk(b"")].concat()),
        ],
    })
    .await
}

/// Another name for the binary, as package managers replace it.
fn link_to_binary() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("ingle-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    symlink(BINARY, &path).unwrap();
    path
}

async fn quick(process: &Process) -> String {
    Client::connect(process.address).await.send(&Req::get("/quick")).await.text()
}

#[tokio::test]
async fn streams_end_where_they_began_and_what_is_new_goes_to_the_new_process() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).backend("b", &a.url()).yaml()).await;
    for name in ["a", "b"] {
        process.until_line(|line| line["backend"] == name && line["to"] == "healthy").await;
    }
    let (mut running, mut kept) = (Client::connect(process.address).await, Client::connect(process.address).await);
    running.write(&Req::get("/").bytes()).await;
    running.head().await;
    assert_eq!(kept.send(&Req::get("/quick")).await.status, 200);
    let mut scraper = Client::connect(process.admin).await;
    assert_eq!(scraper.send(&Req::get("/readyz")).await.status, 200);
    let old = process.pid();
    let drain = Req::post("/backends/b/drain", b"");
    assert_eq!(Client::connect(process.admin).await.send(&drain).await.status, 200);
    process.upgrade().await;
    assert_ne!(process.pid(), old);
    let all = Client::connect(process.admin).await.send(&Req::get("/backends")).await.json();
    let drains: Vec<_> = all["backends"].as_array().unwrap().iter().map(|b| b["draining"].as_bool().unwrap()).collect();
    assert_eq!(drains, [false, true], "what was drained stays so");

    for _ in 0..20 {
        assert_eq!(quick(&process).await, "quick");
    }
    let last = kept.send(&Req::get("/quick")).await;
    assert_eq!((last.text().as_str(), last.header("Connection")), ("quick", Some("close")), "served once more");
    assert_eq!(kept.rest().await, "");
    let last = scraper.send(&Req::get("/readyz")).await;
    assert_eq!((last.status, last.header("Connection")), (200, Some("close")), "the service is ready");
    loop {
        let metrics = Client::connect(process.admin).await.send(&Req::get("/metrics")).await.text();
        match sum(&metrics, "ingle_requests_total", &[]) {
            20.0 => break,
            // A request is counted when it is over, which its client may know sooner.
            fewer => assert!(fewer < 20.0, "it counts anew: {fewer}"),
        }
    }
    gate.open();
    assert_eq!(running.chunk().await.unwrap(), b"one");
    assert_eq!(running.chunk().await.unwrap(), b"two");
    assert_eq!(running.chunk().await.unwrap(), b"");
    // It was not told that its connection closes, so it has the time to find out.
    drop(running);
    process.until_former_ended().await;
    assert_eq!(process.until_ended().await.code(), Some(0));
    assert_eq!(quick(&process).await, "quick");
    process.signal(Signal::TERM);
    process.until_last_ended().await;
}

#[tokio::test]
async fn a_new_process_that_fails_changes_nothing() {
    let gate = Gate::new();
    let a = gated(&gate).await;
    let config = file(&Setup::new().backend("a", &a.url()).yaml());
    let binary = link_to_binary();
    let mut command = Command::new(&binary);
    command.args(["--log-format", "json", "run", "--config"]).arg(&config);
    let mut process = Process::spawn(command, config.clone()).await;
    let mut kept = Client::connect(process.address).await;

    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, "listeners: [").unwrap();
    process.signal(Signal::USR2);
    let text = "not upgraded, this process goes on: it ended: exit status: 2";
    // The new process has no logger yet and prints its complaint as it is.
    until_text(&process, text).await;
    std::fs::write(&config, &good).unwrap();
    std::fs::remove_file(&binary).unwrap();
    process.signal(Signal::USR2);
    until_text(&process, "not upgraded, this process goes on: can't be started").await;
    symlink("/bin/false", &binary).unwrap();
    process.signal(Signal::USR2);
    until_text(&process, "not upgraded, this process goes on: it ended: exit status: 1").await;

    let answer = kept.send(&Req::get("/quick")).await;
    assert_eq!((answer.text().as_str(), answer.header("Connection")), ("quick", Some("keep-alive")));
    assert_eq!(quick(&process).await, "quick");
    drop(kept);
    std::fs::remove_file(&binary).unwrap();
    symlink(BINARY, &binary).unwrap();
    let old = process.pid();
    process.signal(Signal::USR2);
    let took_over = until_text(&process, "took over from the old process").await;
    assert_ne!(took_over["pid"].as_u64(), Some(u64::from(old)));
    assert_eq!(process.until_ended().await.code(), Some(0));
    process.succeeded_by(i32::try_from(took_over["pid"].as_i64().unwrap()).unwrap());
    assert_eq!(quick(&process).await, "quick");
}

/// Waits for a line with this text; lines that are no JSON are passed over.
async fn until_text(process: &Process, text: &str) -> serde_json::Value {
    let found = || process.lines().into_iter().find(|line| line.contains(text));
    until(text, || found().is_some()).await;
    serde_json::from_str(&found().unwrap()).unwrap()
}

#[tokio::test]
async fn a_new_process_takes_the_config_as_it_is_then() {
    let (a, b) = (Scripted::ok("a").await, Scripted::ok("b").await);
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listeners = [std::net::SocketAddr::from(([127, 0, 0, 1], 0)), free];
    std::fs::write(&process.config, Setup::new().listeners(&listeners).backend("b", &b.url()).yaml()).unwrap();
    process.upgrade().await;
    for address in [process.address, free] {
        assert_eq!(Client::connect(address).await.send(&Req::get("/")).await.outcome(), "b balanced 200");
    }
    std::fs::write(&process.config, Setup::new().listeners(&listeners[1..]).backend("b", &b.url()).yaml()).unwrap();
    process.upgrade().await;
    while TcpStream::connect(process.address).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(Client::connect(free).await.send(&Req::get("/")).await.status, 200);
}

#[tokio::test]
async fn sigterm_while_a_new_process_starts_ends_both() {
    let a = Scripted::ok("a").await;
    let mut process = Process::start(&Setup::new().backend("a", &a.url()).yaml()).await;
    process.signal(Signal::USR2);
    process.until_line(|line| line["message"] == "starting the program again, to hand over to it").await;
    process.signal(Signal::TERM);
    assert_eq!(process.until_ended().await.code(), Some(0));
    while TcpStream::connect(process.address).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn sockets_come_from_systemd() {
    let a = Scripted::ok("a").await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = file(&Setup::new().listeners(&[address]).backend("a", &a.url()).yaml());
    // The socket is the shell's standard input, and descriptor 3 of what it turns into.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --log-format json run --config \"$1\" 3<&0 </dev/null";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, BINARY]).arg(&config).stdin(Stdio::from(OwnedFd::from(socket)));
    let mut process = Process::spawn(command, config).await;
    assert_eq!(process.address, address);
    process.until_line(|line| line["backend"] == "a" && line["to"] == "healthy").await;
    assert_eq!(Client::connect(address).await.send(&Req::get("/")).await.outcome(), "a balanced 200");
    process.upgrade().await;
    process.until_former_ended().await;
    assert_eq!(Client::connect(address).await.send(&Req::get("/")).await.outcome(), "a balanced 200");
    process.signal(Signal::TERM);
    process.until_last_ended().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody holds the socket any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told() {
    let a = Scripted::ok("a").await;
    let path = file("").with_extension("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let len = systemd.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let config = file(&Setup::new().backend("a", &a.url()).yaml());
    let mut command = Command::new(BINARY);
    command.args(["--log-format", "json", "run", "--config"]).arg(&config).env("NOTIFY_SOCKET", &path);
    let mut process = Process::spawn(command, config).await;
    let told = tokio::task::block_in_place(next);
    assert_eq!(told, "READY=1");
    process.signal(Signal::HUP);
    let told = tokio::task::block_in_place(next);
    assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
    assert_eq!(tokio::task::block_in_place(next), "READY=1");
    process.upgrade().await;
    assert_eq!(tokio::task::block_in_place(next), format!("MAINPID={}\nREADY=1", process.pid()));
    process.until_former_ended().await;
    process.signal(Signal::TERM);
    assert_eq!(tokio::task::block_in_place(next), "STOPPING=1", "the old one has not said so: the service goes on");
}

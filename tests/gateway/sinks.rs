//! Where the gateway writes to: none of it blocks traffic, `/livez` or the end of the process.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

use crate::client::{Client, Req};
use crate::harness::{PATIENCE, Setup, file, nobody, sum, until};
use crate::process::BINARY;
use crate::scripted::Scripted;

/// A gateway whose standard error is not what the other tests have.
struct Unread {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Unread {
    fn spawn(setup: Setup, stderr: impl Into<Stdio>, more: impl FnOnce(&mut Command)) -> Unread {
        let [address, admin] = [free_address(), free_address()];
        let yaml = setup
            .listeners(&[address])
            .yaml()
            .replace("admin: { address: 127.0.0.1:0", &format!("admin: {{ address: {admin}"));
        let mut command = Command::new(BINARY);
        command.args(["--log-format", "json", "run", "--config"]).arg(file(&yaml)).stderr(stderr);
        more(&mut command);
        Unread { child: command.spawn().unwrap(), address, admin }
    }

    async fn until_ready(&self) {
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(self.admin).await.is_err() || self.get("/readyz").await != 200 {
            assert!(begun.elapsed() < PATIENCE, "it does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn get(&self, path: &str) -> u16 {
        Client::connect(self.admin).await.send(&Req::get(path)).await.status
    }

    async fn dropped(&self) -> f64 {
        let metrics = Client::connect(self.admin).await.send(&Req::get("/metrics")).await.text();
        sum(&metrics, "ingle_log_lines_dropped_total", &[])
    }

    /// How long it takes to end after a SIGTERM.
    async fn terminate(&mut self) -> Duration {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "it goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Sends requests that are worth a warning each.
async fn provoke(gateway: &Unread, count: usize) {
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..count {
        assert!(client.send(&Req::get("/v1/models")).await.status >= 500);
        client = Client::connect(gateway.address).await;
    }
}

/// No request can be served.
fn refused() -> Setup {
    Setup::new().backend("a", &nobody())
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_stderr_blocks_nothing() {
    let mut gateway = Unread::spawn(refused().top("access_log: json"), Stdio::piped(), |_| {});
    gateway.until_ready().await;
    provoke(&gateway, 2000).await;
    assert_eq!(gateway.get("/livez").await, 200);
    assert!(gateway.dropped().await > 0.0, "what does not fit is counted");

    // Who reads again gets whole lines, and is told of the loss.
    let mut stderr = BufReader::new(gateway.child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let lines = stderr.by_ref().lines().map_while(Result::ok);
        let lines = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
        let reports = |line: &serde_json::Value| {
            line["message"].as_str().is_some_and(|text| text.starts_with("log lines dropped"))
        };
        let report = lines.into_iter().find(reports).unwrap();
        (report["lines"].as_u64().unwrap(), stderr)
    });
    until("the loss is reported", || reader.is_finished()).await;
    let (lines, _stderr) = reader.join().unwrap();
    assert!(lines > 0);
    provoke(&gateway, 2000).await;
    let took = gateway.terminate().await;
    assert!(took < Duration::from_secs(5), "SIGTERM is obeyed although standard error is not read: {took:?}");
}

#[tokio::test]
async fn full_disk_costs_lines_and_no_request() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut gateway = Unread::spawn(refused(), full, |_| {});
    gateway.until_ready().await;
    provoke(&gateway, 20).await;
    let begun = Instant::now();
    while gateway.dropped().await < 20.0 {
        assert!(begun.elapsed() < PATIENCE, "lines that could not be written are counted");
    }
    assert!(gateway.terminate().await < Duration::from_secs(5));
}

#[tokio::test]
async fn slow_admin_clients_keep_nobody_out() {
    let a = Scripted::ok("a").await;
    let gateway = Setup::new().backend("a", &a.url()).start().await;
    let mut slow = Vec::new();
    for i in 0..200 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1024).unwrap();
        let mut client = Client::over(socket.connect(gateway.admin).await.unwrap());
        // Some send no request, some half of one, some do not read what they asked for.
        let sent: &[u8] = [&b""[..], b"GET /metrics HTT", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"][i % 3];
        client.write(sent).await;
        slow.push(client);
    }
    for path in ["/livez", "/readyz", "/metrics", "/backends"] {
        assert_eq!(gateway.admin_get(path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.send(&Req::get("/v1/models")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_notify_socket_delays_nothing_and_loses_nothing() {
    let path = file("").with_extension("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while filler.send_to(b"X=1", &path).is_ok() {
        filled += 1;
    }
    let a = Scripted::ok("a").await;
    let mut gateway = Unread::spawn(Setup::new().backend("a", &a.url()), Stdio::null(), |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    gateway.until_ready().await;
    until("it is healthy", || a.probes() > 0).await;
    assert_eq!(Client::connect(gateway.address).await.send(&Req::get("/v1/models")).await.status, 200);
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = tokio::task::block_in_place(|| systemd.recv(&mut buffer)).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    (0..filled).for_each(|_| assert_eq!(next(), "X=1"));
    assert_eq!(next(), "READY=1", "it was sent as soon as there was room");
    assert!(gateway.terminate().await < Duration::from_secs(5));
}

//! The least that a proxy on `pingora-proxy` can be, for `benches/proxy`:
//!
//! ```text
//! bare PORT BACKEND-PORT BACKEND-PORT [headers] [h2c | tls CERTIFICATE KEY]
//! bare --version
//! ```

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench that can't run prints why and ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::{HttpPeer, http_proxy};
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::listening::Service;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "--version") {
        println!("pingora-proxy {}", pingora_version());
        return;
    }
    let port = |index: usize| args.get(index).and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let address = format!("127.0.0.1:{}", port(0));
    let has = |word: &str| args.iter().any(|arg| arg == word);
    let bare = Bare { headers: has("headers"), backends: [port(1), port(2)], turn: AtomicUsize::new(0) };
    let mut service = service(bare, has("h2c"));
    match args.iter().position(|arg| arg == "tls") {
        None => service.add_tcp(&address),
        Some(at) => service.add_tls(&address, &args[at + 1], &args[at + 2]).expect("a certificate and its key"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_stop, stops) = tokio::sync::watch::channel(false);
        service.start_service(None, stops, 1).await;
    });
}

fn service(bare: Bare, h2c: bool) -> Service<pingora::proxy::HttpProxy<Bare>> {
    let conf = ServerConf { upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut proxy = http_proxy(&Arc::new(conf), bare);
    let mut options = HttpServerOptions::default();
    options.h2c = h2c;
    proxy.server_options = Some(options);
    Service::new("bare".to_owned(), proxy)
}

/// The version that Cargo chose.
fn pingora_version() -> &'static str {
    let package =
        include_str!("../Cargo.lock").split("[[package]]").find(|text| text.contains("name = \"pingora-proxy\""));
    package.and_then(|text| text.split("version = \"").nth(1)?.split('"').next()).unwrap_or("of an unknown version")
}

/// Two backends by turns. With `headers` it also adds the headers that ingle adds to requests and responses, so that the
/// rest of the difference is ingle's own logic.
struct Bare {
    headers: bool,
    backends: [u16; 2],
    turn: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % 2;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.backends[turn]));
        Ok(Box::new(HttpPeer::new(address, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        _ctx: &mut (),
    ) -> pingora::Result<()> {
        if self.headers {
            let client = session.client_addr().and_then(|address| address.as_inet()).expect("an address").ip();
            let request = session.req_header();
            let host = request.headers.get("host").map(|host| host.as_bytes());
            // HTTP/2 has an authority instead.
            let host = host.or_else(|| Some(request.uri.host()?.as_bytes())).unwrap_or_default().to_vec();
            upstream.insert_header("X-Forwarded-For", client.to_string())?;
            upstream.insert_header("X-Forwarded-Proto", "http")?;
            upstream.insert_header("X-Forwarded-Host", host)?;
            let turn = self.turn.load(Ordering::Relaxed);
            upstream.insert_header("X-Request-Id", format!("{turn:032x}"))?;
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> pingora::Result<()> {
        if self.headers {
            response.insert_header("X-Ingle-Backend", "127.0.0.1:8080")?;
            response.insert_header("X-Ingle-Affinity", "balanced")?;
        }
        Ok(())
    }
}

/// The allocator of the `ingle` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

//! The least that a proxy on `pingora-proxy` can be, for `benches/proxy`: `bare PORT BACKEND-PORT BACKEND-PORT [headers]`.

#![expect(clippy::expect_used, reason = "a bench that can't run says why and ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::{HttpPeer, http_proxy};
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::listening::Service;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let port = |index: usize| args.get(index).and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(port(1), [port(2), port(3)], args.len() > 4));
}

/// The least that a Pingora proxy can be: two backends by turns. With `headers` it also tells the backend and the
/// client what every proxy of ours and theirs tells them, so that the rest of the difference is our own logic.
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
            let host = session.req_header().headers.get("host").cloned().expect("a host");
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

async fn serve(port: u16, backends: [u16; 2], headers: bool) {
    let conf = ServerConf { upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let proxy = http_proxy(&Arc::new(conf), Bare { headers, backends, turn: AtomicUsize::new(0) });
    let mut service = Service::new("bare".to_owned(), proxy);
    service.add_tcp(&format!("127.0.0.1:{port}"));
    let (_stop, stops) = tokio::sync::watch::channel(false);
    service.start_service(None, stops, 1).await;
}

/// The allocator of the `ingle` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

//! A call with hyper's client under a tower layer, and one that names its session without any ambient state.
//!
//! Start a gateway on port 8080 (or set INGLE_URL), then:
//! `cargo run -p ingle-client --example hyper --features tower`

#![expect(clippy::print_stdout, reason = "it is what an example is for")]

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ingle_client::{Affinity, AffinityLayer, SessionExt, SessionId};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gateway = std::env::var("INGLE_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".into());
    let body = r#"{ "model": "default", "messages": [{ "role": "user", "content": "Tea or coffee?" }] }"#;
    let request = || {
        Request::post(format!("{gateway}/v1/chat/completions"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(body.as_bytes())))
    };

    // The affinity layer is the outermost: buffers and retries come after it.
    let client = ServiceBuilder::new()
        .layer(AffinityLayer::new(Affinity::for_origin(&gateway)?))
        .service(Client::builder(TokioExecutor::new()).build_http());

    let id = SessionId::new("chat-7")?;
    let ambient = client.clone().oneshot(request()?).in_session(id.clone()).await?;

    // A sub-agent's session, in the request itself.
    let mut explicit = request()?;
    explicit.extensions_mut().insert(id.child("agent-1")?);
    let explicit = client.oneshot(explicit).await?;

    for (what, answer) in [("conversation", ambient), ("sub-agent", explicit)] {
        println!("{what:12} {} {:?}", answer.status(), answer.headers().get("x-ingle-backend"));
    }
    Ok(())
}

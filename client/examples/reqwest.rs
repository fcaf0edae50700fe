//! Two turns of a conversation, a title and a spawned tool call with reqwest.
//!
//! Start a gateway on port 8080 (or set INGLE_URL), then:
//! `cargo run -p ingle-client --example reqwest --features reqwest-middleware,tokio`

#![expect(clippy::print_stdout, reason = "it is what an example is for")]

use ingle_client::{Affinity, AffinityMiddleware, SessionExt, SessionId, same_origin_redirects, spawn};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use serde_json::json;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let gateway = std::env::var("INGLE_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".into());
    let url = format!("{gateway}/v1/chat/completions");

    // Once, for the whole program.
    let http = reqwest::Client::builder().redirect(same_origin_redirects()).build()?;
    let client = ClientBuilder::new(http)
        .with(AffinityMiddleware::new(Affinity::for_origin(&gateway)?)) // retries come after it
        .build();

    // Per conversation: an id that stays the same from turn to turn.
    let id = SessionId::new("C99999/1708531200.000100")?;
    for question in ["Tea or coffee?", "Why?"] {
        let turn = async {
            ask(&client, &url, question).await?;
            // A task is polled by the runtime, outside of this future: spawn takes the session along.
            let (client, url) = (client.clone(), url.clone());
            spawn(async move { ask(&client, &url, "Which tool?").await }).await?
        };
        turn.in_session(id.clone()).await?;
    }
    ask(&client, &url, "A title for this chat?").without_session().await // goes to any GPU
}

/// Prints what the gateway says about where it sent the request.
async fn ask(client: &ClientWithMiddleware, url: &str, question: &str) -> Result<(), Error> {
    let body = json!({ "model": "default", "messages": [{ "role": "user", "content": question }] });
    let answer = client.post(url).json(&body).send().await?.error_for_status()?;
    let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("(not ingle)");
    println!("{question:24} {:12} {}", header("x-ingle-backend"), header("x-ingle-affinity"));
    Ok(())
}

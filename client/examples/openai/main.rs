//! A streamed turn and a title with async-openai. Copy `sticky.rs`.
//!
//! Start a gateway on port 8080 (or set INGLE_URL), then:
//! `cargo run -p ingle-client --example openai --features hash,reqwest`

#![expect(clippy::print_stdout, reason = "it is what an example is for")]

mod sticky;

use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
};
use futures_util::StreamExt;
use ingle_client::{Affinity, SessionExt, SessionId, same_origin_redirects};

use sticky::Sticky;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let gateway = std::env::var("INGLE_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".into());

    // Once, for the whole program. The affinity names the gateway, not the config's base URL: should that become
    // another server one day, no session goes there.
    let config = OpenAIConfig::new().with_api_base(format!("{gateway}/v1")).with_api_key("none");
    let http = reqwest::Client::builder().redirect(same_origin_redirects()).build()?;
    let client =
        async_openai::Client::with_config(Sticky::new(config, Affinity::for_origin(&gateway)?)?).with_http_client(http);

    // Per conversation. This one's name has umlauts and says who talks; on the wire it is a hash.
    let id = SessionId::hashed("Jörg Müller / Tee und Gebäck");
    let turn = async {
        // The request is made in this await; the stream only reads the answer.
        let mut answer = client.chat().create_stream(ask("Tea or coffee?")?).await?;
        while let Some(chunk) = answer.next().await {
            print!("{}", chunk?.choices.into_iter().filter_map(|c| c.delta.content).collect::<String>());
        }
        println!();

        // A sidecar call: it has a prompt of its own and must not push the conversation out of its cache.
        let title = client.chat().create(ask("A title for: tea or coffee?")?).without_session().await?;
        println!("title: {}", title.choices[0].message.content.as_deref().unwrap_or_default());
        Ok(())
    };
    turn.in_session(id).await
}

fn ask(text: &str) -> Result<CreateChatCompletionRequest, Error> {
    let message = ChatCompletionRequestUserMessageArgs::default().content(text).build()?;
    Ok(CreateChatCompletionRequestArgs::default().model("default").messages([message.into()]).build()?)
}

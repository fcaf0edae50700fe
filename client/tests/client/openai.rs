use async_openai::config::{Config, OpenAIConfig};
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
};
use futures_util::StreamExt;
use ingle_client::{Affinity, SessionExt};

use crate::server::Server;
use crate::{direct, id};

#[path = "../../examples/openai/sticky.rs"]
mod sticky;

use sticky::Sticky;

fn ask() -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default().content("hi").build().unwrap();
    CreateChatCompletionRequestArgs::default().model("m").messages([message.into()]).build().unwrap()
}

fn client(server: &Server, affinity: Affinity) -> async_openai::Client<impl Config> {
    let config = OpenAIConfig::new().with_api_base(server.url("/v1")).with_api_key("none");
    async_openai::Client::with_config(Sticky::new(config, affinity).unwrap())
        .with_http_client(direct().build().unwrap())
}

#[tokio::test]
async fn a_conversation_is_in_its_session_and_its_title_is_not() {
    let server = Server::start().await;
    let client = client(&server, Affinity::for_origin(server.url("")).unwrap());
    let turn = async {
        let mut stream = client.chat().create_stream(ask()).await.unwrap();
        let mut text = String::new();
        while let Some(chunk) = stream.next().await {
            text.extend(chunk.unwrap().choices.into_iter().filter_map(|c| c.delta.content));
        }
        let title = client.chat().create(ask()).without_session().await.unwrap();
        (text, title.choices[0].message.content.clone())
    };
    assert_eq!(turn.in_session(id("a")).await, ("hello".into(), Some("hello".into())));
    client.chat().create(ask()).await.unwrap();
    assert_eq!(server.sessions(), [Some("a".into()), None, None]);
}

#[tokio::test]
async fn another_base_url_gets_no_session() {
    let server = Server::start().await;
    let client = client(&server, Affinity::for_origin("http://gateway:8080").unwrap());
    client.chat().create(ask()).in_session(id("a")).await.unwrap();
    assert_eq!(server.sessions(), [None]);
}

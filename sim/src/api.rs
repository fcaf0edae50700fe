//! The APIs that generate text.

/// An API of the simulated servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's Chat Completions.
    #[default]
    Chat,
    /// OpenAI's Completions: a prompt without roles.
    Completions,
    /// Anthropic's Messages.
    Messages,
    /// OpenAI's Responses.
    Responses,
}

impl Api {
    /// All APIs.
    pub const ALL: [Api; 4] = [Api::Chat, Api::Completions, Api::Messages, Api::Responses];

    /// The path of its requests.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Api::Chat => "/v1/chat/completions",
            Api::Completions => "/v1/completions",
            Api::Messages => "/v1/messages",
            Api::Responses => "/v1/responses",
        }
    }

    /// The API whose requests have this path, without a query.
    #[must_use]
    pub fn of(path: &str) -> Option<Api> {
        Api::ALL.into_iter().find(|api| api.path() == path)
    }
}

//! Prompt and cached tokens, as backends report them. [`crate::api`] reads them.

/// What a backend said of one prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Those of them that were in the KV cache; at most `prompt`. `None` if there is no such figure: a vLLM without
    /// `--enable-prompt-tokens-details` never gives one, and one with it leaves it out where it is 0.
    pub cached: Option<u64>,
}

/// Prompt tokens of some requests, as they are counted: what a backend does not call cached was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All of them.
    pub prompt: u64,
    /// Those that were in the KV cache.
    pub cached: u64,
}

impl Usage {
    /// How it is counted.
    #[must_use]
    pub fn tokens(self) -> Tokens {
        Tokens { prompt: self.prompt, cached: self.cached.unwrap_or(0) }
    }
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Tokens) {
        self.prompt += other.prompt;
        self.cached += other.cached;
    }
}

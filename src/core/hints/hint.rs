//! What may be wrong, and what to do.

use super::super::pool::Reason;

/// A sign that affinity does less than it could; the label `hint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Most chat requests have no session.
    NoSession,
    /// Most session ids are used only once.
    SingleUseIds,
    /// One session id carries a large share of the traffic.
    HotSession,
    /// Sessions often find themselves on another backend than the turn before.
    SessionsMove,
    /// A backend never says how much of a prompt it had cached.
    NoCachedFigures,
    /// Sessions stay, and all the same next to nothing of their prompts is in the cache.
    LowReuse,
}

impl Hint {
    /// All hints, in the order in which metrics list them.
    pub const ALL: [Hint; 6] = [
        Hint::NoSession,
        Hint::SingleUseIds,
        Hint::HotSession,
        Hint::SessionsMove,
        Hint::NoCachedFigures,
        Hint::LowReuse,
    ];

    /// The name in metrics, logs and documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Hint::NoSession => "no_session",
            Hint::SingleUseIds => "single_use_ids",
            Hint::HotSession => "hot_session",
            Hint::SessionsMove => "sessions_move",
            Hint::NoCachedFigures => "no_cached_figures",
            Hint::LowReuse => "low_reuse",
        }
    }

    /// What an operator should do about it, in a sentence or two. `invalid`: most sessions that are missing came and are
    /// not valid.
    pub(super) fn advice(self, servers: Servers, invalid: bool) -> String {
        match self {
            Hint::NoSession if invalid => {
                "The clients do send a session, but it is longer than affinity.max_length, has \
                                           other characters than visible ASCII, or comes several times with different \
                                           values: see ingle_session_keys_total."
                    .to_owned()
            }
            Hint::NoSession => "Let the clients send one of affinity.headers, the same value with every turn of a \
                                conversation. Does a proxy before ingle drop the header?"
                .to_owned(),
            Hint::SingleUseIds => {
                "That looks like an id of the request, not of the conversation: send the conversation's \
                                   id, and take headers such as X-Request-Id out of affinity.headers."
                    .to_owned()
            }
            Hint::HotSession => "All of it goes to one backend. An id that many share, or that stands in a client's \
                                 settings, should become one for each conversation."
                .to_owned(),
            Hint::SessionsMove => "Each move computes a whole prompt again. unhealthy: why do backends fail? balance, \
                                   max_in_flight, slow_start, faster: more room at home means fewer moves. returned: \
                                   return_home: when_idle."
                .to_owned(),
            Hint::NoCachedFigures => servers.how_to_report(),
            Hint::LowReuse => servers.how_to_reuse(),
        }
    }
}

/// The kinds of servers that a hint is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Servers {
    /// llama-server is among them.
    pub llama_server: bool,
    /// vLLM is among them.
    pub vllm: bool,
    /// Others are among them.
    pub other: bool,
}

impl Servers {
    /// How these servers report what they had cached.
    fn how_to_report(self) -> String {
        let mut advice = String::from("Let streams ask for stream_options.include_usage.");
        if self.llama_server {
            advice.push_str(" Update llama-server: older ones do not report what was cached.");
        }
        if self.vllm {
            advice.push_str(" Start vLLM with --enable-prompt-tokens-details.");
        }
        if self.other {
            advice.push_str(" Let the server report usage.prompt_tokens_details.cached_tokens, if it can.");
        }
        if self.vllm {
            advice.push_str(" If all of that is so, its cache never had anything: see low_reuse.");
        }
        advice
    }

    /// What keeps these servers from finding prompts in their caches.
    fn how_to_reuse(self) -> String {
        let off = match (self.llama_server, self.vllm) {
            (true, false) => " (--no-cache-prompt)",
            (false, true) => " (--no-enable-prefix-caching)",
            (true, true) => " (--no-cache-prompt, --no-enable-prefix-caching)",
            (false, false) => "",
        };
        format!(
            "Look for what changes at the front of the prompts (a date, the order of tools, a client's own header block), \
             for caches too small for their sessions, and for caching that is off{off}."
        )
    }
}

/// Why a session's turn was not on the backend of the turn before; the label `reason` of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// That backend was not healthy.
    Unhealthy,
    /// It was draining.
    Draining,
    /// An attempt there had failed.
    Tried,
    /// It had as many requests as it may.
    MaxInFlight,
    /// It had too many compared with the others.
    Balance,
    /// It had just come back.
    SlowStart,
    /// Another one was expected to answer sooner.
    Faster,
    /// It left requests without output for far longer than others did.
    Stalled,
    /// The session went home, although its cache was elsewhere.
    Returned,
}

impl From<Reason> for Move {
    fn from(reason: Reason) -> Move {
        match reason {
            Reason::Unhealthy => Move::Unhealthy,
            Reason::Draining => Move::Draining,
            Reason::Tried => Move::Tried,
            Reason::MaxInFlight => Move::MaxInFlight,
            Reason::Balance => Move::Balance,
            Reason::SlowStart => Move::SlowStart,
            Reason::Faster => Move::Faster,
            Reason::Stalled => Move::Stalled,
        }
    }
}

impl Move {
    /// All reasons, in the order in which metrics list them.
    pub const ALL: [Move; 9] = [
        Move::Unhealthy,
        Move::Draining,
        Move::Tried,
        Move::MaxInFlight,
        Move::Balance,
        Move::SlowStart,
        Move::Faster,
        Move::Stalled,
        Move::Returned,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Move::Unhealthy => "unhealthy",
            Move::Draining => "draining",
            Move::Tried => "tried",
            Move::MaxInFlight => "max_in_flight",
            Move::Balance => "balance",
            Move::SlowStart => "slow_start",
            Move::Faster => "faster",
            Move::Stalled => "stalled",
            Move::Returned => "returned",
        }
    }
}

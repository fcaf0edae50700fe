//! The labels that are enums of the shell; those of the core's enums are in the core.

/// A status class; the label `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 1xx (an upgrade) and 2xx.
    Success,
    /// 3xx.
    Redirect,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// The client left before the end of the response: 499, as nginx calls it.
    ClientLeft,
}

impl Code {
    pub(super) const ALL: [Code; 5] =
        [Code::Success, Code::Redirect, Code::ClientError, Code::ServerError, Code::ClientLeft];

    /// The class of a status.
    #[must_use]
    pub fn of(status: u16) -> Code {
        match status {
            0..300 => Code::Success,
            300..400 => Code::Redirect,
            499 => Code::ClientLeft,
            400..500 => Code::ClientError,
            _ => Code::ServerError,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Code::Success => "2xx",
            Code::Redirect => "3xx",
            Code::ClientError => "4xx",
            Code::ServerError => "5xx",
            Code::ClientLeft => "499",
        }
    }
}

/// How far a request was when its client left; the label `phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It was still being read.
    Request,
    /// It waited for a backend's first byte.
    Waiting,
    /// Its response was on the way.
    Streaming,
}

impl Phase {
    pub(super) const ALL: [Phase; 3] = [Phase::Request, Phase::Waiting, Phase::Streaming];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Phase::Request => "request",
            Phase::Waiting => "waiting",
            Phase::Streaming => "streaming",
        }
    }
}

//! What the status of an answer says of the backend that sent it.

/// What an answer says of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It works.
    Good,
    /// Nothing: the request was wrong or not allowed, or did not reach a model.
    Neutral,
    /// It has no room, or loads its model: a failure only of a backend that produces nothing while others do.
    Busy,
    /// It fails.
    Error,
    /// What is behind it fails.
    BadGateway,
}

impl Answer {
    /// The meaning of a status, as the answer to a request that `is_inference` or is not. A server whose engine is dead
    /// goes on to answer the others well.
    #[must_use]
    pub fn of(status: u16, is_inference: bool) -> Answer {
        match status {
            502 | 504 => Answer::BadGateway,
            _ if !is_inference => Answer::Neutral,
            ..400 => Answer::Good,
            501 | 505 => Answer::Neutral,
            503 | 529 => Answer::Busy,
            500.. => Answer::Error,
            _ => Answer::Neutral,
        }
    }

    /// Whether the answer shows nothing of the backend's speed and leaves no cache behind.
    #[must_use]
    pub fn is_error(status: u16) -> bool {
        status >= 400
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_the_server() {
        for (status, answer) in [
            (200, Answer::Good),
            (101, Answer::Good),
            (302, Answer::Good),
            (400, Answer::Neutral),
            (404, Answer::Neutral),
            (429, Answer::Neutral),
            (500, Answer::Error),
            (501, Answer::Neutral),
            (503, Answer::Busy),
            (507, Answer::Error),
            (529, Answer::Busy),
            (599, Answer::Error),
        ] {
            assert_eq!(Answer::of(status, true), answer, "{status}");
            assert_eq!(Answer::of(status, false), Answer::Neutral, "{status}");
        }
        assert_eq!([502, 504].map(|status| Answer::of(status, false)), [Answer::BadGateway; 2]);
    }
}

//! What a backend does wrong, as a value.

use std::time::Duration;

/// One thing that a backend does on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes so many times.
    Repeat(Vec<u8>, usize),
    /// Sends these bytes one by one, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Sends its right answer.
    Answer,
    /// Sends its right answer, and together with its end these bytes.
    AnswerAnd(Vec<u8>),
    /// Sends its right answer one byte at a time, each in a packet of its own.
    DripAnswer,
    /// Sends the head of its right answer, and this many events of a stream; the first one has no output.
    Begin(usize),
    /// Does nothing for a while.
    Wait(Duration),
    /// Does nothing any more, until the other side leaves.
    Hang,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// What becomes of probes while a backend has a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probes {
    /// They are answered as ever.
    Well,
    /// They meet the same fault.
    Same,
    /// They get this status.
    Status(u16),
}

/// What a backend does wrong, from one moment to another.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// With a new connection, before it reads anything.
    pub(crate) greeting: Vec<Step>,
    /// With a request, instead of answering it. Without steps it answers.
    pub(crate) answer: Vec<Step>,
    pub(crate) probes: Probes,
    /// How many requests of a connection are answered before one meets it.
    pub(crate) after: usize,
    /// Whether only streams meet it.
    pub(crate) streams: bool,
}

impl Fault {
    /// New connections meet this, those of probes too.
    pub(crate) fn greets(steps: impl Into<Vec<Step>>) -> Fault {
        Fault { greeting: steps.into(), answer: Vec::new(), probes: Probes::Same, after: 0, streams: false }
    }

    /// Requests meet this, probes do not.
    pub(crate) fn answers(steps: impl Into<Vec<Step>>) -> Fault {
        Fault { greeting: Vec::new(), answer: steps.into(), probes: Probes::Well, after: 0, streams: false }
    }

    pub(crate) fn probes(self, probes: Probes) -> Fault {
        Fault { probes, ..self }
    }

    /// Streams meet this, short requests do not.
    pub(crate) fn in_streams(steps: impl Into<Vec<Step>>) -> Fault {
        Fault { streams: true, ..Fault::answers(steps) }
    }

    /// Only connections meet it that had so many requests.
    pub(crate) fn after(self, after: usize) -> Fault {
        Fault { after, ..self }
    }

    /// Whether a request for this target meets it that comes after so many others on its connection.
    pub(crate) fn is_met(&self, served: usize, target: &str) -> bool {
        let for_it = match target {
            "/health" => self.probes == Probes::Same,
            target => !self.streams || target.starts_with("/stream/"),
        };
        !self.answer.is_empty() && served >= self.after && for_it
    }
}

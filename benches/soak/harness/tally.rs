//! What clients have seen.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a client wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A short answer over HTTP/1.1, with a session.
    Short,
    /// The same without one.
    Keyless,
    Stream,
    Http2Short,
    Http2Stream,
    /// Streams whose backend is killed or frozen while it computes their prompts.
    Prefill,
    /// With a key that nobody has, and told so.
    Stranger,
    /// A client that leaves.
    Leaver,
}

impl Kind {
    pub(crate) const ALL: [Kind; 8] = [
        Kind::Short,
        Kind::Keyless,
        Kind::Stream,
        Kind::Http2Short,
        Kind::Http2Stream,
        Kind::Prefill,
        Kind::Stranger,
        Kind::Leaver,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Short => "short, with a session",
            Kind::Keyless => "short, without a session",
            Kind::Stream => "streams",
            Kind::Http2Short => "short, over HTTP/2",
            Kind::Http2Stream => "streams, over HTTP/2",
            Kind::Prefill => "streams sent to a backend before it was killed or frozen in prefill",
            Kind::Stranger => "with a wrong key, told 401",
            Kind::Leaver => "clients that leave",
        }
    }
}

/// Counts since the beginning.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// Answers that were whole and right.
    pub(crate) whole: BTreeMap<Kind, u64>,
    /// Clients that left, by when.
    pub(crate) left: BTreeMap<&'static str, u64>,
    /// Answers that were cut, with what explains it.
    pub(crate) explained: BTreeMap<String, u64>,
    /// Sent again over another HTTP/2 connection, because the gateway said that it had not begun with it.
    pub(crate) not_taken: u64,
    /// Attempts that the gateway repeated while a backend was killed or frozen in prefill.
    pub(crate) repeated: u64,
    pub(crate) bytes: u64,
    pub(crate) failed: u64,
    /// The first ones of them, in words.
    pub(crate) failures: Vec<String>,
    /// Of short requests, since somebody took it.
    pub(crate) latency: Latency,
}

impl Tally {
    pub(crate) fn whole(&mut self, kind: Kind, bytes: usize) {
        *self.whole.entry(kind).or_default() += 1;
        self.bytes += bytes as u64;
    }

    pub(crate) fn left(&mut self, when: &'static str) {
        *self.left.entry(when).or_default() += 1;
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.failures.len() < MOST_FAILURES {
            eprintln!("FAILED: {what}");
            self.failures.push(what);
        }
    }

    /// Requests of all kinds, whatever became of them.
    pub(crate) fn requests(&self) -> u64 {
        let sum = |counts: &mut dyn Iterator<Item = &u64>| counts.sum::<u64>();
        sum(&mut self.whole.values()) + sum(&mut self.left.values()) + sum(&mut self.explained.values()) + self.failed
    }
}

/// Times in classes that are a sixteenth of an octave wide.
#[derive(Clone, Default)]
pub(crate) struct Latency(BTreeMap<i32, u64>);

impl Latency {
    pub(crate) fn note(&mut self, time: Duration) {
        let class = (time.as_secs_f64().max(1e-6).log2() * 16.0).floor();
        *self.0.entry(class as i32).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Latency) {
        other.0.iter().for_each(|(class, count)| *self.0.entry(*class).or_default() += count);
    }

    /// The upper end of the class that has it, in milliseconds; 0 of nothing.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.0.values().sum::<u64>() as f64 * share;
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen as f64 >= wanted
        });
        found.map_or(0.0, |(class, _)| (f64::from(class + 1) / 16.0).exp2() * 1e3)
    }
}

const MOST_FAILURES: usize = 50;

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "for `tests/soak.rs`: a bench has no tests")]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_within_a_class() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|ms| latency.note(Duration::from_millis(ms)));
        for (share, ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let told = latency.quantile(share);
            assert!((ms..ms * 1.05).contains(&told), "{share}: {told}");
        }
        assert_eq!(Latency::default().quantile(0.5), 0.0);
    }
}

//! How much is done.

use std::path::PathBuf;
use std::time::Duration;

/// From the command line.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) minutes: f64,
    /// How long before growth is looked for; a part of `minutes`.
    pub(crate) warm_up: f64,
    /// Short requests per second.
    pub(crate) rate: f64,
    /// Streams at once.
    pub(crate) streams: usize,
    /// Between two things that the operator does, on average.
    pub(crate) pause: Duration,
    /// From one sample to the next.
    pub(crate) sample: Duration,
    pub(crate) seed: u64,
    pub(crate) write: Option<PathBuf>,
}

impl Options {
    /// `None` for what can't be understood.
    pub(crate) fn parse(args: &[String]) -> Option<Options> {
        let seconds = |text: &str| Some(Duration::from_secs_f64(text.parse().ok().filter(|s| (0.1..1e4).contains(s))?));
        let positive = |text: &str| text.parse().ok().filter(|number: &f64| (0.01..1e6).contains(number));
        let mut options = Options::of(45.0);
        let mut warm_up = None;
        for pair in args.chunks(2) {
            let [name, value] = pair else { return None };
            match name.as_str() {
                "--minutes" => options.minutes = positive(value)?,
                "--warm-up" => warm_up = Some(positive(value)?),
                "--rate" => options.rate = positive(value)?,
                "--streams" => options.streams = value.parse().ok()?,
                "--pause" => options.pause = seconds(value)?,
                "--sample" => options.sample = seconds(value)?,
                "--seed" => options.seed = value.parse().ok()?,
                "--write" => options.write = Some(value.into()),
                _ => return None,
            }
        }
        options.warm_up = warm_up.unwrap_or_else(|| Options::of(options.minutes).warm_up);
        (options.warm_up < options.minutes).then_some(options)
    }

    /// The usual things for so many minutes.
    pub(crate) fn of(minutes: f64) -> Options {
        Options {
            minutes,
            warm_up: (minutes * 0.3).min(15.0),
            rate: 700.0,
            streams: 60,
            pause: Duration::from_secs(8),
            sample: Duration::from_secs(10),
            seed: 1,
            write: None,
        }
    }
}

pub(crate) const USAGE: &str = "usage: [--minutes N] [--warm-up MINUTES] [--rate REQUESTS_PER_SECOND] [--streams N] \
                                [--pause SECONDS] [--sample SECONDS] [--seed N] [--write FILE]";

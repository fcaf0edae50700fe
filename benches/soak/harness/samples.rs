//! The series: what the gateway held, and what came of requests, every few seconds.

use std::time::Instant;

use rustix::process::Pid;

use super::gateway::Gateway;
use super::phases::Phases;
use super::process::{self, Holds};
use super::tally::{Kind, Latency, Tally};
use super::verdict::Line;
use super::world::World;

/// Everything that was measured over time.
#[derive(Default)]
pub(crate) struct Series {
    pub(crate) samples: Vec<Sample>,
    last: Tally,
}

/// One row. Counts and latency are since the row before.
#[derive(Clone)]
pub(crate) struct Sample {
    /// Since the beginning.
    pub(crate) seconds: f64,
    pub(crate) measured: bool,
    pub(crate) pid: Option<Pid>,
    pub(crate) holds: Holds,
    pub(crate) connections: usize,
    pub(crate) requests: u64,
    pub(crate) streams: u64,
    pub(crate) left: u64,
    pub(crate) explained: u64,
    pub(crate) failed: u64,
    pub(crate) latency: Latency,
}

impl Series {
    /// The number of the next sample, from 1.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.samples.len() + 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn take(&mut self, gateway: &Gateway, world: &World, phases: &Phases) {
        let now = Instant::now();
        let pid = gateway.pid();
        let holds = process::holds(pid);
        let tally = {
            let mut tally = world.tally.lock();
            let copy = tally.clone();
            tally.latency = Latency::default();
            copy
        };
        let streams = |tally: &Tally| {
            [Kind::Stream, Kind::Http2Stream].iter().filter_map(|kind| tally.whole.get(kind)).sum::<u64>()
        };
        let left = |tally: &Tally| tally.left.values().sum::<u64>();
        let explained = |tally: &Tally| tally.explained.values().sum::<u64>();
        self.samples.push(Sample {
            seconds: phases.begun.elapsed().as_secs_f64(),
            measured: phases.measures(now),
            pid: holds.map(|_| pid),
            holds: holds.unwrap_or_default(),
            connections: process::connections(gateway.address.port()),
            requests: tally.requests() - self.last.requests(),
            streams: streams(&tally) - streams(&self.last),
            left: left(&tally) - left(&self.last),
            explained: explained(&tally) - explained(&self.last),
            failed: tally.failed - self.last.failed,
            latency: tally.latency.clone(),
        });
        self.last = tally;
        if self.samples.len() == 1 {
            eprintln!("{HEAD}");
        }
        eprintln!("{}", self.samples[self.samples.len() - 1].row());
    }

    /// Those of the measured time.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.measured)
    }

    /// The line through one figure over the measured time.
    pub(crate) fn line(&self, figure: impl Fn(&Holds) -> f64) -> Option<Line> {
        let points: Vec<_> = self.measured().map(|sample| (sample.seconds, figure(&sample.holds))).collect();
        Line::through(&points)
    }

    /// One row for every `by` samples.
    pub(crate) fn rows(&self, by: usize) -> Vec<Sample> {
        self.samples.chunks(by.max(1)).filter_map(Sample::together).collect()
    }
}

impl Sample {
    /// Several rows as one: what was held is that of the last one.
    fn together(samples: &[Sample]) -> Option<Sample> {
        let mut sum = samples.last()?.clone();
        for sample in &samples[..samples.len() - 1] {
            sum.requests += sample.requests;
            sum.streams += sample.streams;
            sum.left += sample.left;
            sum.explained += sample.explained;
            sum.failed += sample.failed;
            sum.latency.add(&sample.latency);
        }
        Some(sum)
    }

    /// One line of a table.
    pub(crate) fn row(&self) -> String {
        let Sample { holds, latency, .. } = self;
        let (minutes, seconds) = ((self.seconds / 60.0).floor(), self.seconds % 60.0);
        format!(
            "| {minutes:.0}:{seconds:02.0} | {} | {:.1} | {:.1} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} / {:.1} |",
            if self.measured { "yes" } else { "" },
            holds.rss,
            holds.anonymous,
            holds.descriptors,
            holds.threads,
            self.connections,
            self.requests,
            self.streams,
            self.left,
            self.explained,
            self.failed,
            latency.quantile(0.5),
            latency.quantile(0.99),
        )
    }
}

pub(crate) const HEAD: &str = "| time | measured | RSS, MB | of it heap | descriptors | threads | client connections \
| requests | of them streams, whole | clients that left | explained | failed | short requests: p50 / p99, ms |\n\
|---|---|---|---|---|---|---|---|---|---|---|---|---|";

//! What is simulated: fleets, loads and circumstances.

use crate::machine::Model;

/// One row group of the table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) machines: Vec<Model>,
    /// How busy the oracle would be.
    pub(crate) load: f64,
    /// Gateways behind a random splitter; each knows of its own requests only.
    pub(crate) gateways: u32,
    /// Machine 0 dies at a third, and is back, cold, at two thirds.
    pub(crate) outage: bool,
    /// How often backends are asked for their load, in seconds.
    pub(crate) poll: Option<f64>,
    /// By how much time is compressed for the gateways.
    pub(crate) compressed: f64,
    /// Whether backends report cached tokens.
    pub(crate) reports: bool,
    /// Whether answers are streams.
    pub(crate) streams: bool,
    /// Whether weights are as the machines' speeds; else all are 1.
    pub(crate) weighted: bool,
}

/// Who places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `consistent_hash` without a bound and without staying put: what others have.
    Hash,
    /// `consistent_hash` with its defaults.
    Bounded,
    LeastTtft,
    Oracle,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Hash, Kind::Bounded, Kind::LeastTtft, Kind::Oracle];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Hash => "plain hash",
            Kind::Bounded => "bounded hash",
            Kind::LeastTtft => "least_ttft",
            Kind::Oracle => "oracle",
        }
    }
}

impl Cell {
    fn new(gateways: u32, machines: usize, blocks: usize, load: f64) -> Cell {
        Cell {
            name: format!("G={gateways} N={machines} K={blocks} u={load}"),
            machines: vec![Model { prefill: 8000.0, decode: 40.0, slots: 16, blocks }; machines],
            load,
            gateways,
            outage: false,
            poll: None,
            compressed: 1.0,
            reports: true,
            streams: true,
            weighted: false,
        }
    }

    fn but(mut self, how: &str, change: impl Fn(&mut Cell)) -> Cell {
        change(&mut self);
        self.name = format!("{} {how}", self.name);
        self
    }

    /// By machine.
    pub(crate) fn weights(&self) -> Vec<u32> {
        let slowest = self.machines.iter().map(|model| model.prefill).fold(f64::INFINITY, f64::min);
        let weight = |model: &Model| if self.weighted { (model.prefill / slowest).round() as u32 } else { 1 };
        self.machines.iter().map(weight).collect()
    }
}

/// All cells, the grid first. G: gateways, N: backends, K: blocks of cache, u: load.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for gateways in [1, 3] {
        for blocks in [300, 3000, 20_000] {
            cells.extend([0.3, 0.5, 0.75, 0.9].map(|load| Cell::new(gateways, 8, blocks, load)));
        }
        cells.extend([0.1, 1.05].map(|load| Cell::new(gateways, 8, 5000, load)));
        cells.extend([2, 4, 16, 32].map(|machines| Cell::new(gateways, machines, 3000, 0.7)));
    }
    cells.extend([2, 6].map(|gateways| Cell::new(gateways, 8, 2000, 0.6)));
    cells.extend([2, 6].map(|gateways| Cell::new(gateways, 8, 6000, 0.85)));
    cells.extend([1, 3].into_iter().flat_map(circumstances));
    cells
}

/// What else may be the case.
fn circumstances(gateways: u32) -> Vec<Cell> {
    let cell = |load| Cell::new(gateways, 8, 3000, load);
    let decode_bound = |cell: &mut Cell| {
        cell.machines.fill(Model { prefill: 40_000.0, decode: 15.0, slots: 12, blocks: 3000 });
    };
    let unequal = |cell: &mut Cell| {
        for model in &mut cell.machines[..2] {
            (model.prefill, model.decode) = (model.prefill / 2.0, model.decode / 2.0);
        }
    };
    let mut cells = vec![cell(0.6).but("outage", |cell| cell.outage = true)];
    for load in [0.5, 0.75] {
        cells.extend([
            cell(load).but("polled", |cell| cell.poll = Some(1.0)),
            cell(load).but("slots", decode_bound),
            cell(load).but("slots", decode_bound).but("polled", |cell| cell.poll = Some(1.0)),
            cell(load).but("two slow", unequal),
            cell(load).but("two slow", unequal).but("weighted", |cell| cell.weighted = true),
            cell(load).but("no reports", |cell| cell.reports = false),
            cell(load).but("no streams", |cell| cell.streams = false),
            cell(load).but("30 x", |cell| cell.compressed = 30.0),
        ]);
    }
    cells
}

//! The figures, side by side, and what they must show.

use crate::cells::{Cell, Kind};
use crate::figures::Figures;

/// The figures of a cell, by policy.
pub(crate) struct Row {
    pub(crate) cell: Cell,
    pub(crate) figures: Vec<(Kind, Figures)>,
}

impl Row {
    fn of(&self, kind: Kind) -> &Figures {
        self.figures.iter().find(|(other, _)| *other == kind).map_or(&self.figures[0].1, |(_, figures)| figures)
    }

    /// Mean and 99th percentile over the plain hash's.
    fn ratios(&self, kind: Kind) -> (f64, f64) {
        let (own, hash) = (self.of(kind).first_token, self.of(Kind::Hash).first_token);
        (own.mean / hash.mean, own.p99 / hash.p99)
    }

    /// Points of recompute above the plain hash's.
    fn recompute(&self, kind: Kind) -> f64 {
        100.0 * (self.of(kind).recomputed - self.of(Kind::Hash).recomputed)
    }
}

pub(crate) fn head() {
    println!(
        "{:<36} {:<12} {:>6} {:>7} {:>6} {:>6} {:>7} {:>5} {:>6}  {:>6} {:>6} {:>6}",
        "", "", "rec", "mean", "p50", "p90", "p99", "skew", "moves", "x mean", "x p99", "+ rec"
    );
}

pub(crate) fn print(row: &Row) {
    for (kind, figures) in &row.figures {
        let (ttft, (mean, p99)) = (figures.first_token, row.ratios(*kind));
        print!(
            "{:<36} {:<12} {:>6.3} {:>7.2} {:>6.2} ",
            row.cell.name,
            kind.name(),
            figures.recomputed,
            ttft.mean,
            ttft.p50
        );
        print!("{:>6.2} {:>7.2} {:>5.2} {:>6.0}  ", ttft.p90, ttft.p99, figures.skew, figures.moves);
        println!("{mean:>6.2} {p99:>6.2} {:>+6.1}", row.recompute(*kind));
        if row.cell.outage {
            let (down, after) = (figures.down, figures.after);
            println!(
                "    while it is down: mean {:.2}, p99 {:.2}; after: mean {:.2}, p99 {:.2}; first turns back recompute {:.2}",
                down.mean,
                down.p99,
                after.mean,
                after.p99,
                figures.back()
            );
        }
    }
}

/// What issue 3 asks for, the worst over all cells that are there.
pub(crate) fn verdict(rows: &[Row]) {
    let worst = |of: &dyn Fn(&Row) -> Option<f64>| rows.iter().filter_map(of).reduce(f64::max);
    let plain = |row: &Row| row.cell.name.split(' ').count() == 4;
    let one = |row: &Row| plain(row) && row.cell.gateways == 1;
    let at = |row: &Row, load: f64| (row.cell.load - load).abs() < 1e-9;
    let usual = |row: &Row| row.cell.machines.len() == 8 && row.cell.machines[0].blocks == 3000 && at(row, 0.75);
    let three = |row: &Row| plain(row) && row.cell.gateways == 3;
    let least = Kind::LeastTtft;
    let outage = |row: &Row| row.cell.outage && row.cell.gateways == 1;
    println!();
    let say = |what: &str, limit: f64, found: Option<f64>| {
        if let Some(found) = found {
            println!("{} {found:>5.2} <= {limit:<5} {what}", if found <= limit { "ok    " } else { "MISSED" });
        }
    };
    say("one gateway: mean, x plain hash", 0.40, worst(&|r| (one(r) && usual(r)).then(|| r.ratios(least).0)));
    say("one gateway: p99, x plain hash", 0.50, worst(&|r| (one(r) && usual(r)).then(|| r.ratios(least).1)));
    say(
        "one gateway: points of recompute above, any cell",
        5.0,
        worst(&|r| (r.cell.gateways == 1).then(|| r.recompute(least))),
    );
    let loaded = |row: &Row| three(row) && (at(row, 0.75) || at(row, 0.9));
    say("three gateways: mean, x plain hash, 75 % and 90 %", 0.65, worst(&|r| loaded(r).then(|| r.ratios(least).0)));
    say(
        "three gateways: mean, x plain hash, any cell",
        1.0,
        worst(&|r| (r.cell.gateways == 3).then(|| r.ratios(least).0)),
    );
    say("bounded hash: mean, x plain hash", 0.85, worst(&|r| (one(r) && usual(r)).then(|| r.ratios(Kind::Bounded).0)));
    let down = |r: &Row| r.of(least).down.p99 / r.of(Kind::Hash).down.p99;
    say("one backend down: p99, x plain hash", 0.6, worst(&|r| outage(r).then(|| down(r))));
    let back = |r: &Row| r.of(least).back() / r.of(Kind::Hash).back();
    say("first turns after its return: recompute, x snapping back", 0.75, worst(&|r| outage(r).then(|| back(r))));
}

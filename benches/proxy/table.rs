//! The table that the bench prints.

use super::Figures;
use super::proxies::Proxy;

/// Prints medians over the rounds, and ratios against the first proxy, the bare one.
pub(crate) fn print(proxies: &[Proxy], figures: &[Figures], streams: usize) {
    println!(
        "\n| proxy | CPU per request | ratio | CPU per chunk | ratio | memory per stream | added p50 | added p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let Some(bare) = figures.first() else { return };
    for (proxy, of) in proxies.iter().zip(figures) {
        println!(
            "| {} | {:.1} us | {:.2} | {:.1} us | {:.2} | {:.0} KiB | {:.0} us | {:.0} us |",
            proxy.name,
            median(&of.micros_per_request),
            ratio(&of.micros_per_request, &bare.micros_per_request),
            median(&of.micros_per_chunk),
            ratio(&of.micros_per_chunk, &bare.micros_per_chunk),
            of.kib_per_stream.iter().copied().fold(0.0, f64::max),
            median(&of.added.iter().map(|latency| latency.p50).collect::<Vec<_>>()),
            median(&of.added.iter().map(|latency| latency.p99).collect::<Vec<_>>()),
        );
    }
    println!("\n1 KB POSTs over 64 keep-alive connections; {streams} event streams, a chunk each 50 ms.");
    println!(
        "CPU: medians over the rounds; ratio: median of the rounds' ratios against bare; memory: the round with the most."
    );
}

/// The median of the ratios, round by round: both took their turn under the same weather.
fn ratio(of: &[f64], bare: &[f64]) -> f64 {
    median(&of.iter().zip(bare).map(|(of, bare)| of / bare).collect::<Vec<_>>())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

//! Large bodies, in responses and in requests.

use super::super::figures::{Column, Compare};
use super::super::http1::{KB, PATH, Pool, post};
use super::super::run::{Bench, Subject};

/// One kind of body.
struct Shape {
    key: &'static str,
    head: &'static str,
    path: &'static str,
    /// Bytes in the request.
    sent: usize,
    /// One for so many small requests of the option.
    share: usize,
}

const SHAPES: [Shape; 4] = [
    Shape { key: "response_50k", head: "50 KB response", path: "/size/50000", sent: KB, share: 4 },
    Shape { key: "response_1m", head: "1 MB response", path: "/size/1000000", sent: KB, share: 20 },
    Shape { key: "request_50k", head: "50 KB request", path: PATH, sent: 50 * KB, share: 4 },
    Shape { key: "request_1m", head: "1 MB request", path: PATH, sent: 1_000 * KB, share: 20 },
];

pub(super) fn about(bench: &Bench<'_>) -> String {
    let [small, large] = [0, 1].map(|shape: usize| bench.options.requests.div_ceil(SHAPES[shape].share));
    format!(
        "CPU per request with a large body: {small} of 50 KB, {large} of 1 MB, over {CONNECTIONS} keep-alive connections."
    )
}

pub(super) fn columns() -> Vec<Column> {
    SHAPES.iter().map(|shape| Column::new(shape.key, shape.head, "us", Compare::Ratio)).collect()
}

pub(super) async fn measure(subject: &Subject<'_>, bench: &Bench<'_>) -> Result<Vec<f64>, String> {
    let mut figures = Vec::new();
    for shape in &SHAPES {
        let requests = bench.options.requests.div_ceil(shape.share);
        let request = |session| post(shape.path, session, shape.sent);
        let mut pool = Pool::open(subject.port, None, CONNECTIONS, request).await?;
        pool.run(requests / 8, CONNECTIONS).await?;
        let before = subject.cpu_micros();
        pool.run(requests, CONNECTIONS).await?;
        figures.push((subject.cpu_micros() - before) / requests as f64);
    }
    Ok(figures)
}

const CONNECTIONS: usize = 16;

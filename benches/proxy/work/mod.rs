//! The workloads.

mod bodies;
mod chunk;
mod http2;
mod idle;
mod latency;
mod request;

use super::configs::Front;
use super::figures::Column;
use super::run::{Bench, Subject};

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Request,
    Bodies,
    Chunk,
    Latency,
    Idle,
    Tls,
    Http2,
}

impl Work {
    pub(crate) const ALL: [Work; 7] =
        [Work::Request, Work::Bodies, Work::Chunk, Work::Latency, Work::Idle, Work::Tls, Work::Http2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Request => "request",
            Work::Bodies => "bodies",
            Work::Chunk => "chunk",
            Work::Latency => "latency",
            Work::Idle => "idle",
            Work::Tls => "tls",
            Work::Http2 => "http2",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Work, String> {
        Work::ALL.into_iter().find(|work| work.name() == name).ok_or_else(|| format!("unknown workload: {name}"))
    }

    /// What clients speak.
    pub(crate) fn front(self) -> Front {
        match self {
            Work::Tls => Front::Tls,
            Work::Http2 => Front::Http2,
            Work::Request | Work::Bodies | Work::Chunk | Work::Latency | Work::Idle => Front::Http1,
        }
    }

    /// Whether a backend without a proxy takes its turn as well.
    pub(crate) fn has_direct_row(self) -> bool {
        matches!(self, Work::Chunk | Work::Latency)
    }

    /// A sentence for above the table.
    pub(crate) fn about(self, bench: &Bench<'_>) -> String {
        match self {
            Work::Request => request::about(bench, ""),
            Work::Tls => request::about(bench, " over TLS 1.3, without the handshakes"),
            Work::Bodies => bodies::about(bench),
            Work::Chunk => chunk::about(bench),
            Work::Latency => latency::about(bench),
            Work::Idle => idle::about(bench),
            Work::Http2 => http2::about(bench),
        }
    }

    pub(crate) fn columns(self) -> Vec<Column> {
        match self {
            Work::Request | Work::Tls | Work::Http2 => request::columns(),
            Work::Bodies => bodies::columns(),
            Work::Chunk => chunk::columns(),
            Work::Latency => latency::columns(),
            Work::Idle => idle::columns(),
        }
    }

    /// Measures a freshly started proxy. Returns a value for each column.
    pub(crate) async fn measure(self, subject: &Subject<'_>, bench: &Bench<'_>) -> Result<Vec<f64>, String> {
        match self {
            Work::Request => request::measure(subject, bench, None).await,
            Work::Tls => request::measure(subject, bench, Some(&bench.certificate)).await,
            Work::Bodies => bodies::measure(subject, bench).await,
            Work::Chunk => chunk::measure(subject, bench).await,
            Work::Latency => latency::measure(subject, bench).await,
            Work::Idle => idle::measure(subject, bench).await,
            Work::Http2 => http2::measure(subject, bench).await,
        }
    }
}

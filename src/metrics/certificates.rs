//! What is told of certificates.

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGaugeVec};
use std::sync::Arc;

use super::families::Families;

/// Certificates and their ends.
#[derive(Clone)]
pub struct CertificateMetrics {
    expiry: IntGaugeVec,
    /// Changed files that came into force.
    pub loaded: IntCounter,
    /// Changed files that can't be used.
    pub failed: IntCounter,
    /// The files that have a series.
    told: Arc<Mutex<Vec<String>>>,
}

impl CertificateMetrics {
    pub(super) fn new(families: &Families) -> prometheus::Result<CertificateMetrics> {
        let reloads = families.counter(
            "ingle_certificate_reloads_total",
            "Certificate files that changed: in force (ok), or kept out because they can't be used (error)",
            &["result"],
        )?;
        Ok(CertificateMetrics {
            expiry: families.gauge(
                "ingle_certificate_expiry_timestamp_seconds",
                "When the certificate in force from this file expires, in seconds since 1970",
                &["certificate"],
            )?,
            loaded: reloads.with_label_values(&["ok"]),
            failed: reloads.with_label_values(&["error"]),
            told: Arc::default(),
        })
    }

    /// Sets when each certificate ends; those that are not named any more are told no more.
    pub fn set(&self, ends: &[(String, i64)]) {
        let mut told = self.told.lock();
        for (file, end) in ends {
            self.expiry.with_label_values(&[file]).set(*end);
        }
        for file in told.iter().filter(|file| !ends.iter().any(|(named, _)| named == *file)) {
            // An error says that it has ended already.
            let _ = self.expiry.remove_label_values(&[file]);
        }
        *told = ends.iter().map(|(file, _)| file.clone()).collect();
    }
}

//! Metric families as they are made, and how a series of one ends.

use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// All families that were made here.
#[derive(Default)]
pub(super) struct Families {
    registry: Registry,
    all: Mutex<Vec<Box<dyn Forget + Send + Sync>>>,
}

impl Families {
    pub(super) fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// Ends every series that has all of these labels. Who still counts in one counts for nobody.
    pub(super) fn forget(&self, labels: &[(&str, &str)]) {
        self.all.lock().iter().for_each(|family| family.forget(labels));
    }

    fn register<B>(&self, family: MetricVec<B>) -> prometheus::Result<MetricVec<B>>
    where
        B: MetricVecBuilder + 'static,
        MetricVec<B>: Collector,
    {
        self.registry.register(Box::new(family.clone()))?;
        self.all.lock().push(Box::new(family.clone()));
        Ok(family)
    }
}

/// A family of any kind.
trait Forget {
    fn forget(&self, labels: &[(&str, &str)]);
}

impl<B: MetricVecBuilder> Forget for MetricVec<B>
where
    MetricVec<B>: Collector,
{
    fn forget(&self, labels: &[(&str, &str)]) {
        for family in self.collect() {
            for series in family.get_metric() {
                let all: HashMap<&str, &str> =
                    series.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
                if labels.iter().all(|(name, value)| all.get(name) == Some(value)) {
                    // An error says that it has ended already.
                    let _ = self.remove(&all);
                }
            }
        }
    }
}

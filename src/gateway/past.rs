//! The snapshots that are no longer in force, for as long as requests keep them.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

/// As many as there are requests that began with another config, at most.
#[derive(Default)]
pub(super) struct Past(Mutex<Vec<Former>>);

struct Former {
    snapshot: Weak<Snapshot>,
    pool: String,
    /// Names whose series may still be there.
    backends: Vec<String>,
}

impl Past {
    pub(super) fn add(&self, snapshot: &Arc<Snapshot>) {
        let backends = snapshot.config.pool().backends.iter().map(|backend| backend.name.clone()).collect();
        let pool = snapshot.config.pool().name.clone();
        self.0.lock().push(Former { snapshot: Arc::downgrade(snapshot), pool, backends });
    }

    pub(super) fn alive(&self) -> Vec<Arc<Snapshot>> {
        self.0.lock().iter().filter_map(|former| former.snapshot.upgrade()).collect()
    }

    /// Ends the series of backends that the config in force does not name, once they have no request any more, and of
    /// pools likewise. Otherwise alerts on a backend would outlive it.
    pub(super) fn forget(&self, current: &Snapshot, metrics: &Metrics) {
        let mut all = self.0.lock();
        let pool = &current.config.pool().name;
        for former in all.iter_mut() {
            let snapshot = former.snapshot.upgrade();
            former.backends.retain(|name| {
                let named = *pool == former.pool && current.pool.position(name).is_some();
                if named || snapshot.as_ref().is_some_and(|snapshot| busy(snapshot, name)) {
                    return true;
                }
                metrics.forget(&[("pool", &former.pool), ("backend", name)]);
                false
            });
        }
        all.retain(|former| {
            let over = former.snapshot.strong_count() == 0;
            if over && *pool != former.pool {
                metrics.forget(&[("pool", &former.pool)]);
            }
            !over
        });
    }
}

fn busy(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.links.iter().any(|link| link.backend.name() == name && link.backend.busy())
}

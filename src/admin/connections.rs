//! The connections to the admin listener: bounded, and none of them keeps another one out.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::apps::http_app::HttpServer;
use pingora::prelude::timeout;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;

use super::{Admin, REQUEST};
use crate::access;
use crate::gateway::Gateway;

/// The connections to the admin listener.
pub struct Connections {
    gateway: Arc<Gateway>,
    admin: Arc<HttpServer<Admin>>,
    open: Open,
}

/// Those that are open, the oldest first, each with what closes it, unless it is being closed.
#[derive(Default)]
struct Open(Mutex<BTreeMap<u64, Option<Arc<Notify>>>>);

/// One of them, until it drops.
struct Entry<'a> {
    open: &'a Open,
    number: u64,
    closed: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(gateway: &Arc<Gateway>, admin: Arc<HttpServer<Admin>>) -> Connections {
        Connections { gateway: Arc::clone(gateway), admin, open: Open::default() }
    }
}

impl Open {
    /// Lets a connection in. From three quarters of `most` on, the oldest one is closed for it: scrapers that hang must not
    /// keep out what asks for `/livez`.
    fn enter(&self, most: usize) -> Option<Entry<'_>> {
        let mut open = self.0.lock();
        if open.len() >= most {
            return None;
        }
        if open.len() >= (most / 4 * 3).max(1)
            && let Some(oldest) = open.values_mut().find_map(Option::take)
        {
            oldest.notify_one();
        }
        let number = open.last_key_value().map_or(0, |(last, _)| last + 1);
        let closed = Arc::<Notify>::default();
        open.insert(number, Some(Arc::clone(&closed)));
        Some(Entry { open: self, number, closed })
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.open.0.lock().remove(&self.number);
    }
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let snapshot = self.gateway.snapshot.load_full();
        let most = snapshot.admins;
        let allowed =
            snapshot.config.admin.as_ref().is_some_and(|admin| access::may_come(admin.allow.as_ref(), &stream));
        drop(snapshot);
        if !allowed {
            self.gateway.metrics.limits.address.inc();
            tracing::debug!(client = ?access::peer(&stream), "closed: its address may not come to the admin listener");
            return None;
        }
        // The gateway's clients have their bounds; admins must not be who uses up its descriptors.
        let entry = self.open.enter(most)?;
        tokio::select! {
            next = timeout(REQUEST, self.admin.process_new(stream, shutdown)) => next.ok()?,
            () = entry.closed.notified() => None,
        }
    }

    async fn cleanup(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closed(entry: &Entry<'_>) -> bool {
        let mut closed = std::pin::pin!(entry.closed.notified());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        closed.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn oldest_connection_makes_room() {
        let open = Open::default();
        let mut first: Vec<_> = (0..6).map(|_| open.enter(8).unwrap()).collect();
        let seventh = open.enter(8).unwrap();
        assert_eq!(first.iter().map(is_closed).collect::<Vec<_>>(), [true, false, false, false, false, false]);
        let _eighth = open.enter(8).unwrap();
        assert!(open.enter(8).is_none(), "those that are being closed count until they are");
        first.remove(1);
        assert!(open.enter(8).is_some() && !is_closed(&seventh));
        assert!(open.0.lock().len() == 7);
    }
}
